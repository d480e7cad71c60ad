//! PEFT folders: those of peft here, and ours equal to them byte for byte.

use std::{collections::BTreeMap, fs, path::Path};

use anyo_core::{
    Error,
    torch::{Init, Params, save_model},
};
use anyo_lm::{AdapterKind, Linear, LoraConfig, PeftAdapter, Targets, attach, load_peft, save_peft};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor, no_grad};

use super::{
    assert_close, eval, fixture, llama_like, noise,
    targets::{config, names},
    tensors,
};

const CASES: [&str; 3] = ["plain", "patterns", "fused"];

/// The linears of the tiny model of a case.
fn linears(case: &str) -> Vec<Linear> {
    tensors(&format!("peft/{case}/base/model.safetensors"))
        .into_iter()
        .filter_map(|(name, weight)| Some((name.strip_suffix(".weight")?.to_owned(), weight)))
        .filter(|(name, _)| name.ends_with("_proj") || name == "lm_head")
        .map(|(name, weight)| Linear::new(name, weight, None))
        .collect()
}

fn load(case: &str) -> (Vec<Linear>, LoraConfig, Params) {
    let (mut linears, mut params) = (linears(case), Params::new(Device::Cpu));
    let folder = fixture(&format!("peft/{case}/adapter"));
    let (config, attached) = load_peft(&mut linears, &folder, "default", &mut params).unwrap();
    assert_eq!(attached.n_parameters, params.n_parameters());
    (linears, config, params)
}

#[test]
fn outputs_and_gradients_are_pefts() {
    for case in CASES {
        let (mut linears, _, params) = load(case);
        let want = tensors(&format!("peft/{case}/expected.safetensors"));
        let mut n = 0;
        for linear in &mut linears {
            let name = linear.name().to_owned();
            let Some(x) = want.get(&format!("{name}.x")) else {
                assert!(linear.adapters().is_empty(), "{name}");
                continue;
            };
            let get = |key: &str| &want[&format!("{name}.{key}")];
            let x = x.copy().set_requires_grad(true);
            let y = linear.forward(&x, &eval());
            assert_close(&name, &y, get("y"), 1e-5);
            (&y * get("weight")).sum(Kind::Float).backward();
            assert_close(&name, &x.grad(), get("dx"), 1e-5);
            let grad = |which: &str| params.get(&format!("base_model.model.{name}.{which}.weight")).unwrap().grad();
            assert_close(&name, &grad("lora_A"), get("da"), 1e-5);
            assert_close(&name, &grad("lora_B"), get("db"), 1e-5);
            let AdapterKind::Lora(lora) = linear.adapters()[0].kind() else { panic!() };
            assert_close(&name, &lora.weight_delta(), get("delta"), 1e-6);
            linear.merge().unwrap();
            assert_close(&name, &linear.forward(&x, &eval()).detach(), get("y"), 1e-5);
            n += 1;
        }
        assert_eq!(n, BTreeMap::from([("plain", 6), ("patterns", 3), ("fused", 4)])[case]);
    }
}

#[test]
fn what_we_write_is_what_peft_wrote() {
    let out = tempfile::tempdir().unwrap();
    for case in CASES {
        let (linears, config, _params) = load(case);
        let (theirs, ours) = (fixture(&format!("peft/{case}/adapter")), out.path().join(case));
        save_peft(&linears, &ours, "default", &config, None).unwrap();
        let read = |folder: &Path, file: &str| fs::read(folder.join(file)).unwrap();
        let text = |folder: &Path| String::from_utf8(read(folder, "adapter_config.json")).unwrap();
        assert_eq!(text(&ours), text(&theirs), "{case}");
        assert!(read(&ours, "adapter_model.safetensors") == read(&theirs, "adapter_model.safetensors"), "{case}");
        assert_eq!(PeftAdapter::read(&ours).unwrap().config, config);
    }
}

/// An adapter of our own on peft's tiny model, left for `fixtures/peft/check_ours.py` to load into peft.
#[test]
fn an_adapter_of_our_own_is_left_for_peft_to_check() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peft_ours");
    let mut expected = Params::new(Device::Cpu);
    let listed = names(&["q_proj", "o_proj", "gate_proj"]);
    for (case, targets, rslora) in [("plain", listed, false), ("fused", Targets::AllLinear, true)] {
        let (mut linears, mut params) = (linears(case), Params::new(Device::Cpu));
        let settings = LoraConfig {
            rank: 3,
            alpha: 7.5,
            rslora,
            dropout: 0.05,
            rank_pattern: vec![("gate_proj".into(), 5)],
            ..config(targets)
        };
        attach(&mut linears, "mine", &settings, &mut params, 11).unwrap();
        for (name, p) in params.trainable() {
            no_grad(|| p.shallow_clone().copy_(&Init::Normal { std: 0.3 }.tensor(name, &p.size(), 5).unwrap()));
        }
        save_peft(&linears, &folder.join(case), "mine", &settings, Some("tiny-model")).unwrap();
        assert_eq!(PeftAdapter::read(&folder.join(case)).unwrap().base_model.as_deref(), Some("tiny-model"));
        for linear in linears.iter().filter(|linear| linear.adapter("mine").is_some()) {
            let x = noise(&[2, 3, linear.in_features()], 1.0);
            let y = no_grad(|| linear.forward(&x, &eval()));
            let _ = expected.add(format!("{case}/{}.x", linear.name()), x, false).unwrap();
            let _ = expected.add(format!("{case}/{}.y", linear.name()), y, false).unwrap();
        }
    }
    save_model(&folder.join("expected.safetensors"), &expected, &BTreeMap::new()).unwrap();
}

fn refused(folder: &Path, linears: &mut [Linear]) -> (String, String) {
    let mut params = Params::new(Device::Cpu);
    let error = load_peft(&mut *linears, folder, "default", &mut params).unwrap_err();
    assert!(linears.iter().all(|linear| linear.adapters().is_empty()) && params.n_parameters() == 0);
    assert!(!matches!(error, Error::Torch(_)), "{error}");
    (error.to_string(), error.hint().unwrap_or_default())
}

#[test]
fn an_adapter_for_another_model_lists_what_differs() {
    let folder = fixture("peft/plain/adapter");
    let (message, hint) = refused(&folder, &mut llama_like());
    assert!(message.contains("adapter_model.safetensors: the adapter does not fit the model"), "{message}");
    assert!(message.contains("the model has no linear `model.layers.0.mlp.down_proj`"), "{message}");
    let wanted = "`model.layers.1.self_attn.q_proj.lora_A.weight` has shape [4, 24], the model and r need [4, 4]";
    assert!(message.contains(wanted) && hint.contains("another model"), "{message}");
    let (message, _) = refused(&fixture("peft/fused/adapter"), &mut linears("plain"));
    assert!(message.contains("the model has no linear `model.layers.0.self_attn.qkv_proj`"), "{message}");
}

/// Copies the folder of the case `plain`, changed by `change`.
fn changed(to: &Path, change: impl Fn(&mut Value)) {
    let from = fixture("peft/plain/adapter");
    fs::copy(from.join("adapter_model.safetensors"), to.join("adapter_model.safetensors")).unwrap();
    let mut settings: Value = serde_json::from_slice(&fs::read(from.join("adapter_config.json")).unwrap()).unwrap();
    change(&mut settings);
    fs::write(to.join("adapter_config.json"), settings.to_string()).unwrap();
}

#[test]
fn settings_beyond_plain_lora_are_refused_by_name() {
    let out = tempfile::tempdir().unwrap();
    for (key, value, want) in [
        ("use_dora", json!(true), "DoRA (`use_dora`: true)"),
        ("bias", json!("all"), "trained biases (`bias`: \"all\")"),
        (
            "modules_to_save",
            json!(["lm_head"]),
            "whole modules saved with the adapter (`modules_to_save`: [\"lm_head\"])",
        ),
        ("init_lora_weights", json!("pissa"), "changes the base weights (`init_lora_weights`: \"pissa\")"),
        ("layer_replication", json!([[0, 2]]), "`layer_replication`: [[0,2]]"),
        ("a_later_invention", json!({"x": 1}), "`a_later_invention`: {\"x\":1}"),
        ("peft_type", json!("IA3"), "peft_type must be \"LORA\", got \"IA3\""),
        ("r", json!("four"), "`r` must be a whole number, got \"four\""),
        ("r", json!(5), "`model.layers.0.mlp.down_proj.lora_A.weight` has shape [4, 40], the model and r need [5, 40]"),
        ("lora_alpha", json!(0), "alpha must be positive, got 0"),
        ("target_modules", json!(7), "`target_modules` must be a list of names or a regular expression, got 7"),
        ("rank_pattern", json!({"q_proj": 4.5}), "`rank_pattern` must be a map to whole numbers, got {\"q_proj\":4.5}"),
        ("rank_pattern", json!({"q_proj(": 4}), "the pattern `q_proj(` is not a regular expression"),
    ] {
        changed(out.path(), |settings| settings[key] = value.clone());
        let (message, _) = refused(out.path(), &mut linears("plain"));
        assert!(message.contains(want), "{message}");
    }
    for (key, value) in
        [("init_lora_weights", json!("gaussian")), ("eva_config", json!({"rho": 2})), ("later", json!(null))]
    {
        changed(out.path(), |settings| settings[key] = value.clone());
        PeftAdapter::read(out.path()).unwrap();
    }
}

#[test]
fn missing_truncated_and_foreign_files() {
    let out = tempfile::tempdir().unwrap();
    let tensors_path = out.path().join("adapter_model.safetensors");
    let expect = |want: &str| {
        let (message, hint) = refused(out.path(), &mut linears("plain"));
        assert!(message.contains(want), "{message}");
        hint
    };
    expect("adapter_config.json: cannot read the adapter's settings");
    changed(out.path(), |_| {});
    let whole = fs::read(&tensors_path).unwrap();
    fs::remove_file(&tensors_path).unwrap();
    expect("adapter_model.safetensors: cannot read the tensors");
    fs::write(out.path().join("adapter_model.bin"), b"pickle").unwrap();
    assert!(expect("the adapter is a pickle file").contains("safe_serialization"));
    for len in [0, 5, 100, whole.len() - 1] {
        fs::write(&tensors_path, &whole[..len]).unwrap();
        expect("truncated");
    }
    fs::write(out.path().join("adapter_config.json"), b"{\"r\": 4").unwrap();
    expect("line 1: not the JSON of a PEFT adapter");
    changed(out.path(), |_| {});
    for (name, want) in [
        (
            "base_model.model.model.embed_tokens.lora_embedding_A",
            "unexpected tensor `base_model.model.model.embed_tokens.lora_embedding_A`",
        ),
        (
            "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
            "lora_magnitude_vector`, shape [4, 24]",
        ),
        (
            "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
            "`model.layers.0.self_attn.q_proj.lora_B.weight` is missing, the model and r need [24, 4]",
        ),
    ] {
        let mut params = Params::new(Device::Cpu);
        let _ = params.add(name, noise(&[4, 24], 1.0), false).unwrap();
        save_model(&tensors_path, &params, &BTreeMap::new()).unwrap();
        expect(want);
    }
    let mut params = Params::new(Device::Cpu);
    let bad = Tensor::full([4, 24], f64::NAN, (Kind::Float, Device::Cpu));
    let _ = params.add("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", bad, false).unwrap();
    save_model(&tensors_path, &params, &BTreeMap::new()).unwrap();
    expect("96 of 96 values that are NaN or infinite");
}

#[test]
fn what_cannot_be_saved_says_why() {
    let out = tempfile::tempdir().unwrap();
    let mut linears = llama_like();
    let mut params = Params::new(Device::Cpu);
    let plain = config(names(&["q_proj"]));
    let save = |linears: &[Linear], config: &LoraConfig| {
        save_peft(linears, &out.path().join("adapter"), "default", config, None).unwrap_err().to_string()
    };
    assert_eq!(save(&linears, &plain), "no layer has an adapter `default` that could be saved");
    let gated = LoraConfig { experts: Some(2), ..plain.clone() };
    attach(&mut linears, "default", &gated, &mut params, 1).unwrap();
    assert!(save(&linears, &gated).contains("is gated, which PEFT does not know"));
    let (mut linears, mut params) = (llama_like(), Params::new(Device::Cpu));
    attach(&mut linears, "default", &plain, &mut params, 1).unwrap();
    let message = save(&linears, &LoraConfig { rslora: true, ..plain });
    assert!(message.contains("has rank 2 and scale 2, its settings say 2 and 2.828"), "{message}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(150))]

    /// One byte changed in either file: read, or refused with a message; never a panic.
    #[test]
    fn a_changed_byte_never_panics(settings in proptest::bool::ANY, at in 0usize..7000, byte in 0u8..=255) {
        let out = tempfile::tempdir().unwrap();
        changed(out.path(), |_| {});
        let path = out.path().join(if settings { "adapter_config.json" } else { "adapter_model.safetensors" });
        let mut bytes = fs::read(&path).unwrap();
        // Half of the tensor file's changes in its header.
        let len = if !settings && at % 2 == 0 { 1000 } else { bytes.len() };
        bytes[at % len] = byte;
        fs::write(&path, bytes).unwrap();
        let mut params = Params::new(Device::Cpu);
        let _ = load_peft(&mut linears("plain"), out.path(), "default", &mut params);
    }
}

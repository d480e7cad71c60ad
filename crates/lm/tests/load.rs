//! Folders that are fine, and folders that are not: each gives one message with file, tensor, wanted and got.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::{fs, path::Path};

use anyo_core::torch::load_tensors;
use anyo_lm::{Causal, CausalLm, LmConfig, LmInput, LoadOptions, Pass, weights::save_tensors};
use tch::{Device, Kind, Tensor, no_grad};

const CPU: LoadOptions = LoadOptions { device: Device::Cpu, dtype: Kind::Float };

fn fixture(case: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(case)
}

/// A copy of a fixture that may be damaged.
fn copy(case: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(case)).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap() != "expected.safetensors" {
            fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    folder
}

fn failure(folder: &Path) -> String {
    CausalLm::load(folder, &CPU).unwrap_err().to_string()
}

fn rewrite(folder: &Path, change: impl FnOnce(&mut std::collections::BTreeMap<String, Tensor>)) {
    let path = folder.join("model.safetensors");
    let mut tensors = load_tensors(&path).unwrap();
    change(&mut tensors);
    save_tensors(&path, &tensors.into_iter().collect::<Vec<_>>()).unwrap();
}

fn logits(model: &CausalLm, ids: &Tensor) -> Tensor {
    let input = LmInput { ids: ids.shallow_clone(), ..LmInput::default() };
    no_grad(|| model.logits(&model.hidden(&input, None, &Pass::default()).unwrap()).unwrap())
}

fn ids(list: &[i64]) -> Tensor {
    Tensor::from_slice(list).view([1, -1])
}

#[test]
fn wrong_missing_and_unexpected_tensors_are_listed() {
    let folder = copy("llama_gqa");
    rewrite(folder.path(), |tensors| {
        let norm = tensors.remove("model.norm.weight").unwrap();
        let _ = tensors.insert("model.layers.9.extra.weight".into(), norm);
        let q = tensors.get_mut("model.layers.1.self_attn.q_proj.weight").unwrap();
        *q = q.narrow(0, 0, 31).copy();
    });
    let text = failure(folder.path());
    for part in [
        "missing tensor `model.norm.weight`, shape [32]",
        "unexpected tensor `model.layers.9.extra.weight` in model.safetensors, shape [32]",
        "tensor `model.layers.1.self_attn.q_proj.weight` in model.safetensors has shape [31, 32], wanted [32, 32]",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn another_models_config_is_noticed() {
    let folder = copy("llama_gqa");
    let _ = fs::copy(fixture("qwen2_window").join("config.json"), folder.path().join("config.json")).unwrap();
    let text = failure(folder.path());
    assert!(
        text.contains("do not fit config.json") && text.contains("missing tensor") && text.contains("wanted"),
        "{text}"
    );
}

#[test]
fn not_a_number_is_named() {
    for value in [f64::NAN, f64::NEG_INFINITY] {
        let folder = copy("phi3_window");
        // Written past the checks of the reader.
        rewrite(folder.path(), |tensors| {
            let t = tensors.get_mut("model.layers.0.mlp.down_proj.weight").unwrap();
            let _ = t.get(3).get(5).fill_(value);
        });
        let text = failure(folder.path());
        assert!(text.contains("`model.layers.0.mlp.down_proj.weight`") && text.contains("1 of "), "{text}");
    }
}

#[test]
fn a_missing_or_cut_shard_is_named() {
    let folder = copy("mistral_window");
    assert!(CausalLm::load(folder.path(), &CPU).is_ok());
    let shard = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("model-00002"))
        .unwrap();
    let name = shard.file_name().unwrap().to_string_lossy().into_owned();
    let bytes = fs::read(&shard).unwrap();
    fs::write(&shard, &bytes[..bytes.len() - 5]).unwrap();
    let text = failure(folder.path());
    assert!(text.contains(&name) && text.contains("truncated"), "{text}");
    fs::write(&shard, [&bytes[..], b"12345"].concat()).unwrap();
    let text = failure(folder.path());
    assert!(text.contains(&name) && text.contains("longer than its header says"), "{text}");
    fs::remove_file(&shard).unwrap();
    let text = failure(folder.path());
    assert!(text.contains(&name) && text.contains("1 of 5 weight files"), "{text}");
}

#[test]
fn a_tied_model_may_store_either_of_the_pair_or_both() {
    let want = logits(&CausalLm::load(&fixture("qwen2_tied"), &CPU).unwrap(), &ids(&[5, 6, 7]));
    for both in [true, false] {
        let folder = copy("qwen2_tied");
        rewrite(folder.path(), |tensors| {
            let embedding = tensors.get("model.embed_tokens.weight").unwrap().copy();
            let _ = tensors.insert("lm_head.weight".into(), embedding);
            let inverse = Tensor::ones([7], (Kind::Float, Device::Cpu));
            let _ = tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), inverse);
            if !both {
                let _ = tensors.remove("model.embed_tokens.weight");
            }
        });
        assert_eq!(logits(&CausalLm::load(folder.path(), &CPU).unwrap(), &ids(&[5, 6, 7])), want);
    }
}

#[test]
fn saving_and_loading_gives_the_same_model() {
    for case in ["llama3_tied_bias", "mistral_window", "qwen2_window", "phi3_longrope"] {
        let model = CausalLm::load(&fixture(case), &CPU).unwrap();
        let folder = tempfile::tempdir().unwrap();
        model.save(&folder.path().join("new")).unwrap();
        let again = CausalLm::load(&folder.path().join("new"), &CPU).unwrap();
        assert_eq!(again.config(), model.config(), "{case}");
        let prompt = ids(&(3..24).collect::<Vec<_>>());
        assert_eq!(logits(&again, &prompt), logits(&model, &prompt), "{case}");
        let names: Vec<_> = model.named_tensors().into_iter().map(|(name, t)| (name, t.size())).collect();
        assert_eq!(names, model.config().tensors(), "{case}");
        assert_eq!(model.dense_bytes() as u64, 4 * model.config().n_parameters());
    }
}

#[test]
fn random_models_depend_on_the_seed_only() {
    let config = LmConfig::from_folder(&fixture("phi3_window")).unwrap();
    let make = |seed| CausalLm::random(config.clone(), Device::Cpu, Kind::Float, seed).unwrap();
    let prompt = ids(&[4, 5, 6]);
    assert_eq!(logits(&make(1), &prompt), logits(&make(1), &prompt));
    assert_ne!(logits(&make(1), &prompt), logits(&make(2), &prompt));
    let half = CausalLm::random(config.clone(), Device::Cpu, Kind::BFloat16, 1).unwrap();
    assert_eq!((half.kind(), logits(&half, &prompt).kind()), (Kind::BFloat16, Kind::BFloat16));
}

#[test]
fn linears_are_named_in_the_order_of_the_pass() {
    let names = |case: &str| -> Vec<String> {
        let mut model = CausalLm::load(&fixture(case), &CPU).unwrap();
        let names: Vec<_> = model.linears().iter().map(|l| l.name().to_owned()).collect();
        assert_eq!(model.linears_mut().iter().map(|l| l.name().to_owned()).collect::<Vec<_>>(), names);
        names
    };
    let split = names("llama_gqa");
    assert_eq!((split.len(), split[0].as_str()), (15, "model.layers.0.self_attn.q_proj"));
    assert_eq!(split[14], "lm_head");
    let fused = names("phi3_longrope");
    let at = |part: &str| format!("model.layers.1.{part}");
    assert_eq!(
        fused[4..],
        [at("self_attn.qkv_proj"), at("self_attn.o_proj"), at("mlp.gate_up_proj"), at("mlp.down_proj")]
    );
}

#[test]
fn a_resized_vocabulary_keeps_the_old_rows() {
    for case in ["llama_gqa", "qwen2_tied"] {
        let mut model = CausalLm::load(&fixture(case), &CPU).unwrap();
        let (v, prompt) = (model.vocab_size(), ids(&[9, 8, 7]));
        let before = logits(&model, &prompt);
        model.resize_vocab(v + 5).unwrap();
        let after = logits(&model, &prompt);
        // Another width of the product may round otherwise.
        let near = |a: &Tensor, b: &Tensor| assert!((a - b).abs().max().double_value(&[]) < 1e-5, "{case}");
        near(&after.narrow(-1, 0, v as i64), &before);
        let mean = before.mean_dim([-1i64].as_slice(), true, Kind::Float);
        near(&after.narrow(-1, v as i64, 5), &mean.expand([1, 3, 5], false));
        let _ = logits(&model, &ids(&[v as i64 + 4]));
        model.resize_vocab(20).unwrap();
        near(&logits(&model, &prompt), &before.narrow(-1, 0, 20));
        assert_eq!(model.config().vocab_size, 20);
        assert!(model.resize_vocab(2).unwrap_err().to_string().contains("leave out token 2"));
    }
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let model = CausalLm::load(&fixture("llama_gqa"), &CPU).unwrap();
    let run = |input: LmInput| model.hidden(&input, None, &Pass::default()).unwrap_err().to_string();
    let of = |list: &[i64]| LmInput { ids: ids(list), ..LmInput::default() };
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Int64, Device::Cpu));
    for (text, part) in [
        (run(of(&[99])), "token id 99 is outside the vocabulary of 99"),
        (run(of(&[-1])), "token id -1"),
        (run(of(&[])), "at least one token"),
        (run(of(&[3; 65])), "65 tokens are more than the model's context of 64"),
        (run(LmInput { ids: Tensor::from_slice(&[3i64]), ..LmInput::default() }), "[B,S]"),
        (run(LmInput { ids: ids(&[3]).to_kind(Kind::Int), ..LmInput::default() }), "must be i64"),
        (run(LmInput { mask: Some(zeros(&[1, 3])), ..of(&[3, 4]) }), "`mask` has shape [1, 3], wanted [1, 2]"),
        (run(LmInput { documents: Some(zeros(&[2, 2])), ..of(&[3, 4]) }), "`documents` has shape"),
        (
            run(LmInput { documents: Some(zeros(&[1, 2])), mask: Some(zeros(&[1, 2])), ..of(&[3, 4]) }),
            "packed documents do not go with a mask",
        ),
        (
            run(LmInput { embeddings: Some(Tensor::zeros([1, 2, 31], (Kind::Float, Device::Cpu))), ..of(&[3, 4]) }),
            "`embeddings` has shape [1, 2, 31], wanted [1, 2, 32]",
        ),
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let mut cache = model.new_cache(2);
    let text = model.hidden(&of(&[3]), Some(&mut cache), &Pass::default()).unwrap_err().to_string();
    assert!(text.contains("1 rows of tokens for a cache of 2 rows"), "{text}");
    assert!(model.select_rows(&cache, &[2]).is_err());
    assert!(model.logits(&Tensor::zeros([1, 3], (Kind::Float, Device::Cpu))).is_err());
}

#[test]
fn a_cache_fills_up_to_the_context() {
    let model = CausalLm::load(&fixture("llama_gqa"), &CPU).unwrap();
    let mut cache = model.new_cache(1);
    let one = LmInput { ids: ids(&[3]), ..LmInput::default() };
    no_grad(|| {
        for _ in 0..64 {
            let _ = model.hidden(&one, Some(&mut cache), &Pass::default()).unwrap();
        }
        let text = model.hidden(&one, Some(&mut cache), &Pass::default()).unwrap_err().to_string();
        assert!(text.contains("65 tokens are more than the model's context of 64"), "{text}");
        // A refused pass leaves the cache as it was; a shortened one goes on.
        assert_eq!(cache.len(), 64);
        cache.truncate(10);
        let _ = model.hidden(&one, Some(&mut cache), &Pass::default()).unwrap();
        assert_eq!(cache.len(), 11);
    });
}

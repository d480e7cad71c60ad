//! Which linears a configuration means, and messages when it means none.

use anyo_core::torch::Params;
use anyo_lm::{Linear, LoraConfig, Targets, attach};
use tch::Device;

use super::{llama_like, noise};

pub(crate) fn config(targets: Targets) -> LoraConfig {
    LoraConfig {
        rank: 2,
        alpha: 4.0,
        dropout: 0.0,
        rslora: false,
        targets,
        rank_pattern: Vec::new(),
        alpha_pattern: Vec::new(),
        experts: None,
    }
}

pub(crate) fn names(names: &[&str]) -> Targets {
    Targets::Names(names.iter().map(|&name| name.to_owned()).collect())
}

fn attached(targets: Targets) -> anyo_core::Result<Vec<String>> {
    let mut linears = llama_like();
    let mut params = Params::new(Device::Cpu);
    Ok(attach(&mut linears, "default", &config(targets), &mut params, 1)?.layers)
}

#[test]
fn suffixes_whole_names_patterns_and_all() {
    let layer = |i: usize, part: &str| format!("model.layers.{i}.{part}");
    assert_eq!(
        attached(names(&["v_proj", "self_attn.q_proj"])).unwrap(),
        [0, 1].map(|i| [layer(i, "self_attn.q_proj"), layer(i, "self_attn.v_proj")]).concat()
    );
    assert_eq!(attached(names(&["model.layers.1.mlp.up_proj"])).unwrap(), [layer(1, "mlp.up_proj")]);
    assert_eq!(attached(names(&["lm_head"])).unwrap(), ["lm_head"]);
    let regex = Targets::Regex(r".*layers\.1\..*[qk]_proj".into());
    assert_eq!(attached(regex).unwrap(), [layer(1, "self_attn.q_proj"), layer(1, "self_attn.k_proj")]);
    let all = attached(Targets::AllLinear).unwrap();
    assert_eq!(all.len(), 10);
    assert!(!all.contains(&"lm_head".to_owned()));
    // A pattern must match the whole name, a suffix must start at a dot.
    assert!(attached(Targets::Regex("q_proj".into())).is_err());
    assert!(attached(names(&["_proj"])).is_err());
}

#[test]
fn an_unmatched_target_lists_what_exists() {
    let error = attached(names(&["q_proj", "gate_proj", "c_attn"])).unwrap_err();
    let want = "no linear matches the target `gate_proj`, `c_attn`; the model's linears are \
                k_proj, lm_head, o_proj, q_proj, up_proj, v_proj";
    assert_eq!(error.to_string(), want);
    let mut fused: Vec<Linear> = ["qkv_proj", "o_proj", "gate_up_proj"]
        .map(|name| Linear::new(format!("model.layers.0.{name}"), noise(&[6, 4], 0.0), None))
        .into();
    let mut params = Params::new(Device::Cpu);
    let error = attach(&mut fused, "default", &config(names(&["q_proj", "o_proj"])), &mut params, 1).unwrap_err();
    assert!(
        error.to_string().contains("target `q_proj`; the model's linears are gate_up_proj, o_proj, qkv_proj"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("qkv_proj stands for q_proj, k_proj and v_proj"));
    // Nothing was changed, not even the target that matched.
    assert!(fused.iter().all(|linear| linear.adapters().is_empty()) && params.n_parameters() == 0);
}

#[test]
fn values_out_of_range_and_bad_patterns() {
    let mut linears = llama_like();
    let mut params = Params::new(Device::Cpu);
    let mut refuse = |change: &dyn Fn(&mut LoraConfig), want: &str| {
        let mut config = config(names(&["q_proj"]));
        change(&mut config);
        let message = attach(&mut linears, "default", &config, &mut params, 1).unwrap_err().to_string();
        assert!(message.contains(want), "{message}");
    };
    refuse(&|c| (c.rank, c.dropout) = (0, 1.0), "rank must be at least 1, got 0; dropout must lie in [0, 1), got 1");
    refuse(&|c| c.alpha = f64::NAN, "alpha must be positive, got NaN");
    refuse(&|c| c.targets = names(&[]), "targets is empty");
    refuse(&|c| c.targets = Targets::Regex("(q_proj".into()), "the pattern `(q_proj` is not a regular expression");
    refuse(&|c| c.rank_pattern = vec![("q_proj".into(), 0)], "rank_pattern `q_proj` must be at least 1, got 0");
    refuse(
        &|c| c.experts = Some(3),
        "the rank 2 of layer `model.layers.0.self_attn.q_proj` cannot be split among 3 experts",
    );
    refuse(&|c| (c.experts, c.rslora) = (Some(2), true), "rslora and experts exclude each other");
    let good = config(names(&["q_proj"]));
    attach(&mut linears, "default", &good, &mut params, 1).unwrap();
    let message = attach(&mut linears, "default", &good, &mut params, 1).unwrap_err().to_string();
    assert!(message.contains("`model.layers.0.self_attn.q_proj` has an adapter `default` already"), "{message}");
    let message = attach(&mut llama_like(), "default", &good, &mut params, 1).unwrap_err().to_string();
    assert!(message.ends_with("q_proj.lora_A.weight` exists already"), "{message}");
}

#[test]
fn settings_read_like_peft_spells_them() {
    let read = |text: &str| serde_json::from_str::<Targets>(text).unwrap();
    assert_eq!(read("\"all-linear\""), Targets::AllLinear);
    assert_eq!(read("\".*q_proj\""), Targets::Regex(".*q_proj".into()));
    assert_eq!(read("[\"q_proj\"]"), names(&["q_proj"]));
    let text = r#"{"rank":8,"alpha":16,"dropout":0.1,"rslora":false,"targets":"all-linear","typo":1}"#;
    assert!(serde_json::from_str::<LoraConfig>(text).unwrap_err().to_string().contains("typo"));
}

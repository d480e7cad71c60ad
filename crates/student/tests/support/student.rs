//! Small students; shared by the tests of student, distillation and teacher.

use std::collections::BTreeMap;

use anyo_core::torch::Params;
use anyo_student::config::{LogQ, LossConfig, LossName, Negatives, StudentConfig};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

pub(crate) fn loss_config(name: LossName) -> LossConfig {
    LossConfig {
        name,
        n_negatives: 1,
        negatives: Negatives::Uniform,
        logq: LogQ::Negatives,
        gbce_t: 0.75,
        temperature: 1.0,
        dros_alpha: 0.0,
        dros_beta: 1.0,
    }
}

/// A small student `name` without dropout; `changes` replace keys, those of parts with dots between.
pub(crate) fn neural(name: &str, changes: &[(&str, Value)]) -> StudentConfig {
    let mut config = json!({
        "name": name,
        "max_len": 10,
        "d_model": 16,
        "dropout": 0.0,
        "rows": "last_position",
        "loss": serde_json::to_value(loss_config(LossName::Bce)).unwrap(),
        "optim": {
            "name": "adam", "lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "clip_norm": null,
            "schedule": {"name": "constant", "warmup_steps": 0, "total_steps": null, "floor": 0.0},
        },
    });
    if name == "sasrec" {
        for (key, value) in [
            ("n_blocks", json!(2)),
            ("n_heads", json!(1)),
            ("attention_dropout", json!(0.0)),
            ("norm", json!("query")),
            ("ffn", json!("relu")),
            ("ffn_ratio", json!(1.0)),
            ("scale_embeddings", json!(true)),
            ("seen_bias", json!(false)),
            ("norm_eps", json!(1e-8)),
            ("init", json!("xavier_normal")),
            ("rows", json!("every_position")),
        ] {
            config[key] = value;
        }
    }
    for (key, value) in changes {
        match key.split_once('.') {
            None => config[*key] = value.clone(),
            Some((part, key)) => config[part][key] = value.clone(),
        }
    }
    serde_json::from_value(config).unwrap()
}

/// The bits of all parameters.
pub(crate) fn bits(params: &Params) -> BTreeMap<String, Vec<u32>> {
    let of = |tensor: &Tensor| {
        let values = Vec::<f32>::try_from(tensor.detach().to_kind(Kind::Float).view([-1])).unwrap();
        values.into_iter().map(f32::to_bits).collect()
    };
    params.named().map(|(name, tensor)| (name.to_owned(), of(tensor))).collect()
}

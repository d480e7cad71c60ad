//! Shared by the tests of the students.

#![allow(dead_code, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};

use anyo_student::config::{LogQ, LossConfig, LossName, Negatives, StudentConfig};
use serde_json::{Value, json};

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name)
}

/// Real data beside the repository, or a printed reason to skip.
pub(crate) fn shared_data() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("skipped: {} is not there", path.display());
    None
}

/// Histories of a LLaRA file, pads cut off, ratings dropped.
pub(crate) fn windows(path: &Path) -> Vec<Vec<u32>> {
    let text = std::fs::read_to_string(path).unwrap();
    let row = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let len: usize = fields[1].parse().unwrap();
        fields[0].split(' ').take(len).map(|id| id.split(':').next().unwrap().parse().unwrap()).collect()
    };
    text.lines().skip(1).map(row).collect()
}

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

/// A small student `name` without dropout; `changes` replace keys.
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
        config[*key] = value.clone();
    }
    serde_json::from_value(config).unwrap()
}

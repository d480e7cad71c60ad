//! The built-in model's folder in `transformers`: same tokens, same chat, same logits.
//!
//! `tests/fixtures/builtin/model` was written by the ignored test below, the rest by `make.py` beside it.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::{fs, path::PathBuf, sync::atomic::AtomicBool};

use anyo_core::torch::load_tensors;
use anyo_lm::{
    Causal, CausalLm, LmInput, LoadOptions, Pass,
    builtin::{BuiltinConfig, builtin},
};
use tch::{Device, Kind};

const TEXTS: [&str; 3] = [
    "the cat sat on the mat and the dog sat on the log. the dog saw the cat and the cat saw the dog.",
    "猫は猫である。犬は犬である。猫は犬を見た。犬は猫を見た。",
    "a cat and a dog sat on a mat and saw a log. the log lay on the mat and the cat lay on the log.",
];

fn fixture() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/builtin"))
}

#[test]
#[ignore = "writes the fixture's model folder; run make.py afterwards"]
fn write_the_folder() {
    let config = BuiltinConfig {
        vocab_size: 320,
        d_model: 48,
        n_layers: 2,
        n_heads: 6,
        n_kv_heads: 2,
        seq_len: 32,
        batch: 8,
        steps: 60,
        lr: 1e-2,
        seed: 11,
    };
    let cache = tempfile::tempdir().unwrap();
    let made = builtin(&TEXTS, &config, cache.path(), Device::Cpu, &mut |_, _| {}, &AtomicBool::new(false)).unwrap();
    let folder = fixture().join("model");
    fs::create_dir_all(&folder).unwrap();
    for entry in fs::read_dir(made.folder).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
}

#[test]
fn transformers_gives_the_same_tokens_and_logits() {
    let folder = fixture().join("model");
    let want: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(fixture().join("case.json")).unwrap()).unwrap();
    let tokenizer = tokenizers::Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
    for case in want["texts"].as_array().unwrap() {
        let found = tokenizer.encode(case["text"].as_str().unwrap(), true).unwrap();
        let ids: Vec<u64> = case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
        assert_eq!(found.get_ids().iter().map(|&id| u64::from(id)).collect::<Vec<_>>(), ids);
    }
    let model = CausalLm::load(&folder, &LoadOptions { device: Device::Cpu, dtype: Kind::Float }).unwrap();
    let tensors = load_tensors(&fixture().join("logits.safetensors")).unwrap();
    let input = LmInput { ids: tensors["ids"].shallow_clone(), ..LmInput::default() };
    let logits = tch::no_grad(|| {
        let hidden = model.hidden(&input, None, &Pass::default()).unwrap();
        model.logits(&hidden).unwrap()
    });
    let gap = (logits - &tensors["logits"]).abs().max().double_value(&[]);
    println!("largest difference of logits: {gap:e}");
    assert!(gap < 1e-4, "{gap}");
}

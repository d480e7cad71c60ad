use std::sync::atomic::Ordering;

use tch::Tensor;

use super::*;
use crate::{Causal, LmInput, LoadOptions, Pass};

const LINES: [&str; 6] = [
    "the cat sat on the mat and the dog sat on the log",
    "the dog saw the cat and the cat saw the dog",
    "a cat and a dog sat on a mat and saw a log",
    "the log lay on the mat and the cat lay on the log",
    "the dog lay on a mat and a cat lay on the dog",
    "a dog saw a log and a cat saw a mat",
];

fn config() -> BuiltinConfig {
    BuiltinConfig {
        vocab_size: 300,
        d_model: 32,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        seq_len: 24,
        batch: 8,
        steps: 60,
        lr: 1e-2,
        seed: 7,
    }
}

fn train(cache: &Path, config: &BuiltinConfig) -> Result<Builtin> {
    builtin(&LINES, config, cache, Device::Cpu, &mut |_, _| {}, &AtomicBool::new(false))
}

#[test]
fn the_loss_falls_and_the_second_call_finds_the_folder() {
    let cache = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    let mut report = |step: u64, figures: &StepFigures| seen.push((step, figures.loss));
    let run = AtomicBool::new(false);
    let first = builtin(&LINES, &config(), cache.path(), Device::Cpu, &mut report, &run).unwrap();
    assert!(!first.cached && first.losses.len() == 60);
    assert_eq!(seen.iter().map(|(step, _)| *step).collect::<Vec<_>>(), (0..60).collect::<Vec<_>>());
    // Stated bound: from about ln V = 5.7 to below 1.5 nats a token.
    let (start, end) = (first.losses[0], first.losses[59]);
    println!("loss {start:.3} to {end:.3}");
    assert!(start > 5.0 && end < 1.5, "{start} {end}");

    let second = train(cache.path(), &config()).unwrap();
    assert!(second.cached);
    assert_eq!((&second.folder, second.losses.len()), (&first.folder, 60));
    let names = fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.starts_with(".tmp")).count(), 0);

    // The folder is an ordinary one: it loads and continues a sentence it was trained on.
    let options = LoadOptions { device: Device::Cpu, dtype: Kind::Float };
    let model = CausalLm::load(&first.folder, &options).unwrap();
    let tokenizer = tokenizers::Tokenizer::from_file(first.folder.join("tokenizer.json")).unwrap();
    let prompt = tokenizer.encode("the cat sat on the", true).unwrap();
    let ids: Vec<i64> = prompt.get_ids().iter().map(|&id| i64::from(id)).collect();
    let input = LmInput { ids: Tensor::from_slice(&ids).unsqueeze(0), ..LmInput::default() };
    let hidden = tch::no_grad(|| model.hidden(&input, None, &Pass::default())).unwrap();
    let next = model.logits(&hidden.select(1, -1)).unwrap().argmax(-1, false).int64_value(&[0]);
    let word = tokenizer.decode(&[next as u32], false).unwrap();
    assert!([" mat", " log", " dog", " m", " l", " d"].contains(&word.as_str()), "{word:?}");
}

#[test]
fn the_seed_decides_every_bit() {
    let short = |seed| BuiltinConfig { steps: 4, seed, ..config() };
    let weights = |config: &BuiltinConfig| {
        let cache = tempfile::tempdir().unwrap();
        fs::read(train(cache.path(), config).unwrap().folder.join("model.safetensors")).unwrap()
    };
    assert!(weights(&short(1)) == weights(&short(1)));
    assert!(weights(&short(1)) != weights(&short(2)));
}

#[test]
fn settings_and_texts_decide_the_hash() {
    let base = config().hash(&LINES).unwrap();
    assert_eq!(base, config().hash(&LINES).unwrap());
    assert_ne!(base, BuiltinConfig { steps: 61, ..config() }.hash(&LINES).unwrap());
    assert_ne!(base, config().hash(&LINES[1..]).unwrap());
    // The border between two texts counts.
    assert_ne!(config().hash(&["ab", "c"]).unwrap(), config().hash(&["a", "bc"]).unwrap());
}

#[test]
fn a_stop_leaves_nothing_behind() {
    let (cache, stop) = (tempfile::tempdir().unwrap(), AtomicBool::new(false));
    let mut report = |step: u64, _: &StepFigures| stop.store(step == 2, Ordering::Relaxed);
    let error = builtin(&LINES, &config(), cache.path(), Device::Cpu, &mut report, &stop).unwrap_err();
    assert!(matches!(&error, Error::Interrupted { detail } if detail.contains("3 of 60")), "{error}");
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
}

#[test]
fn a_damaged_folder_is_told() {
    let cache = tempfile::tempdir().unwrap();
    let config = BuiltinConfig { steps: 1, ..config() };
    let folder = train(cache.path(), &config).unwrap().folder;
    fs::remove_file(folder.join("tokenizer.json")).unwrap();
    let error = train(cache.path(), &config).unwrap_err();
    assert!(error.to_string().contains("tokenizer.json is missing") && error.hint().is_some(), "{error}");
    fs::write(folder.join(MANIFEST), "{}").unwrap();
    assert!(train(cache.path(), &config).unwrap_err().to_string().contains("has the hash null"));
}

#[test]
fn settings_out_of_range_are_told() {
    let cache = tempfile::tempdir().unwrap();
    for (bad, part) in [
        (BuiltinConfig { vocab_size: 10, ..config() }, "vocab_size"),
        (BuiltinConfig { n_heads: 5, ..config() }, "n_heads"),
        (BuiltinConfig { n_kv_heads: 3, ..config() }, "num_key_value_heads"),
        (BuiltinConfig { steps: 0, ..config() }, "steps"),
        (BuiltinConfig { seq_len: 1, ..config() }, "at least 2"),
        (BuiltinConfig { lr: 0.0, ..config() }, "lr"),
    ] {
        let text = train(cache.path(), &bad).unwrap_err().to_string();
        assert!(text.contains(part), "{part}: {text}");
    }
    let none = builtin(&[], &config(), cache.path(), Device::Cpu, &mut |_, _| {}, &AtomicBool::new(false));
    assert!(none.unwrap_err().to_string().contains("no text"));
}

//! Interrupted, killed and resumed trainings end where the undisturbed one ends, bit for bit.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyo_core::Error;
use anyo_student::{BEST_FILE, config::LossName};
use serde_json::{Value, json};

use crate::made_up::{Recorder, Trial, bits, loss, optim, sasrec, thirty};

/// Everything that a training leaves behind, without its seconds.
struct Left {
    weights: std::collections::BTreeMap<String, Vec<u32>>,
    best: Vec<u8>,
    model: Vec<u8>,
    optim: Vec<u8>,
    state: Value,
    scalars: Vec<(u64, String, u64)>,
    fitted: (u64, u64, u64, Option<u64>, bool),
}

/// Names the part that differs; the parts themselves are too long to print.
fn assert_same(left: &Left, whole: &Left, what: &str) {
    assert_eq!((&left.fitted, &left.state), (&whole.fitted, &whole.state), "{what}");
    let steps = |left: &Left| left.scalars.iter().map(|(step, name, _)| format!("{step} {name}")).collect::<Vec<_>>();
    assert_eq!(steps(left), steps(whole), "{what}: which figures were written");
    assert!(left.scalars == whole.scalars, "{what}: figures differ");
    assert!(left.model == whole.model && left.optim == whole.optim, "{what}: last weights or optimizer state differ");
    assert!(left.best == whole.best && left.weights == whole.weights, "{what}: best weights differ");
}

fn newest(folder: &Path) -> PathBuf {
    let mut steps: Vec<PathBuf> =
        fs::read_dir(folder.join("checkpoints")).unwrap().map(|e| e.unwrap().path()).collect();
    steps.sort();
    steps.pop().unwrap()
}

fn finish(trial: &Trial, folder: &Path, resume: bool, watch: &mut Recorder) -> Left {
    let (student, fitted) = trial.fit(Some(folder), resume, watch);
    let fitted = fitted.unwrap();
    let newest = newest(folder);
    let read = |path: PathBuf| fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let all: Value = serde_json::from_slice(&read(newest.join("state.json"))).unwrap();
    let mut state = all["state"].clone();
    assert!(state["seconds"].as_f64().unwrap() > 0.0);
    state["seconds"] = Value::Null;
    Left {
        weights: bits(&student),
        best: read(folder.join("models").join(BEST_FILE)),
        model: read(newest.join("model.safetensors")),
        optim: read(newest.join("optim.safetensors")),
        state,
        scalars: watch.scalars.clone(),
        fitted: (fitted.epochs, fitted.steps, fitted.best_epoch, fitted.best.map(f64::to_bits), fitted.stopped_early),
    }
}

/// Interrupts at each of `stops` in turn, then lets it end.
fn interrupted(trial: &Trial, stops: &[u64]) -> Left {
    let folder = tempfile::tempdir().unwrap();
    let mut watch = Recorder::default();
    for (i, &stop) in stops.iter().enumerate() {
        watch.stop_at = Some(stop);
        let (_, fitted) = trial.fit(Some(folder.path()), i > 0, &mut watch);
        let error = fitted.unwrap_err();
        assert!(
            matches!(&error, Error::Interrupted { detail } if *detail == format!("saved after step {stop}")),
            "{error}"
        );
    }
    watch.stop_at = None;
    let left = finish(trial, folder.path(), true, &mut watch);
    let last = stops[stops.len() - 1];
    assert!(watch.notes.iter().any(|n| n.starts_with(&format!("continuing after step {last} "))), "{:?}", watch.notes);
    left
}

fn undisturbed(trial: &Trial) -> Left {
    let folder = tempfile::tempdir().unwrap();
    finish(trial, folder.path(), false, &mut Recorder::default())
}

/// 30 rows in batches of 4: 8 batches an epoch.
fn trial(changes: &[(&str, Value)]) -> Trial {
    let mut trial = Trial::new(sasrec(changes), thirty());
    trial.train.batch_size = 4;
    trial
}

#[test]
fn an_interrupted_training_continues_bit_for_bit() {
    let trial = trial(&[]);
    let whole = undisturbed(&trial);
    assert_eq!(whole.fitted.1, 32);
    // After the first step, in mid-epoch, at the end of an epoch, before the last step, at the very end.
    for stop in [1, 5, 8, 13, 16, 31, 32] {
        assert_same(&interrupted(&trial, &[stop]), &whole, &format!("stopped after step {stop}"));
    }
    assert_same(&interrupted(&trial, &[3, 11, 12, 25]), &whole, "stopped four times");
}

#[test]
fn with_accumulation_cosine_shared_negatives_and_shuffled_rows() {
    let mut trial = trial(&[
        ("optim", optim(1e-2, "cosine", 3)),
        ("loss", loss(LossName::SampledSoftmax, 12)),
        ("rows", json!("every_position_split")),
        ("max_len", json!(4)),
    ]);
    // An odd number of batches leaves a smaller last group.
    (trial.train.accumulation, trial.train.bucket, trial.train.valid_every) = (3, false, 2);
    let whole = undisturbed(&trial);
    for stop in [1, 4, 7, 10] {
        assert_same(&interrupted(&trial, &[stop]), &whole, &format!("stopped after step {stop}"));
    }
}

#[test]
fn patience_counts_over_interruptions() {
    let mut trial = trial(&[("optim", optim(0.1, "constant", 0))]);
    (trial.train.epochs, trial.train.patience) = (40, 2);
    let whole = undisturbed(&trial);
    assert!(whole.fitted.4, "it stops early");
    let (steps, best) = (whole.fitted.1, whole.fitted.2 * 8);
    for stops in [vec![best], vec![best + 3, best + 9], vec![steps - 1], vec![steps]] {
        assert_same(&interrupted(&trial, &stops), &whole, &format!("stopped after {stops:?} of {steps}"));
    }
    // A finished training that is resumed stays as it is.
    let folder = tempfile::tempdir().unwrap();
    let mut watch = Recorder::default();
    finish(&trial, folder.path(), false, &mut watch);
    assert_same(&finish(&trial, folder.path(), true, &mut watch), &whole, "finished and resumed");
}

#[test]
fn a_killed_training_continues_from_its_checkpoint() {
    let mut trial = trial(&[]);
    let whole = undisturbed(&trial);
    for every in [3, 8, 10] {
        trial.train.checkpoint.every_steps = every;
        for die_at in [2, 9, 17, 24, 30] {
            let folder = tempfile::tempdir().unwrap();
            let mut watch = Recorder { die_at: Some(die_at), ..Recorder::default() };
            let (_, fitted) = trial.fit(Some(folder.path()), false, &mut watch);
            assert_eq!(fitted.unwrap_err().to_string(), "killed");
            watch.die_at = None;
            let left = finish(&trial, folder.path(), true, &mut watch);
            assert_same(&left, &whole, &format!("every {every} steps, killed at {die_at}: {:?}", watch.notes));
        }
    }
}

#[test]
fn without_a_checkpoint_it_starts_from_the_beginning() {
    let trial = trial(&[]);
    let folder = tempfile::tempdir().unwrap();
    let mut watch = Recorder::default();
    assert_same(&finish(&trial, folder.path(), true, &mut watch), &undisturbed(&trial), "from here on");
    assert_eq!(watch.notes[0], "no checkpoint yet: starting from the beginning");
}

#[test]
fn a_damaged_newest_checkpoint_is_skipped_with_a_message() {
    let mut trial = trial(&[]);
    let whole = undisturbed(&trial);
    trial.train.checkpoint.every_steps = 5;
    let damage: [(&str, fn(&Path)); 3] = [
        ("model.safetensors", |file| {
            let mut bytes = fs::read(file).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(file, bytes).unwrap();
        }),
        ("optim.safetensors", |file| fs::remove_file(file).unwrap()),
        ("state.json", |file| fs::write(file, &fs::read(file).unwrap()[..40]).unwrap()),
    ];
    for (name, harm) in damage {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Recorder { stop_at: Some(13), ..Recorder::default() };
        assert!(trial.fit(Some(folder.path()), false, &mut watch).1.is_err());
        harm(&newest(folder.path()).join(name));
        watch.stop_at = None;
        let left = finish(&trial, folder.path(), true, &mut watch);
        assert_same(&left, &whole, name);
        let note = watch.notes.iter().find(|n| n.starts_with("skipping a checkpoint that cannot be used")).unwrap();
        assert!(note.contains("step_000013") && note.contains(name), "{note}");
        assert!(watch.notes.iter().any(|n| n.starts_with("continuing after step 10 ")), "{:?}", watch.notes);
    }
}

#[test]
fn a_checkpoint_of_other_data_is_refused() {
    let mut trial = trial(&[]);
    let folder = tempfile::tempdir().unwrap();
    let mut watch = Recorder { stop_at: Some(5), ..Recorder::default() };
    assert!(trial.fit(Some(folder.path()), false, &mut watch).1.is_err());
    watch.stop_at = None;
    trial.data.hash = "e".repeat(64);
    let error = trial.fit(Some(folder.path()), true, &mut watch).1.unwrap_err();
    assert!(matches!(error, Error::Checkpoint { .. }), "{error:?}");
    let text = error.to_string();
    for part in ["step_000005", "same items, but other rows", "have the hash eeeeeeeeeeee…", "needs dddddddddddd…"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(error.hint().unwrap().contains("both are dataset=made_up"), "{:?}", error.hint());
    // What was there is still there.
    trial.data.hash = "d".repeat(64);
    assert_same(&finish(&trial, folder.path(), true, &mut watch), &undisturbed(&trial), "from here on");
}

#[test]
fn a_checkpoint_of_another_student_is_refused() {
    let wide = trial(&[]);
    let folder = tempfile::tempdir().unwrap();
    let mut watch = Recorder { stop_at: Some(5), ..Recorder::default() };
    assert!(wide.fit(Some(folder.path()), false, &mut watch).1.is_err());
    let narrow = trial(&[("d_model", json!(8))]);
    let error = narrow.fit(Some(folder.path()), true, &mut watch).1.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("tensor `item_emb.weight` has shape [40, 16], the model needs [40, 8]"), "{text}");
}

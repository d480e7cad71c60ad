//! Interrupted, killed and resumed trainings end where the undisturbed one ends, bit for bit.

use std::path::Path;

use anyo_core::Error;
use anyo_teacher::{
    TeacherConfig,
    config::{GateName, LoraPart},
};

use super::made_up::{Recorder, bits, config, dataset, fit, gate};

type Left = (std::collections::BTreeMap<String, Vec<u32>>, Vec<(u64, String, u64)>, Vec<u64>, Vec<u8>);

fn sequences() -> Vec<Vec<u32>> {
    (0..6u32).map(|u| (0..4 + u % 4).map(|i| (u * 5 + i * 7) % 24).collect()).collect()
}

/// 25 targets in micro-batches of 3, two a step: 5 steps an epoch, 10 in all. Everything random is on.
fn trial() -> TeacherConfig {
    let mut config = config();
    config.gate = Some(gate(GateName::Noisy));
    config.lora = Some(LoraPart { dropout: 0.2, ..config.lora.unwrap() });
    (config.train.batch_size, config.train.accumulation, config.train.sort_chunk) = (3, 2, 2);
    config
}

fn finish(config: &TeacherConfig, folder: &Path, resume: bool, watch: &mut Recorder) -> Left {
    let data = dataset(&sequences(), 1);
    let (teacher, fitted) = fit(config, &data, Some(folder), resume, watch);
    let f = fitted.unwrap();
    let counts =
        vec![f.steps, f.epochs, f.best_step, f.rows, f.tokens, f.hybrid_share.to_bits(), f.choice_share.to_bits()];
    // Speeds differ from run to run.
    let scalars = watch
        .scalars
        .iter()
        .filter(|(_, name, _)| !name.ends_with("_per_second") && name != "train/lm_time_share")
        .cloned()
        .collect();
    let last = std::fs::read(folder.join(format!("checkpoints/step_{:06}/optim.safetensors", f.steps))).unwrap();
    (bits(&teacher), scalars, counts, last)
}

fn assert_same(left: &Left, whole: &Left, what: &str) {
    assert_eq!(left.2, whole.2, "{what}: counts");
    let names = |l: &Left| l.1.iter().map(|(step, name, _)| format!("{step} {name}")).collect::<Vec<_>>();
    assert_eq!(names(left), names(whole), "{what}: which figures");
    assert!(left.1 == whole.1, "{what}: figures differ");
    assert!(left.3 == whole.3, "{what}: optimizer state differs");
    assert!(left.0 == whole.0, "{what}: weights differ");
}

fn undisturbed(config: &TeacherConfig) -> Left {
    let folder = tempfile::tempdir().unwrap();
    finish(config, folder.path(), false, &mut Recorder::default())
}

#[test]
fn an_interrupted_training_continues_bit_for_bit() {
    let config = trial();
    let whole = undisturbed(&config);
    assert_eq!(whole.2[0], 10);
    for stops in [vec![1], vec![4], vec![5], vec![7], vec![9, 10], vec![2, 3, 8]] {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Recorder::default();
        let data = dataset(&sequences(), 1);
        for (i, &stop) in stops.iter().enumerate() {
            watch.stop_at = Some(stop);
            let error = fit(&config, &data, Some(folder.path()), i > 0, &mut watch).1.unwrap_err();
            let want = format!("saved after step {stop}");
            assert!(matches!(&error, Error::Interrupted { detail } if *detail == want), "{error}");
        }
        watch.stop_at = None;
        let left = finish(&config, folder.path(), true, &mut watch);
        assert_same(&left, &whole, &format!("stopped after {stops:?}"));
    }
}

#[test]
fn running_statistics_and_recomputed_layers_resume_too() {
    let mut config = trial();
    config.gate = Some(gate(GateName::Resnet1d));
    (config.train.checkpointing, config.train.cache_mb) = (true, 0);
    let whole = undisturbed(&config);
    let folder = tempfile::tempdir().unwrap();
    let mut watch = Recorder { stop_at: Some(6), ..Recorder::default() };
    assert!(fit(&config, &dataset(&sequences(), 1), Some(folder.path()), false, &mut watch).1.is_err());
    watch.stop_at = None;
    assert_same(&finish(&config, folder.path(), true, &mut watch), &whole, "stopped after 6");
}

#[test]
fn a_killed_training_continues_from_its_checkpoint() {
    let mut config = trial();
    let whole = undisturbed(&config);
    config.train.checkpoint.every_steps = 3;
    for die_at in [2, 5, 8, 10] {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Recorder { die_at: Some(die_at), ..Recorder::default() };
        let error = fit(&config, &dataset(&sequences(), 1), Some(folder.path()), false, &mut watch).1.unwrap_err();
        assert_eq!(error.to_string(), "killed");
        watch.die_at = None;
        let left = finish(&config, folder.path(), true, &mut watch);
        assert_same(&left, &whole, &format!("killed at {die_at}: {:?}", watch.notes));
    }
}

#[test]
fn a_checkpoint_of_other_data_or_another_gate_is_refused() {
    let config = trial();
    let folder = tempfile::tempdir().unwrap();
    let mut watch = Recorder { stop_at: Some(2), ..Recorder::default() };
    let mut data = dataset(&sequences(), 1);
    assert!(fit(&config, &data, Some(folder.path()), false, &mut watch).1.is_err());
    watch.stop_at = None;
    data.hash = "e".repeat(64);
    let error = fit(&config, &data, Some(folder.path()), true, &mut watch).1.unwrap_err();
    assert!(error.to_string().contains("same items, but other rows"), "{error}");
    let mut other = trial();
    other.gate = Some(gate(GateName::Mlp));
    let error = fit(&other, &dataset(&sequences(), 1), Some(folder.path()), true, &mut watch).1.unwrap_err();
    assert!(error.to_string().contains("missing tensor `gate.w1.weight`"), "{error}");
}

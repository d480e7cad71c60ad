//! What training does to the weights.

use std::collections::BTreeMap;

use anyo_core::{Error, data::Rows, eval::evaluate, torch::load_tensors};
use anyo_student::{
    BEST_FILE,
    batch::Examples,
    config::{LossName, RowsKind},
};
use serde_json::json;

use crate::{
    made_up::{Named, Recorder, Trial, bits, eight, eval_config, loss, optim, sasrec, students, thirty},
    support::student::neural,
};

#[test]
fn the_same_seed_gives_the_same_bits() {
    for (_, name, mut changes) in students() {
        changes.extend([("dropout", json!(0.2)), ("optim", optim(1e-2, "linear", 3))]);
        let mut trial = Trial::new(neural(name, &changes), thirty());
        trial.train.epochs = 2;
        let (mut one, mut two) = (Recorder::default(), Recorder::default());
        let (first, fitted) = trial.fit(None, false, &mut one);
        fitted.unwrap();
        let (second, fitted) = trial.fit(None, false, &mut two);
        fitted.unwrap();
        assert_eq!(bits(&first), bits(&second), "{name}");
        assert_eq!((&one.scalars, &one.notes), (&two.scalars, &two.notes), "{name}");
        trial.seed += 1;
        assert_ne!(bits(&first), trial.weights(), "{name}: another seed");
    }
}

/// Trains on 8 rows until nothing is left to learn; returns the first and last loss of an epoch and HR@1 of each row's
/// last target.
fn overfit(name: &str, changes: &[(&'static str, serde_json::Value)], exclude_history: bool) -> (f64, f64, f64) {
    let mut trial = Trial::new(neural(name, changes), eight());
    // Caser is slow and learns in few steps, GRU4Rec the other way round.
    trial.train.epochs = match name {
        "caser" => 120,
        "gru4rec" => 500,
        _ => 250,
    };
    trial.train.batch_size = 64;
    // The newest weights count here, not the ones of the best validation.
    trial.data.valid = Rows::new();
    let mut watch = Recorder::default();
    let (student, fitted) = trial.fit(None, false, &mut watch);
    fitted.unwrap();
    let eval = anyo_core::eval::EvalConfig { exclude_history, ..eval_config() };
    let found = evaluate(&student, &trial.data.test, &trial.data, &eval, 0).unwrap();
    let losses = watch.values("train/epoch_loss");
    (losses[0], losses[losses.len() - 1], found.value("hr@1").unwrap())
}

fn overfits_with_every_loss(student: &Named) {
    let (label, name, changes) = student;
    for (form, negatives) in
        [(LossName::Bce, 1), (LossName::Gbce, 8), (LossName::Ce, 1), (LossName::SampledSoftmax, 32)]
    {
        let mut changes = changes.clone();
        changes.extend([("loss", loss(form, negatives)), ("optim", optim(2e-2, "cosine", 10))]);
        // Negatives per target come from outside the row, so the row's other items are never pushed down.
        let outside = matches!(form, LossName::Bce | LossName::Gbce);
        let (first, last, hr) = overfit(name, &changes, outside);
        assert!(last < 0.1 && last < first / 6.0, "{label} {form:?}: loss {first} -> {last}");
        assert_eq!(hr, 1.0, "{label} {form:?}: HR@1");
    }
    // The robust term's log-sum-exp over the catalogue has a floor above zero, so only the ranking can be perfect.
    let mut robust = loss(LossName::Ce, 1);
    robust["dros_alpha"] = json!(0.1);
    let mut changes = changes.clone();
    changes.extend([("loss", robust), ("optim", optim(2e-2, "cosine", 10))]);
    let (first, last, hr) = overfit(name, &changes, false);
    assert!(last < first && hr == 1.0, "{label} with DROS: loss {first} -> {last}, HR@1 {hr}");
}

#[test]
fn the_classic_sasrec_overfits_eight_rows_with_every_loss() {
    overfits_with_every_loss(&students()[0]);
}

#[test]
fn the_modern_sasrec_overfits_eight_rows_with_every_loss() {
    overfits_with_every_loss(&students()[1]);
}

#[test]
fn sasrec_dllm2rec_overfits_eight_rows_with_every_loss() {
    overfits_with_every_loss(&students()[2]);
}

#[test]
fn gru4rec_overfits_eight_rows_with_every_loss() {
    overfits_with_every_loss(&students()[3]);
}

#[test]
fn caser_overfits_eight_rows_with_every_loss() {
    overfits_with_every_loss(&students()[4]);
}

/// Largest difference between two sets of weights.
fn apart(one: &BTreeMap<String, Vec<u32>>, two: &BTreeMap<String, Vec<u32>>) -> f32 {
    let value = |bits: &u32| f32::from_bits(*bits);
    let pairs = one.iter().flat_map(|(name, one)| one.iter().zip(&two[name]));
    pairs.map(|(a, b)| (value(a) - value(b)).abs()).fold(0.0, f32::max)
}

#[test]
fn four_batches_of_two_equal_one_of_eight() {
    // Negatives per target do not depend on the grouping; without dropout nothing else is drawn. Rows differ in their
    // number of targets, so a mean of means would be seen. Plain gradients: Adam's first step only keeps their sign,
    // hence a large eps, and no clipping.
    let mut plain = optim(1.0, "constant", 0);
    (plain["name"], plain["eps"], plain["clip_norm"]) = (json!("adam"), json!(1.0), json!(null));
    (plain["betas"], plain["weight_decay"]) = (json!([0.0, 0.0]), json!(0.0));
    for (label, name, mut changes) in students() {
        changes.push(("optim", plain.clone()));
        let mut trial = Trial::new(neural(name, &changes), thirty());
        (trial.train.epochs, trial.train.bucket) = (1, false);
        trial.data.valid = Rows::new();
        let run = |trial: &Trial| {
            let mut watch = Recorder::default();
            let (student, fitted) = trial.fit(None, false, &mut watch);
            (bits(&student), fitted.unwrap().steps, watch.values("train/loss"), watch.values("train/grad_norm"))
        };
        (trial.train.batch_size, trial.train.accumulation) = (8, 1);
        let one = run(&trial);
        (trial.train.batch_size, trial.train.accumulation) = (2, 4);
        let four = run(&trial);
        trial.train.accumulation = 1;
        let alone = run(&trial);
        assert_eq!(one.1, four.1, "{label}: steps");
        assert!(alone.1 > one.1);
        for (got, want) in four.2.iter().zip(&one.2).chain(four.3.iter().zip(&one.3)) {
            assert!((got - want).abs() < 1e-4 * want, "{label}: loss or gradient norm {got} against {want}");
        }
        assert!(apart(&one.0, &four.0) < 1e-4, "{label}: weights differ by {}", apart(&one.0, &four.0));
        assert!(apart(&one.0, &alone.0) > 1e-3, "{label}: the comparison would not notice other steps");
    }
}

#[test]
fn buckets_only_change_the_order() {
    let data = thirty();
    for kind in [RowsKind::EveryPosition, RowsKind::EveryPositionSplit, RowsKind::LastPosition] {
        let examples = Examples::new(&data.train, kind, 4, data.n_items());
        for batch_size in [1, 7, 8, 1000] {
            let rows = |bucket: bool| {
                let batches = examples.epoch(batch_size, bucket, 5, 2);
                // With buckets `batch_size` is the mean number of rows.
                assert!(bucket || batches.iter().all(|batch| batch.len() <= batch_size));
                assert!(batches.iter().all(|batch| !batch.is_empty()));
                assert!(batches.len() <= examples.len().div_ceil(batch_size));
                let mut rows = batches.concat();
                rows.sort_unstable();
                rows
            };
            assert_eq!(rows(true), rows(false), "{kind:?} {batch_size}");
            assert_eq!(rows(true), (0..examples.len() as u32).collect::<Vec<_>>(), "{kind:?} {batch_size}");
        }
    }
}

#[test]
fn stopping_early_restores_the_best_weights() {
    // A learning rate that soon overshoots, so that the best is not the last.
    let mut trial = Trial::new(sasrec(&[("optim", optim(0.1, "constant", 0))]), thirty());
    (trial.train.epochs, trial.train.patience) = (60, 3);
    let folder = tempfile::tempdir().unwrap();
    let mut watch = Recorder::default();
    let (student, fitted) = trial.fit(Some(folder.path()), false, &mut watch);
    let fitted = fitted.unwrap();
    assert!(fitted.stopped_early && fitted.epochs == fitted.best_epoch + 3 && fitted.epochs < 60, "{fitted:?}");
    assert!(watch.notes.iter().any(|note| note.starts_with("stopping early: no better ndcg@10 in 3")), "{watch:?}");
    let values = watch.values("valid/ndcg@10");
    assert_eq!(values.len() as u64, fitted.epochs);
    let best = values.iter().copied().fold(f64::MIN, f64::max);
    assert_eq!((fitted.best, values[fitted.best_epoch as usize - 1]), (Some(best), best));
    let now = evaluate(&student, &trial.data.valid, &trial.data, &eval_config(), 0).unwrap();
    assert_eq!(now.value("ndcg@10"), Some(best), "the weights at hand are those of the best epoch");
    let mut last = Trial::new(trial.student.clone(), trial.data.clone());
    last.train.epochs = fitted.best_epoch;
    assert_eq!(bits(&student), last.weights(), "as after so many epochs and no more");
    let saved = load_tensors(&folder.path().join("models").join(BEST_FILE)).unwrap();
    let before = bits(&student);
    student.load(&saved).unwrap();
    assert_eq!(bits(&student), before, "the file holds them too");
}

#[test]
fn a_loss_that_is_not_finite_stops_with_the_step() {
    for (label, name, mut changes) in students() {
        changes.push(("optim", optim(1e30, "constant", 0)));
        let trial = Trial::new(neural(name, &changes), thirty());
        let folder = tempfile::tempdir().unwrap();
        let (_, fitted) = trial.fit(Some(folder.path()), false, &mut Recorder::default());
        let error = fitted.unwrap_err();
        assert!(matches!(error, Error::Run { .. }), "{label}: {error:?}");
        let text = error.to_string();
        assert!(text.starts_with("step ") && text.contains("the loss is"), "{label}: {text}");
        assert!(error.hint().unwrap().contains("lower the learning rate"), "{label}");
        assert!(!folder.path().join("models").join(BEST_FILE).exists(), "{label}: nothing bad is kept as best");
    }
}

#[test]
fn test_rows_never_reach_training() {
    let trial = Trial::new(sasrec(&[]), thirty());
    let weights = trial.weights();
    let mut other = Trial::new(trial.student.clone(), thirty());
    let mut test = Rows::new();
    for row in 0..other.data.test.len() {
        test.push_eval(other.data.test.user(row), &[39, 38], row as u32);
    }
    assert_ne!(test, other.data.test);
    other.data.test = test;
    assert_eq!(other.weights(), weights);
    other.data.test = Rows::new();
    assert_eq!(other.weights(), weights);

    // Validation rows choose the epoch and nothing else: with a single one they change nothing.
    let mut one = Trial::new(trial.student.clone(), thirty());
    one.train.epochs = 1;
    let weights = one.weights();
    one.data.valid = one.data.test.clone();
    assert_eq!(one.weights(), weights);
    // What training does see changes the weights.
    one.data.train.push(0, [1, 2, 3], 1);
    assert_ne!(one.weights(), weights);
}

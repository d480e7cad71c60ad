//! The policies on signals computed by hand, and what holds for all of them.

use std::path::Path;

use anyo_core::{
    Needs, Signals, StudentSignals, TeacherSignals,
    bundle::choose_rows,
    config::{Check, Problem, SearchPath, compose_all},
    data::{Rows, TargetIndex},
};
use proptest::{prelude::*, strategy::Union};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::*;

/// Owned signals; [`Made::signals`] lends them.
#[derive(Debug, Clone, Default)]
struct Made {
    epoch: u64,
    epochs: u64,
    seed: u64,
    targets: Vec<u32>,
    entropy: Vec<f32>,
    margin: Vec<f32>,
    student_rank: Vec<u32>,
    loss: Vec<f32>,
    overlap: Vec<f32>,
    teacher_rank: Vec<u32>,
    distance: Vec<f32>,
    first: Vec<f32>,
    spread: Vec<f32>,
}

impl Made {
    fn signals(&self, needs: Needs) -> Signals<'_> {
        let student = StudentSignals {
            entropy: &self.entropy,
            margin: &self.margin,
            true_rank: &self.student_rank,
            loss: &self.loss,
            overlap: &self.overlap,
        };
        Signals {
            epoch: self.epoch,
            epochs: self.epochs,
            seed: self.seed,
            targets: &self.targets,
            // what was not asked for is empty
            student: if needs == Needs::Nothing { StudentSignals::default() } else { student },
            teacher: TeacherSignals {
                true_rank: &self.teacher_rank,
                true_distance: &self.distance,
                first_distance: &self.first,
                spread: &self.spread,
            },
        }
    }
}

const N_TARGETS: usize = 50;

fn labelled() -> Vec<u32> {
    (0..N_TARGETS as u32).collect()
}

/// Vectors in the plane: target t stands at (t, t²).
fn parabola(targets: &[u32]) -> Result<Features> {
    Ok(Features { values: targets.iter().flat_map(|&t| [t as f32, (t * t) as f32]).collect(), dim: 2 })
}

fn policy(config: serde_json::Value) -> Box<dyn SelectionPolicy> {
    let config: ActiveConfig = serde_json::from_value(config).unwrap();
    assert!(config.problems().is_empty(), "{config:?}");
    let labelled = labelled();
    let context = Context { n_items: 100, n_targets: N_TARGETS, labelled: &labelled, features: Some(&parabola) };
    build(&config, &context).unwrap()
}

fn weigh(config: serde_json::Value, made: &Made) -> Vec<f32> {
    let mut policy = policy(config);
    let needs = policy.needs();
    policy.weights(&made.signals(needs))
}

/// One configuration of every policy and of every form.
fn every() -> Vec<serde_json::Value> {
    vec![
        json!({"name": "all"}),
        json!({"name": "random", "p": 0.4}),
        json!({"name": "student_entropy", "share": 0.3, "keep": "unsure"}),
        json!({"name": "student_entropy", "share": 0.3, "keep": "sure"}),
        json!({"name": "student_margin", "share": 0.6, "keep": "unsure"}),
        json!({"name": "student_margin", "share": 0.6, "keep": "sure"}),
        json!({"name": "teacher_confidence", "gate": "rank", "top_m": 3, "reach": 1.0}),
        json!({"name": "teacher_confidence", "gate": "distance", "top_m": 3, "reach": 1.0}),
        json!({"name": "rank_gap", "unknown": 0.5}),
        json!({"name": "agreement", "form": "threshold", "threshold": 0.2}),
        json!({"name": "agreement", "form": "proportional", "threshold": 0.2}),
        json!({"name": "curriculum", "start": 0.5, "end": 2.0, "over": 0.5}),
        json!({"name": "curriculum", "start": 0.5, "end": null, "over": 0.5}),
        json!({"name": "k_center", "n": 7, "seed": 3, "candidates": 30}),
        json!({"name": "budget", "n": 9, "seed": 42}),
    ]
}

fn four() -> Made {
    Made {
        epoch: 1,
        epochs: 8,
        seed: 5,
        targets: vec![4, 1, 9, 30],
        entropy: vec![0.5, 3.0, 1.0, 3.0],
        margin: vec![0.9, 0.1, 0.1, 0.4],
        student_rank: vec![50, 5, 7, 3],
        loss: vec![1.0, 2.3, 4.7, 9.0],
        overlap: vec![0.0, 0.3, 0.2, 1.0],
        teacher_rank: vec![5, 8, 7, 0],
        distance: vec![1.0, 3.0, 2.5, f32::NAN],
        first: vec![0.0, 1.0, 0.0, 0.0],
        spread: vec![1.0, 1.5, 2.0, 1.0],
    }
}

#[test]
fn hand_computed() {
    let made = four();
    let check = |config, want: [f32; 4]| {
        let got = weigh(serde_json::Value::clone(&config), &made);
        assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6) && got.len() == 4, "{config}: {got:?}");
    };
    check(json!({"name": "all"}), [1.0; 4]);
    check(json!({"name": "random", "p": 0.0}), [0.0; 4]);
    check(json!({"name": "random", "p": 1.0}), [1.0; 4]);
    // ⌈0.25·4⌉ = 1 of two with entropy 3: the smaller number, 1
    check(json!({"name": "student_entropy", "share": 0.25, "keep": "unsure"}), [0.0, 1.0, 0.0, 0.0]);
    check(json!({"name": "student_entropy", "share": 0.5, "keep": "sure"}), [1.0, 0.0, 1.0, 0.0]);
    check(json!({"name": "student_margin", "share": 0.5, "keep": "unsure"}), [0.0, 1.0, 1.0, 0.0]);
    check(json!({"name": "student_margin", "share": 0.3, "keep": "sure"}), [1.0, 0.0, 0.0, 1.0]);
    check(json!({"name": "teacher_confidence", "gate": "rank", "top_m": 7, "reach": 0.0}), [1.0, 0.0, 1.0, 0.0]);
    // gaps 1, 2, 2.5 against 1.25 spreads of 1, 1.5, 2: 1.25, 1.875, 2.5
    let distance = json!({"name": "teacher_confidence", "gate": "distance", "top_m": 1, "reach": 1.25});
    check(distance, [1.0, 0.0, 1.0, 0.0]);
    // section 13.14 of the specification: 50 against 5, 5 against 8, equal
    check(json!({"name": "rank_gap", "unknown": 0.25}), [2.0, 0.4, 1.0, 0.25]);
    check(json!({"name": "agreement", "form": "threshold", "threshold": 0.2}), [0.0, 1.0, 1.0, 1.0]);
    check(json!({"name": "agreement", "form": "proportional", "threshold": 0.9}), [0.0, 0.3, 0.2, 1.0]);
    // epoch 1 of 8, over 4: θ = 0.5 + 1.5/4 = 0.875; 0.875·ln 100 = 4.0295
    check(json!({"name": "curriculum", "start": 0.5, "end": 2.0, "over": 0.5}), [1.0, 1.0, 0.0, 0.0]);
    // 0.5·ln 100 = 2.3026 until epoch 4
    check(json!({"name": "curriculum", "start": 0.5, "end": null, "over": 0.5}), [1.0, 1.0, 0.0, 0.0]);
    let late = Made { epoch: 4, ..four() };
    assert_eq!(weigh(json!({"name": "curriculum", "start": 0.5, "end": null, "over": 0.5}), &late), [1.0; 4]);
}

#[test]
fn a_budget_counts_what_the_teacher_would_label() {
    let made = Made { targets: labelled(), ..Made::default() };
    let kept = |n: usize, seed: u64| -> Vec<u32> {
        let weights = weigh(json!({"name": "budget", "n": n, "seed": seed}), &made);
        (0..N_TARGETS as u32).filter(|&t| weights[t as usize] == 1.0).collect()
    };
    assert_eq!(kept(9, 42), choose_rows(N_TARGETS, 9, 42));
    assert!(kept(9, 42).iter().all(|t| kept(20, 42).contains(t)));
    assert!(kept(0, 42).is_empty() && kept(500, 42).len() == N_TARGETS);
    // a bundle that another seed labelled
    let labelled = choose_rows(N_TARGETS, 20, 7);
    let context = Context { n_items: 100, n_targets: N_TARGETS, labelled: &labelled, features: None };
    let config = |n: usize, seed: u64| serde_json::from_value(json!({"name": "budget", "n": n, "seed": seed})).unwrap();
    assert!(build(&config(9, 7), &context).is_ok());
    let error = build(&config(9, 42), &context).unwrap_err();
    assert!(
        error.to_string().contains("active.n=9 with active.seed=42 asks for 9 targets, but the bundle has no list")
    );
    assert!(error.hint().unwrap().contains("export.rows_seed"));
    assert!(build(&config(21, 7), &context).is_err());
}

#[test]
fn centres_are_the_farthest() {
    // 0, 1, 10, 11 on a line, from 1: 11 is farthest (10), then 10 and 0 are both 1 away: the first
    let features = Features { values: vec![0.0, 1.0, 10.0, 11.0], dim: 1 };
    assert_eq!(farthest_first(&features, 4, 1), [1, 3, 0, 2]);
    assert_eq!(farthest_first(&features, 2, 1), [1, 3]);
    // a wide vector goes through the lanes: distance² 11·4 against 3
    let mut values = vec![0.0; 33];
    values[11..22].fill(2.0);
    values[22..25].fill(1.0);
    assert_eq!(farthest_first(&Features { values, dim: 11 }, 3, 0), [0, 1, 2]);
    // equal vectors are all taken once
    assert_eq!(farthest_first(&Features { values: vec![5.0; 3], dim: 1 }, 9, 2), [2, 0, 1]);
    assert!(farthest_first(&features, 0, 0).is_empty());
}

#[test]
fn k_center_is_fixed_nested_and_needs_vectors() {
    let made = Made { targets: labelled(), ..Made::default() };
    let kept = |n: usize, candidates: usize| {
        let weights = weigh(json!({"name": "k_center", "n": n, "seed": 3, "candidates": candidates}), &made);
        (0..N_TARGETS).filter(|&t| weights[t] == 1.0).collect::<Vec<_>>()
    };
    assert_eq!((kept(0, 30).len(), kept(7, 30).len(), kept(50, 50).len(), kept(60, 60).len()), (0, 7, 50, 50));
    assert_eq!(kept(7, 30), kept(7, 30));
    assert!(kept(7, 30).iter().all(|t| kept(12, 30).contains(t)));
    // among all, the end of the parabola is in any two
    assert!(kept(2, 50).contains(&49) || kept(2, 50).contains(&0), "{:?}", kept(2, 50));
    let labelled = labelled();
    let context = Context { n_items: 100, n_targets: N_TARGETS, labelled: &labelled, features: None };
    let config: ActiveConfig =
        serde_json::from_value(json!({"name": "k_center", "n": 2, "seed": 1, "candidates": 5})).unwrap();
    let error = build(&config, &context).unwrap_err();
    assert!(error.to_string().contains("has no item vectors") && error.hint().is_some(), "{error}");
    let nan = |targets: &[u32]| Ok(Features { values: vec![f32::NAN; targets.len()], dim: 1 });
    let error = build(&config, &Context { features: Some(&nan), ..context }).unwrap_err();
    assert!(error.to_string().contains("vector 0 of the targets has the value NaN"), "{error}");
    let short = |_: &[u32]| Ok(Features { values: vec![1.0; 3], dim: 1 });
    let error = build(&config, &Context { features: Some(&short), ..context }).unwrap_err();
    assert!(error.to_string().contains("wanted 5 x 1, got 3"), "{error}");
}

#[test]
fn features_are_means_of_histories() {
    let mut rows = Rows::new();
    rows.push(0, [0, 1, 2], 1);
    let index = TargetIndex::new(&rows);
    let vectors = [1.0, 0.0, 3.0, 4.0, 9.0, 9.0];
    let mean = |newest| mean_of_history(&index, &vectors, 2, newest, &[0, 1]).unwrap().values;
    assert_eq!(mean(0), [1.0, 0.0, 2.0, 2.0]);
    assert_eq!(mean(1), [1.0, 0.0, 3.0, 4.0]);
    let wrong = |vectors: &[f32], dim, target| mean_of_history(&index, vectors, dim, 0, &[target]).unwrap_err();
    assert!(wrong(&vectors[..2], 2, 1).to_string().contains("item 1 has no vector"));
    assert!(wrong(&vectors, 2, 2).to_string().contains("target 2"));
    assert!(wrong(&vectors, 0, 0).to_string().contains("width"));
}

#[test]
fn wrong_values_are_told() {
    for (config, key) in [
        (json!({"name": "random", "p": 1.5}), "p"),
        (json!({"name": "student_entropy", "share": -0.1, "keep": "sure"}), "share"),
        (json!({"name": "student_margin", "share": 2.0, "keep": "sure"}), "share"),
        (json!({"name": "teacher_confidence", "gate": "rank", "top_m": 0, "reach": 1.0}), "top_m"),
        (json!({"name": "teacher_confidence", "gate": "rank", "top_m": 1, "reach": -1.0}), "reach"),
        (json!({"name": "rank_gap", "unknown": 2.5}), "unknown"),
        (json!({"name": "agreement", "form": "threshold", "threshold": 1.5}), "threshold"),
        (json!({"name": "curriculum", "start": -1.0, "end": null, "over": 0.5}), "start"),
        (json!({"name": "curriculum", "start": 1.0, "end": -1.0, "over": 0.5}), "end"),
        (json!({"name": "curriculum", "start": 1.0, "end": null, "over": 0.0}), "over"),
        (json!({"name": "k_center", "n": 10, "seed": 1, "candidates": 9}), "candidates"),
    ] {
        let config: ActiveConfig = serde_json::from_value(config).unwrap();
        let problems = config.problems();
        assert!(problems.iter().any(|p| p.key == key), "{config:?}: {problems:?}");
    }
    let unknown = serde_json::from_value::<ActiveConfig>(json!({"name": "entropy"})).unwrap_err().to_string();
    assert!(unknown.contains("expected one of all, random, student_entropy"), "{unknown}");
    assert!(serde_json::from_value::<ActiveConfig>(json!({"name": "all", "p": 1})).is_err());
}

/// Stands for run-distill's configuration.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Primary {
    active: ActiveConfig,
}

impl Check for Primary {
    fn problems(&self) -> Vec<Problem> {
        self.active.problems()
    }
}

#[test]
fn every_file_of_the_group_composes() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("primary.yaml"), "defaults:\n  - active: all\n  - _self_\n").unwrap();
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf");
    // the group alone: another binary's groups are not this primary's
    let active = folder.path().join("active");
    std::fs::create_dir(&active).unwrap();
    for name in <ActiveConfig as anyo_core::config::tagged::Tagged>::VARIANTS {
        let file = format!("{name}.yaml");
        let text = std::fs::read_to_string(conf.join("active").join(&file)).unwrap();
        assert!(text.contains(&format!("\nname: {name}\n")), "{file} names another policy");
        std::fs::write(active.join(file), text).unwrap();
    }
    let n = compose_all::<Primary>(&SearchPath::new([folder.path().to_owned()]), "primary", &[]).unwrap();
    assert_eq!(n, 11);
    assert_eq!(std::fs::read_dir(conf.join("active")).unwrap().count(), 10);
}

fn anything() -> impl Strategy<Value = f32> {
    Union::new([
        (-1e3f32..1e3).boxed(),
        Just(f32::NAN).boxed(),
        Just(f32::INFINITY).boxed(),
        Just(f32::NEG_INFINITY).boxed(),
        Just(0.0).boxed(),
        Just(f32::MAX).boxed(),
    ])
}

prop_compose! {
    /// Signals of any size and content, the damaged included.
    fn signals()(n in 0usize..40)(
        epoch in 0u64..20,
        seed in any::<u64>(),
        start in 0u32..40,
        entropy in prop::collection::vec(anything(), n),
        margin in prop::collection::vec(anything(), n),
        student_rank in prop::collection::vec(0u32..2000, n),
        loss in prop::collection::vec(anything(), n),
        overlap in prop::collection::vec(0f32..=1.0, n),
        teacher_rank in prop::collection::vec(prop_oneof![Just(0u32), any::<u32>(), 1u32..30], n),
        distance in prop::collection::vec(anything(), n),
        first in prop::collection::vec(anything(), n),
        spread in prop::collection::vec(anything(), n),
    ) -> Made {
        let n = entropy.len() as u32;
        Made {
            epoch, epochs: 20, seed, targets: (start..start + n).rev().collect(), entropy, margin, student_rank, loss, overlap,
            teacher_rank, distance, first, spread,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// One finite weight of 0 to 2 for each target, the same every time; `all` is exactly 1.
    #[test]
    fn weights_are_weights(made in signals()) {
        for config in every() {
            let weights = weigh(config.clone(), &made);
            prop_assert_eq!(weights.len(), made.targets.len(), "{}", &config);
            prop_assert!(weights.iter().all(|w| (0.0..=2.0).contains(w)), "{}: {:?}", &config, &weights);
            prop_assert_eq!(&weights, &weigh(config.clone(), &made), "{}", &config);
            if config["name"] == "all" {
                prop_assert!(weights.iter().all(|w| w.to_bits() == 1f32.to_bits()));
            }
        }
    }

    /// The order of the targets in a batch does not matter.
    #[test]
    fn a_batch_has_no_order(made in signals()) {
        let reversed = |list: &[f32]| list.iter().rev().copied().collect::<Vec<_>>();
        let turned = |list: &[u32]| list.iter().rev().copied().collect::<Vec<_>>();
        let other = Made {
            targets: turned(&made.targets), entropy: reversed(&made.entropy), margin: reversed(&made.margin),
            student_rank: turned(&made.student_rank), loss: reversed(&made.loss), overlap: reversed(&made.overlap),
            teacher_rank: turned(&made.teacher_rank), distance: reversed(&made.distance), first: reversed(&made.first),
            spread: reversed(&made.spread), ..made
        };
        for config in every() {
            prop_assert_eq!(reversed(&weigh(config.clone(), &made)), weigh(config.clone(), &other), "{}", &config);
        }
    }

    /// A share of a batch is that share, rounded up.
    #[test]
    fn shares_are_shares(made in signals(), share in 0f64..=1.0) {
        for name in ["student_entropy", "student_margin"] {
            let kept: f32 = weigh(json!({"name": name, "share": share, "keep": "unsure"}), &made).iter().sum();
            let n = made.targets.len() as f64;
            prop_assert!((f64::from(kept) - share * n).abs() < 1.0 + 1e-6, "{kept} of {n} at {share}");
        }
    }

    /// The mean weight of the coin is p.
    #[test]
    fn coins_are_fair(seed in any::<u64>(), p in 0f64..=1.0) {
        let made = Made { seed, targets: (0..2000).collect(), ..Made::default() };
        let mean = weigh(json!({"name": "random", "p": p}), &made).iter().map(|&w| f64::from(w)).sum::<f64>() / 2000.0;
        prop_assert!((mean - p).abs() < 6.0 * (p * (1.0 - p) / 2000.0).sqrt() + 1e-9, "{mean} {p}");
    }
}

//! Distillation inside the training loop: what it equals, what it repeats bit for bit, what it learns.
#![allow(clippy::unwrap_used, reason = "tests: helpers outside of #[test] functions too")]

mod support;

use std::{collections::BTreeMap, fs, path::Path};

use anyo_core::{Batch, Error, Needs, Recommender, SelectionPolicy, Signals, data::TargetIndex, torch::load_tensors};
use anyo_distill::{attach, is_tied, negatives::FreshNegatives};
use anyo_student::{BEST_FILE, EXTRA_PREFIX, Extra, Student, batch::Input, dropout::Mode};
use serde_json::{Value, json};
use support::{Recorder, STUDENTS, Trial, bits, dataset, distill, student, vectors};
use tch::{Device, Kind, Tensor, no_grad};

/// The bits of the student's own parameters.
fn own_bits(student: &Student) -> BTreeMap<String, Vec<u32>> {
    let mut all = bits(student);
    all.retain(|name, _| !name.starts_with(EXTRA_PREFIX));
    all
}

fn trained(trial: &Trial) -> BTreeMap<String, Vec<u32>> {
    let (student, fitted) = trial.fit(None, false, &mut Recorder::default());
    fitted.unwrap();
    own_bits(&student)
}

/// Weighs every row alike, and may ask for the student's scores.
#[derive(Debug)]
struct Alike {
    weight: f32,
    needs: Needs,
}

impl SelectionPolicy for Alike {
    fn needs(&self) -> Needs {
        self.needs
    }

    fn weights(&mut self, signals: &Signals<'_>) -> Vec<f32> {
        let n = signals.targets.len();
        let student = &signals.student;
        let asked = if self.needs == Needs::StudentScores { n } else { 0 };
        assert_eq!((student.entropy.len(), student.margin.len(), student.true_rank.len()), (asked, asked, asked));
        assert_eq!((student.loss.len(), student.overlap.len()), (asked, asked));
        assert_eq!((signals.teacher.true_rank.len(), signals.teacher.spread.len()), (n, n));
        assert!(student.entropy.iter().all(|&h| (0.0..=40f32.ln() + 1e-3).contains(&h)));
        assert!(student.overlap.iter().all(|o| (0.0..=1.0).contains(o)));
        vec![self.weight; n]
    }
}

#[test]
fn without_a_teacher_it_is_the_plain_training_bit_for_bit() {
    for name in STUDENTS {
        let trial = Trial::new(student(name, &[("dropout", json!(0.2))]), distill("none", &[]));
        let mut alone = trial.new_student();
        assert!(trial.guest(&mut alone).is_idle());
        trial.fit_guest(&alone, None, None, false, &mut Recorder::default()).unwrap();
        // A guest that does nothing is no guest, and one whose rows all count nothing changes nothing.
        assert_eq!(trained(&trial), bits(&alone), "{name}");
        let silent = Trial { distill: distill("dllm2rec", &[("embedding.name", json!("none"))]), ..trial };
        for needs in [Needs::Nothing, Needs::StudentScores] {
            let mut student = silent.new_student();
            let mut guest = silent.guest_with(&mut student, Some(Box::new(Alike { weight: 0.0, needs })));
            silent.fit_guest(&student, Some(&mut guest), None, false, &mut Recorder::default()).unwrap();
            assert!(own_bits(&student) == bits(&alone), "{name}: budget 0");
        }
    }
}

#[test]
fn weighing_every_row_with_one_is_no_policy() {
    let dros = [("loss.dros_alpha", json!(0.5))];
    for (name, changes) in [("sasrec", &dros[..0]), ("sasrec_dllm2rec", &dros)] {
        // A policy that asks for all scores has every target looked at.
        let trial = Trial::new(student(name, changes), distill("dllm2rec", &[("consistency.every", json!(1))]));
        let of = |policy: Option<Box<dyn SelectionPolicy>>| {
            let mut student = trial.new_student();
            let mut guest = trial.guest_with(&mut student, policy);
            trial.fit_guest(&student, Some(&mut guest), None, false, &mut Recorder::default()).unwrap();
            bits(&student)
        };
        let without = of(None);
        for needs in [Needs::Nothing, Needs::StudentScores] {
            assert!(of(Some(Box::new(Alike { weight: 1.0, needs }))) == without, "{name} {needs:?}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    for config in ["dllm2rec", "dllm2rec_compat", "listwise", "hint"] {
        let changes = [("dropout", json!(0.2)), ("loss.dros_alpha", json!(0.5))];
        let trial = Trial::new(student("sasrec_dllm2rec", &changes), distill(config, &[]));
        let first = trained(&trial);
        assert!(first == trained(&trial), "{config}");
        let other = Trial { seed: 4, ..trial };
        assert!(trained(&other) != first, "{config}");
    }
}

/// Scores of some histories.
fn scores(student: &Student) -> Tensor {
    let histories: [&[u32]; 4] = [&[1, 2, 3], &[7], &[4, 4, 9, 39, 0, 12, 13, 14, 15, 16, 17, 18], &[38, 1]];
    student.score(&Batch { users: &[0; 4], histories: &histories }).unwrap()
}

/// The scores of the same histories from the tables as training uses them.
fn unfolded(student: &Student, guest: &mut dyn Extra, max_len: usize) -> Tensor {
    let _guard = tch::no_grad_guard();
    let tables = guest.tables(student).unwrap();
    let histories: [&[u32]; 4] = [&[1, 2, 3], &[7], &[4, 4, 9, 39, 0, 12, 13, 14, 15, 16, 17, 18], &[38, 1]];
    let cut: Vec<&[u32]> = histories.iter().map(|h| &h[h.len().saturating_sub(max_len)..]).collect();
    let input = Input::new(&cut, student.network.pad(), Device::Cpu);
    let items = tables.items.unwrap_or_else(|| student.network.items().shallow_clone());
    let states = student.network.states_from(&items, &input, &Mode::Eval);
    let width = states.size()[2];
    let states = states.reshape([-1, width]).index_select(0, &input.newest());
    let mut head = student.network.head();
    if let Some(weight) = tables.head {
        head.weight = weight;
    }
    head.scores(&states)
}

#[test]
fn the_folded_student_scores_as_the_unfolded_one() {
    for name in STUDENTS {
        for side in ["auto", "output", "both"] {
            for offset in [true, false] {
                if name == "sasrec" && side == "output" {
                    continue;
                }
                let changes = [("embedding.side", json!(side)), ("embedding.offset", json!(offset))];
                let mut trial = Trial::new(student(name, &[]), distill("dllm2rec", &changes));
                trial.train.epochs = 1;
                // No validation: the weights that are left are the last ones, folded.
                trial.data.valid = anyo_core::data::Rows::new();
                let folder = tempfile::tempdir().unwrap();
                let (folded, fitted) = trial.fit(Some(folder.path()), false, &mut Recorder::default());
                fitted.unwrap();
                // The checkpoint has the parts.
                let mut student = trial.new_student();
                let mut guest = trial.guest(&mut student);
                let steps: Vec<_> = fs::read_dir(folder.path().join("checkpoints")).unwrap().flatten().collect();
                student.load(&load_tensors(&steps[0].path().join("model.safetensors")).unwrap()).unwrap();
                let want = unfolded(&student, &mut guest, 10);
                let off = (scores(&folded) - &want).abs().max().double_value(&[]);
                assert!(off <= 1e-6 * want.abs().max().double_value(&[]).max(1.0), "{name} {side} {offset}: {off}");
                assert!((scores(&student) - &want).abs().max().double_value(&[]) > 1e-3, "{name}: nothing was fused");
                // An ordinary student takes the weights that are left.
                let plain = trial.new_student();
                let mut own = folded.params.snapshot().unwrap();
                own.retain(|key, _| !key.starts_with(EXTRA_PREFIX));
                plain.load(&own).unwrap();
                assert_eq!(scores(&plain), scores(&folded));
            }
        }
    }
}

#[test]
fn item_11_fusion_by_hand() {
    // specs/dllm2rec.md section 13, item 11: b = [.1, -.2], z = [1, 2, 3], W = [[1,0,0],[0,1,0]], bias [0, .5], ed .3.
    let config = distill("dllm2rec", &[]).embedding;
    let mut student = Student::new(&student("gru4rec", &[("d_model", json!(2))]), 3, Device::Cpu, 1).unwrap();
    let z = Tensor::from_slice(&[1f32, 2.0, 3.0]).view([1, 3]).repeat([3, 1]);
    let fused = attach(&config, &z, &mut student, 1).unwrap().unwrap();
    no_grad(|| {
        let set = |name: &str, values: &[f32]| {
            let tensor = student.params.get(name).unwrap();
            tensor.shallow_clone().copy_(&Tensor::from_slice(values).view(tensor.size().as_slice()));
        };
        set("item_embeddings.weight", &[0.1, -0.2, 0.1, -0.2, 0.1, -0.2, 0.1, -0.2]);
        set("extra.input.weight", &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        set("extra.input.bias", &[0.0, 0.5]);
    });
    let table = fused.tables(&student).items.unwrap();
    let row = Vec::<f32>::try_from(table.detach().get(0)).unwrap();
    assert!((row[0] - 0.40).abs() < 1e-6 && (row[1] - 0.55).abs() < 1e-6, "{row:?}");
    // The pad has z = 0: the map's bias alone.
    let pad = Vec::<f32>::try_from(table.detach().get(3)).unwrap();
    assert!((pad[0] - 0.1).abs() < 1e-6 && (pad[1] + 0.05).abs() < 1e-6, "{pad:?}");
    assert_eq!(fused.fold(&student)[0].1, table.detach());
}

#[test]
fn the_maps_learn_and_the_hint_closes_in() {
    let trial = Trial::new(student("sasrec", &[]), distill("hint", &[]));
    let mut watch = Recorder::default();
    trial.fit(None, false, &mut watch).1.unwrap();
    let hints = watch.values("train/loss_hint");
    assert!(hints.last().unwrap() < &(0.9 * hints[0]), "{hints:?}");
    for name in ["sasrec", "caser"] {
        let trial = Trial::new(student(name, &[]), distill("dllm2rec", &[("embedding.side", json!("both"))]));
        let mut before = trial.new_student();
        drop(trial.guest(&mut before));
        let (after, fitted) = trial.fit(None, false, &mut Recorder::default());
        fitted.unwrap();
        let (before, after) = (bits(&before), bits(&after));
        for (key, value) in before.iter().filter(|(key, _)| key.starts_with(EXTRA_PREFIX)) {
            assert_ne!(value, &after[key], "{name}: {key} never moved");
        }
    }
}

#[test]
fn principal_components_start_the_table() {
    let config = distill("embedding_init", &[]).embedding;
    for (name, t) in [("gru4rec", 24), ("sasrec", 6)] {
        let fresh = Student::new(&student(name, &[]), 40, Device::Cpu, 1).unwrap();
        let mut made = Student::new(&student(name, &[]), 40, Device::Cpu, 1).unwrap();
        let z = vectors(40, t);
        assert!(attach(&config, &z, &mut made, 1).unwrap().is_none());
        let (before, after) = (fresh.network.items().detach(), made.network.items().detach());
        let c = 16.min(t as i64);
        let part = after.narrow(0, 0, 40).narrow(1, 0, c);
        // Distances between items are those of the vectors, as far as the components reach, up to one factor.
        let apart = |x: &Tensor| {
            (x.unsqueeze(0) - x.unsqueeze(1)).square().sum_dim_intlist([2i64].as_slice(), false, Kind::Double)
        };
        let (got, want) = (apart(&part), apart(&z));
        let both = Tensor::stack(&[got.view([-1]), want.view([-1])], 0).corrcoef().double_value(&[0, 1]);
        assert!(both > if c < t as i64 { 0.8 } else { 0.9999 }, "{name}: {both}");
        let std = |x: &Tensor| x.std(false).double_value(&[]);
        assert!((std(&part) / std(&before.narrow(0, 0, 40).narrow(1, 0, c)) - 1.0).abs() < 1e-3);
        assert_eq!(before.narrow(1, c, 16 - c), after.narrow(1, c, 16 - c));
        let _ = is_tied(&made);
    }
}

#[test]
fn eight_rows_are_learnt_by_heart() {
    let sequence = |user: u32| -> Vec<u32> {
        let step = [3, 5, 7][user as usize % 3];
        std::iter::once(user).chain((0..5).map(|i| 8 + (user * 5 + i * step) % 16)).collect()
    };
    let data = dataset(&(0..8).map(sequence).collect::<Vec<_>>(), 24, false);
    for (name, loss) in [("sasrec", "ce"), ("sasrec_dllm2rec", "bce"), ("gru4rec", "ce"), ("caser", "ce")] {
        let config = student(name, &[("loss.name", json!(loss))]);
        let mut trial = Trial::new(config, distill("dllm2rec", &[("lambda_d", json!(0.3))]));
        let bundle = tempfile::tempdir().unwrap();
        let index = TargetIndex::new(&data.train);
        // The teacher knows the answer and puts it first.
        let rows: Vec<Option<support::Row>> = (0..index.len())
            .map(|number| {
                let target = index.target(number).unwrap();
                let items: Vec<u32> = (0..10).map(|i| (target + i) % 24).collect();
                Some((items, (0..10).map(|i| i as f32 * 3.0).collect(), Some((1, 0.0))))
            })
            .collect();
        support::write_bundle(&bundle.path().join("b"), &data, 10, &rows, Some(&vectors(24, 6)));
        (trial.bundle, trial.data, trial.train.epochs) =
            (bundle, dataset(&(0..8).map(sequence).collect::<Vec<_>>(), 24, false), 250);
        (trial.train.metric, trial.train.valid_every) = ("hr@1".into(), 1);
        let (_, fitted) = trial.fit(None, false, &mut Recorder::default());
        let best = fitted.unwrap().best.unwrap();
        assert!(best >= 0.99, "{name}: hr@1 {best}");
    }
}

#[test]
fn fresh_negatives_avoid_sequence_and_candidates() {
    let data = support::thirty();
    let index = TargetIndex::new(&data.train);
    let mut fresh = FreshNegatives::new(&data);
    let mut draw = support::numbers(5);
    let mut seen = [0u32; 40];
    for i in 0..10_000 {
        let number = draw(index.len() as u32);
        let candidates: Vec<u32> = (0..10).map(|j| (number + j * 3) % 40).collect();
        let mut out = Vec::new();
        fresh.draw(&data, i, number, &candidates, 2, &mut out);
        let sequence = data.train.items(index.place(number as usize).unwrap().0);
        for item in out {
            assert!(!sequence.contains(&item) && !candidates.contains(&item));
            seen[item as usize] += 1;
        }
    }
    assert!(seen.iter().all(|&n| n > 0), "{seen:?}");
    // What a target gets depends on nothing but its number.
    let of = |fresh: &mut FreshNegatives, number| {
        let mut out = Vec::new();
        fresh.draw(&data, 1, number, &[], 3, &mut out);
        out
    };
    let alone = of(&mut FreshNegatives::new(&data), 17);
    assert_eq!(of(&mut fresh, 17), alone);
}

/// For every target the bits of the candidates that fewer than ten items score above, counted from the plain scores.
fn overlap(student: &Student, trial: &Trial) -> Vec<i64> {
    let wanted = anyo_core::bundle::Wanted { rankings: true, embeddings: false };
    let bundle = anyo_core::bundle::Bundle::open_for_training(&trial.bundle.path().join("b"), &trial.data, wanted);
    let lists = anyo_distill::TeacherLists::new(&bundle.unwrap(), &trial.data, &trial.distill).unwrap();
    let index = TargetIndex::new(&trial.data.train);
    let of = |number: usize| {
        let Some(list) = lists.get(number as u32) else { return 0 };
        let scores = student.score(&Batch { users: &[0], histories: &[index.history(number)] }).unwrap();
        let scores = Vec::<f32>::try_from(scores.view([-1])).unwrap();
        let above = |item: u32| scores.iter().filter(|&&s| s > scores[item as usize]).count();
        list.items.iter().enumerate().fold(0, |bits, (i, &item)| bits | i64::from(above(item) < 10) << i)
    };
    (0..index.len()).map(of).collect()
}

#[test]
fn every_target_is_looked_at_in_its_turn() {
    let name = format!("{EXTRA_PREFIX}overlap");
    let changes = [
        ("rows", json!("last_position")),
        ("optim.lr", json!(1e-30)),
        ("loss.name", json!("sampled_softmax")),
        ("seen_bias", json!(true)),
    ];
    for epochs in 1..=3 {
        let config = distill("dllm2rec", &[("consistency.every", json!(3)), ("embedding.name", json!("none"))]);
        let mut trial = Trial::new(student("sasrec", &changes), config);
        trial.train.epochs = epochs;
        let mut student = trial.new_student();
        let _ = no_grad(|| student.network.head().seen_bias.unwrap().fill_(0.3));
        let mut guest = trial.guest(&mut student);
        trial.fit_guest(&student, Some(&mut guest), None, false, &mut Recorder::default()).unwrap();
        let found = Vec::<i64>::try_from(student.params.get(&name).unwrap()).unwrap();
        let mut wanted = overlap(&student, &trial);
        assert!(wanted.iter().filter(|&&bits| bits != 0).count() > wanted.len() / 2);
        wanted.iter_mut().enumerate().filter(|(n, _)| *n as u64 % 3 >= epochs).for_each(|(_, bits)| *bits = 0);
        assert_eq!(found, wanted, "after {epochs} epochs");
    }
}

#[test]
fn turns_cost_nothing_where_the_loss_scores_the_catalogue_anyway() {
    let changes = [("loss.dros_alpha", json!(0.5))];
    let of = |every: u64| {
        let distill = distill("dllm2rec", &[("consistency.every", json!(every))]);
        trained(&Trial::new(student("sasrec_dllm2rec", &changes), distill))
    };
    assert!(of(1) == of(5));
}

/// Last weights, the file of the best ones, figures.
type Left = (BTreeMap<String, Vec<u32>>, Vec<u8>, Vec<(u64, String, u64)>);

fn left(student: &Student, folder: &Path, watch: &Recorder) -> Left {
    (bits(student), fs::read(folder.join("models").join(BEST_FILE)).unwrap(), watch.scalars.clone())
}

#[test]
fn an_interrupted_distillation_continues_bit_for_bit() {
    let every = [("consistency.every", json!(2)), ("embedding.side", json!("both"))];
    let none: &[(&str, Value)] = &[];
    for (name, config, changes) in
        [("sasrec_dllm2rec", "dllm2rec", &every[..]), ("sasrec", "listwise", none), ("gru4rec", "hint", none)]
    {
        let student = student(name, &[("dropout", json!(0.2)), ("loss.dros_alpha", json!(0.5))]);
        let mut trial = Trial::new(student, distill(config, changes));
        (trial.train.accumulation, trial.train.log_every) = (2, 3);
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Recorder::default();
        let (student, fitted) = trial.fit(Some(folder.path()), false, &mut watch);
        let steps = fitted.unwrap().steps;
        let whole = left(&student, folder.path(), &watch);
        for stop in [1, steps / 3, steps / 3 + 1, steps / 2, steps - 1] {
            let folder = tempfile::tempdir().unwrap();
            let mut watch = Recorder { stop_at: Some(stop), ..Recorder::default() };
            let error = trial.fit(Some(folder.path()), false, &mut watch).1.unwrap_err();
            assert!(matches!(error, Error::Interrupted { .. }), "{error}");
            watch.stop_at = None;
            let (student, fitted) = trial.fit(Some(folder.path()), true, &mut watch);
            fitted.unwrap();
            let now = left(&student, folder.path(), &watch);
            assert!(now.0 == whole.0 && now.1 == whole.1, "{name} {config}: weights differ, stopped after {stop}");
            assert!(now.2 == whole.2, "{name} {config}: figures differ, stopped after {stop}");
        }
    }
}

#[test]
fn lists_are_cut_cleaned_and_counted() {
    let data = dataset(&[vec![1, 2, 3, 4], vec![5, 6]], 12, false);
    let row = |items: &[u32]| Some((items.to_vec(), (0..items.len()).map(|d| d as f32).collect(), Some((2, 1.0))));
    let folder = tempfile::tempdir().unwrap();
    let rows = [row(&[1, 9, 2, 8]), row(&[2, 1, 3, 7]), None, row(&[5])];
    support::write_bundle(&folder.path().join("b"), &data, 4, &rows, None);
    let wanted = anyo_core::bundle::Wanted { rankings: true, embeddings: false };
    let bundle = anyo_core::bundle::Bundle::open_for_training(&folder.path().join("b"), &data, wanted).unwrap();
    let of = |changes: &[(&str, Value)]| {
        let config = distill("dllm2rec", &[&[("top_k", json!(2))], changes].concat());
        anyo_distill::TeacherLists::new(&bundle, &data, &config)
    };
    let lists = of(&[]).unwrap();
    // Target 0 is item 2 after [1]: 1 goes. Target 1 is item 3 after [1, 2]. Target 3's only item is its history.
    assert_eq!(lists.get(0).unwrap().items, [9, 2]);
    assert_eq!(lists.get(1).unwrap().items, [3, 7]);
    assert!(lists.get(2).is_none() && lists.get(3).is_none() && lists.get(99).is_none());
    assert_eq!((lists.n_labelled(), lists.n_targets(), lists.n_dropped()), (2, 4, 4));
    let kept = of(&[("keep_history", json!(true))]).unwrap();
    assert_eq!((kept.get(1).unwrap().items, kept.n_labelled()), (&[2, 1][..], 3));
    let error = of(&[("top_k", json!(5))]).unwrap_err();
    assert!(error.to_string().contains("distill.top_k: 5, but the bundle's lists have 4 items"), "{error}");
}

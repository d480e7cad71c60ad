//! Training learns, weighs its losses the same however a step is cut, and counts what it leaves out.

use std::cell::Cell;

use anyo_core::{Batch, Recommender};
use anyo_lm::CausalLm;
use anyo_teacher::{
    GateMode, PromptMode, PromptSource, RankSettings, Ranker, Sequence, Teacher, TeacherSetup,
    config::{Curriculum, GateName},
    fit_teacher, row_key,
};
use tch::{Device, Kind, no_grad};

use super::made_up::{
    Prompts, Recorder, bits, candidates, config, dataset, encoder, eval_config, fit, gate, lm_config, setup, teacher,
    teacher_on,
};

/// Eight rows whose targets follow from nothing but the history as a whole.
fn eight() -> Vec<(Vec<u32>, u32)> {
    (0..8u32).map(|i| ((0..3).map(|j| (i * 3 + j * 5) % 24).collect(), (i * 7 + 2) % 24)).collect()
}

/// Share of rows whose target is the likeliest of 20 candidates.
fn choice_accuracy(teacher: &Teacher, rows: &[(Vec<u32>, u32)]) -> f64 {
    let (encoder, prompts) = (encoder(), Prompts::new());
    let mut right = 0;
    for (history, target) in rows {
        let list = candidates(9, 5, history, *target).unwrap();
        let prompt = prompts.choice(history, &list, 0, PromptMode::Hybrid).unwrap();
        let states = encoder.states(&[history], &mut |_| Ok(())).unwrap();
        let gate = no_grad(|| teacher.gate(&states, &[row_key(history)], GateMode::Eval)).unwrap();
        let gate = gate.map(|g| g.expand([list.len() as i64, -1], false).contiguous());
        let answers: Vec<Sequence<'_>> =
            list.iter().map(|&item| Sequence { prompt: &prompt, answer: prompts.answer(item) }).collect();
        let found = teacher.log_likelihoods(&answers, gate.as_ref()).unwrap();
        let best = (0..list.len()).max_by(|&a, &b| found[a].total_cmp(&found[b])).unwrap();
        right += usize::from(list[best] == *target);
    }
    right as f64 / rows.len() as f64
}

fn worst_rank(teacher: &Teacher, rows: &[(Vec<u32>, u32)]) -> i64 {
    let (encoder, prompts) = (encoder(), Prompts::new());
    let settings = RankSettings { template: 0, mode: PromptMode::Hybrid, batch: 8 };
    let ranker = Ranker::new(teacher, &encoder, &prompts, settings).unwrap();
    let histories: Vec<&[u32]> = rows.iter().map(|(h, _)| h.as_slice()).collect();
    let scores = ranker.score(&Batch { users: &[0; 8], histories: &histories }).unwrap();
    let ranks = rows.iter().zip(0i64..).map(|((_, target), row)| {
        let own = scores.get(row);
        own.ge_tensor(&own.get(i64::from(*target))).sum(tch::Kind::Int64).int64_value(&[])
    });
    ranks.max().unwrap()
}

#[test]
fn eight_rows_are_learned_by_heart() {
    let rows = eight();
    let sequences: Vec<Vec<u32>> =
        rows.iter().map(|(history, target)| history.iter().copied().chain([*target]).collect()).collect();
    let data = dataset(&sequences, 3);
    for name in [GateName::Linear, GateName::Resnet1d] {
        let mut config = config();
        config.gate = Some(gate(name));
        (config.train.batch_size, config.train.epochs, config.train.valid_every) = (8, 260, 0);
        (config.train.log_every, config.train.optim.lr) = (10, 1e-2);
        let mut watch = Recorder::default();
        let before = teacher(&config, &encoder());
        let (start, start_rank) = (choice_accuracy(&before, &rows), worst_rank(&before, &rows));
        let (trained, fitted) = fit(&config, &data, None, false, &mut watch);
        let fitted = fitted.unwrap();
        assert_eq!((fitted.steps, fitted.train_rows, fitted.rows), (260, 8, 260 * 8));
        let (accuracy, rank) = (choice_accuracy(&trained, &rows), worst_rank(&trained, &rows));
        let losses = watch.values("train/lm_loss");
        eprintln!(
            "{name:?}: choice {start} -> {accuracy}, worst rank {start_rank} -> {rank}, lm loss {:.2} -> {:.4}, hybrid {:.2}",
            losses[0],
            losses[losses.len() - 1],
            fitted.hybrid_share
        );
        assert!(start < 0.5 && start_rank > 1, "nothing to learn: {start} {start_rank}");
        assert_eq!((accuracy, rank), (1.0, 1), "{name:?}");
        assert!((fitted.hybrid_share - 0.5).abs() < 0.15 && (fitted.choice_share - 0.5).abs() < 0.15, "{fitted:?}");
        assert!(fitted.lm_seconds > 0.0 && fitted.lm_seconds <= fitted.seconds && fitted.tokens > 0);
        for name in
            ["gate/entropy", "gate/usage_3", "train/rows_per_second", "train/tokens_per_second", "train/lm_time_share"]
        {
            assert!(!watch.values(name).is_empty(), "{name}");
        }
    }
}

fn several() -> Vec<Vec<u32>> {
    (0..6u32).map(|u| (0..4 + u % 4).map(|i| (u * 5 + i * 7) % 24).collect()).collect()
}

/// Weights after three steps: they depend on the gradient, which must not depend on the cut.
fn after_three_steps(
    batch_size: usize,
    accumulation: usize,
    checkpointing: bool,
    choice_share: f64,
) -> Vec<(String, Vec<u32>)> {
    let mut config = config();
    (config.train.batch_size, config.train.accumulation) = (batch_size, accumulation);
    (config.train.checkpointing, config.train.choice_share) = (checkpointing, choice_share);
    // From the second step on the gate has gradients too, since B is no longer 0.
    (config.train.max_steps, config.train.curriculum) = (Some(3), Curriculum::AlwaysHybrid);
    config.train.optim.warmup = 0.0;
    config.gate.as_mut().unwrap().load_balance = 0.1;
    let (teacher, fitted) = fit(&config, &dataset(&several(), 1), None, false, &mut Recorder::default());
    assert_eq!(fitted.unwrap().steps, 3);
    bits(&teacher).into_iter().collect()
}

fn largest_difference(a: &[(String, Vec<u32>)], b: &[(String, Vec<u32>)]) -> f32 {
    let of = |(a, b): (&u32, &u32)| (f32::from_bits(*a) - f32::from_bits(*b)).abs();
    a.iter().zip(b).flat_map(|((_, a), (_, b))| a.iter().zip(b).map(of).collect::<Vec<_>>()).fold(0.0, f32::max)
}

#[test]
fn recomputed_layers_give_the_same_step() {
    for choice_share in [0.0, 1.0] {
        let plain = after_three_steps(4, 2, false, choice_share);
        let recomputed = after_three_steps(4, 2, true, choice_share);
        let off = largest_difference(&plain, &recomputed);
        eprintln!("choice share {choice_share}: {off:.1e}");
        // Adam's first step moves by lr whatever the gradient's size, so tiny gradients may flip by rounding.
        assert!(off < 3e-2, "{off}");
        let same = plain.iter().zip(&recomputed).flat_map(|((_, a), (_, b))| a.iter().zip(b));
        let (mut n, mut near) = (0, 0);
        for (a, b) in same {
            n += 1;
            near += usize::from((f32::from_bits(*a) - f32::from_bits(*b)).abs() < 1e-4);
        }
        assert!(near * 1000 >= n * 999, "{near} of {n}");
    }
}

/// The loss of a step is that of its rows, whatever its micro-batches.
#[test]
fn accumulation_weighs_tokens_and_rows() {
    let first_loss = |batch_size: usize, accumulation: usize| {
        let mut config = config();
        (config.train.batch_size, config.train.accumulation, config.train.sort_chunk) = (batch_size, accumulation, 1);
        (config.train.choice_share, config.train.max_steps) = (0.0, Some(1));
        (config.train.curriculum, config.train.optim.warmup) = (Curriculum::AlwaysHybrid, 0.0);
        let prompts = OneTemplate(Prompts::new());
        let (encoder, eval, data) = (encoder(), eval_config(), dataset(&several(), 1));
        let teacher = teacher(&config, &encoder);
        let mut watch = Recorder::default();
        let setup = setup(&config, &data, &encoder, &prompts, &eval);
        fit_teacher(&setup, &teacher, &mut watch).unwrap();
        (watch.values("train/loss")[0], watch.values("train/grad_norm")[0])
    };
    let whole = first_loss(8, 1);
    for (batch_size, accumulation) in [(4, 2), (2, 4), (1, 8), (3, 3)] {
        let cut = first_loss(batch_size, accumulation);
        let same = if batch_size * accumulation == 8 { (whole, cut) } else { (first_loss(9, 1), cut) };
        let (a, b) = same;
        assert!(
            (a.0 - b.0).abs() < 1e-5 && (a.1 - b.1).abs() < 1e-4 * a.1,
            "{batch_size} x {accumulation}: {a:?} {b:?}"
        );
    }
}

/// One wording for all rows, so that a row's prompt does not depend on its micro-batch.
struct OneTemplate(Prompts);

impl PromptSource for OneTemplate {
    fn n_templates(&self) -> usize {
        1
    }

    fn choice(&self, h: &[u32], c: &[u32], t: usize, m: PromptMode) -> anyo_core::Result<anyo_teacher::Prompted> {
        self.0.choice(h, c, t, m)
    }

    fn open(&self, h: &[u32], t: usize, m: PromptMode) -> anyo_core::Result<anyo_teacher::Prompted> {
        self.0.open(h, t, m)
    }

    fn answer(&self, item: u32) -> &[i64] {
        self.0.answer(item)
    }

    fn banned(&self) -> &[u32] {
        self.0.banned()
    }
}

#[test]
fn what_is_left_out_is_counted_and_bad_setups_are_refused() {
    let data = dataset(&several(), 1);
    let mut config = config();
    (config.train.min_history, config.train.max_rows, config.train.max_steps) = (3, 8, Some(2));
    let mut watch = Recorder::default();
    let (_, fitted) = fit(&config, &data, None, false, &mut watch);
    let fitted = fitted.unwrap();
    // Lengths 4 5 6 7 4 5: 25 targets, of which 2 in each sequence have less than three items before them.
    assert_eq!((fitted.train_rows, fitted.too_short, fitted.not_drawn), (8, 12, 5));
    assert!(watch.notes[0].contains("8 training rows; left out: 12 with less than 3"), "{:?}", watch.notes);
    config.train.min_history = 50;
    let error = fit(&config, &data, None, false, &mut watch).1.unwrap_err();
    assert!(error.to_string().contains("no training target has 50 items of history"), "{error}");
    config.train.min_history = 1;
    config.train.metric = "ndgc@10".into();
    let error = fit(&config, &data, None, false, &mut watch).1.unwrap_err();
    assert!(error.to_string().contains("no metric `ndgc@10`") && error.hint().unwrap().contains("ndcg@10"), "{error}");
    // Candidates without the target.
    let (encoder, prompts, eval) = (encoder(), Prompts::new(), eval_config());
    config.train.choice_share = 1.0;
    let teacher = teacher(&config, &encoder);
    let without = |_: u64, _: u64, _: &[u32], target: u32| Ok(vec![(target + 1) % 24]);
    let setup = TeacherSetup { candidates: &without, ..setup(&config, &data, &encoder, &prompts, &eval) };
    let error = fit_teacher(&setup, &teacher, &mut watch).unwrap_err();
    assert!(error.to_string().contains("miss its target"), "{error}");
}

#[test]
fn nothing_to_train_leaves_the_model_alone() {
    let mut config = config();
    (config.lora, config.gate, config.head) = (None, None, None);
    (config.injection, config.train_tokens, config.train.epochs) = (false, false, 0);
    let (teacher, fitted) = fit(&config, &dataset(&several(), 1), None, false, &mut Recorder::default());
    assert_eq!(fitted.unwrap().steps, 0);
    assert_eq!(teacher.params().trainable().count(), 0);
    config.train.epochs = 1;
    config.train.curriculum = Curriculum::AlwaysText;
    let error = fit(&config, &dataset(&several(), 1), None, false, &mut Recorder::default()).1.unwrap_err();
    assert!(error.to_string().contains("nothing to train"), "{error}");
}

/// A bfloat16 language model under f32 adapters, plain and recomputed, beside the same one in f32.
#[test]
fn half_precision_learns_too() {
    let sequences: Vec<Vec<u32>> =
        eight().into_iter().map(|(h, target)| h.into_iter().chain([target]).collect()).collect();
    let data = dataset(&sequences, 3);
    let mut first = Vec::new();
    for (kind, checkpointing) in [(Kind::Float, false), (Kind::BFloat16, false), (Kind::BFloat16, true)] {
        let mut config = config();
        (config.train.checkpointing, config.train.epochs, config.train.optim.lr) = (checkpointing, 260, 1e-2);
        (config.train.batch_size, config.train.valid_every) = (8, 100);
        config.train.metric = "hr@1".into();
        let (encoder, prompts, eval) = (encoder(), Prompts::new(), eval_config());
        let lm = CausalLm::random(lm_config(40, 32, 2, false), Device::Cpu, kind, 5).unwrap();
        let teacher = teacher_on(lm, &config, &encoder, 3);
        // A validation of one's own, which prefers the second of its calls.
        let calls = Cell::new(0);
        let validate = |_: &Teacher| {
            calls.set(calls.get() + 1);
            Ok(vec![("hr@1".to_owned(), if calls.get() == 2 { 0.9 } else { 0.1 })])
        };
        let mut watch = Recorder::default();
        let setup = TeacherSetup { validate: Some(&validate), ..setup(&config, &data, &encoder, &prompts, &eval) };
        let fitted = fit_teacher(&setup, &teacher, &mut watch).unwrap();
        assert_eq!((fitted.best_step, fitted.best, calls.get()), (200, Some(0.9), 3));
        assert_eq!(watch.values("valid/hr@1").len(), 3);
        let losses = watch.values("train/head_loss");
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let (start, end) = (mean(&losses[..5]), mean(&losses[losses.len() - 5..]));
        eprintln!("{kind:?}, recomputed {checkpointing}: head loss {start:.4} -> {end:.4}");
        assert!(end < 0.5 * start, "{start} {end}");
        first.push(start);
    }
    assert!(first.iter().all(|start| (start - first[0]).abs() < 0.02 * first[0]), "{first:?}");
}

//! Made-up data, configurations and a watch that records and stops.

use std::{collections::BTreeMap, path::Path};

use anyo_core::{
    Error, Result,
    data::{Dataset, Item, Rows},
    eval::EvalConfig,
};
use anyo_student::{
    CheckpointConfig, Fitted, Progress, Setup, Student, TrainConfig, Watch,
    config::{LossName, StudentConfig},
    fit,
};
use serde_json::{Value, json};
use tch::{Device, Tensor};

use crate::support::{loss_config, neural};

/// A data set of training sequences; the last two items of each become validation and test when `held_out`.
pub(crate) fn dataset(sequences: &[Vec<u32>], n_items: usize, held_out: bool) -> Dataset {
    let (mut train, mut valid, mut test) = (Rows::new(), Rows::new(), Rows::new());
    for (user, items) in (0u32..).zip(sequences) {
        let end = if held_out { items.len() - 2 } else { items.len() };
        train.push(user, items[..end].iter().copied(), 1);
        let last = |n: usize| (&items[..n - 1], items[n - 1]);
        let (history, target) = last(if held_out { items.len() - 1 } else { items.len() });
        valid.push_eval(user, history, target);
        let (history, target) = last(items.len());
        test.push_eval(user, history, target);
    }
    let train_order: Vec<u32> = (0..train.len()).flat_map(|row| train.items(row).to_vec()).collect();
    let mut train_counts = vec![0; n_items];
    train_order.iter().for_each(|&item| train_counts[item as usize] += 1);
    let item = |i: usize| Item { id: i.to_string(), title: format!("item {i}"), text: String::new() };
    Dataset {
        name: "made_up".into(),
        items: (0..n_items).map(item).collect(),
        users: (0..sequences.len()).map(|u| u.to_string()).collect(),
        train,
        valid,
        test,
        train_counts,
        train_order,
        hash: "d".repeat(64),
        items_hash: "1".repeat(64),
        provenance: Value::Null,
        protocol: "made up".into(),
    }
}

/// 30 users of 5 to 15 items out of 40; the next item follows from the last one but for every fourth.
pub(crate) fn thirty() -> Dataset {
    let mut state = 7u32;
    let mut draw = |n: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % n
    };
    let sequence = |draw: &mut dyn FnMut(u32) -> u32| {
        let mut items = vec![draw(40)];
        for _ in 0..4 + draw(11) {
            let last = items[items.len() - 1];
            items.push(if draw(4) == 0 { draw(40) } else { (last * 3 + 1) % 40 });
        }
        items
    };
    let sequences: Vec<Vec<u32>> = (0..30).map(|_| sequence(&mut draw)).collect();
    dataset(&sequences, 40, true)
}

/// 8 users whose sequences begin with an item of their own, so that every next item is determined.
pub(crate) fn eight() -> Dataset {
    let sequence = |user: u32| {
        // Steps of 3, 5, 7 through items 8..24, which never meet themselves within five.
        let step = [3, 5, 7][user as usize % 3];
        std::iter::once(user).chain((0..5).map(|i| 8 + (user * 5 + i * step) % 16)).collect()
    };
    dataset(&(0..8).map(sequence).collect::<Vec<Vec<u32>>>(), 24, false)
}

pub(crate) fn train_config() -> TrainConfig {
    TrainConfig {
        batch_size: 8,
        accumulation: 1,
        epochs: 4,
        bucket: true,
        valid_every: 1,
        metric: "ndcg@10".into(),
        patience: 0,
        valid_rows: 0,
        log_every: 1,
        checkpoint: CheckpointConfig { every_steps: 0, every_minutes: 0.0, keep: 2 },
    }
}

pub(crate) fn eval_config() -> EvalConfig {
    EvalConfig {
        ks: vec![1, 10],
        exclude_history: false,
        report_both: false,
        batch_size: 256,
        bootstrap: 0,
        confidence: 0.95,
        per_user: false,
        popularity_buckets: vec![],
        length_buckets: vec![],
    }
}

/// The students under test: the classic and the modern SASRec, and the three small models.
pub(crate) fn students() -> Vec<(&'static str, &'static str, Vec<(&'static str, Value)>)> {
    let modern = vec![
        ("norm", "pre".into()),
        ("ffn", "swiglu".into()),
        ("ffn_ratio", 2.0.into()),
        ("n_heads", 2.into()),
        ("scale_embeddings", false.into()),
        ("init", "normal002".into()),
    ];
    vec![
        ("sasrec classic", "sasrec", vec![]),
        ("sasrec modern", "sasrec", modern),
        ("sasrec_dllm2rec", "sasrec_dllm2rec", vec![]),
        ("gru4rec", "gru4rec", vec![]),
        ("caser", "caser", vec![]),
    ]
}

pub(crate) fn optim(lr: f64, schedule: &str, warmup_steps: u64) -> Value {
    json!({
        "name": "adamw", "lr": lr, "betas": [0.9, 0.98], "eps": 1e-8, "weight_decay": 0.01, "clip_norm": 5.0,
        "schedule": {"name": schedule, "warmup_steps": warmup_steps, "total_steps": null, "floor": 0.0},
    })
}

pub(crate) fn loss(name: LossName, n_negatives: usize) -> Value {
    let mut config = serde_json::to_value(loss_config(name)).unwrap();
    config["n_negatives"] = n_negatives.into();
    config
}

/// A small classic SASRec with dropout everywhere.
pub(crate) fn sasrec(changes: &[(&str, Value)]) -> StudentConfig {
    let mut all =
        vec![("dropout", json!(0.2)), ("attention_dropout", json!(0.2)), ("optim", optim(1e-2, "constant", 0))];
    all.extend(changes.iter().cloned());
    neural("sasrec", &all)
}

/// Keeps all that the loop says, and asks it to stop or fails at a step.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) scalars: Vec<(u64, String, u64)>,
    pub(crate) notes: Vec<String>,
    /// Ask for a stop once so many steps are done.
    pub(crate) stop_at: Option<u64>,
    /// Die without a further word at this step, as a killed process does.
    pub(crate) die_at: Option<u64>,
    pub(crate) done: u64,
}

impl Recorder {
    pub(crate) fn values(&self, name: &str) -> Vec<f64> {
        self.scalars.iter().filter(|(_, n, _)| n == name).map(|(_, _, bits)| f64::from_bits(*bits)).collect()
    }
}

impl Watch for Recorder {
    fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        if self.die_at.is_some_and(|at| step >= at) {
            return Err(Error::invalid("killed"));
        }
        self.scalars.extend(values.iter().map(|(name, value)| (step, (*name).to_owned(), value.to_bits())));
        Ok(())
    }

    fn note(&mut self, message: &str) {
        self.notes.push(message.to_owned());
    }

    fn progress(&mut self, progress: &Progress<'_>) {
        self.done = (progress.epoch - 1) * progress.steps + progress.step;
    }

    fn rewind(&mut self, step: u64) -> Result<()> {
        self.scalars.retain(|(at, _, _)| *at <= step);
        Ok(())
    }

    fn stop_requested(&self) -> bool {
        self.stop_at.is_some_and(|at| self.done >= at)
    }
}

/// All that one call of [`fit`] needs.
pub(crate) struct Trial {
    pub(crate) student: StudentConfig,
    pub(crate) train: TrainConfig,
    pub(crate) data: Dataset,
    pub(crate) seed: u64,
}

impl Trial {
    pub(crate) fn new(student: StudentConfig, data: Dataset) -> Self {
        Self { student, train: train_config(), data, seed: 3 }
    }

    /// Trains a student with new weights.
    pub(crate) fn fit(&self, folder: Option<&Path>, resume: bool, watch: &mut Recorder) -> (Student, Result<Fitted>) {
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder.join("models")).unwrap();
        }
        let student = Student::new(&self.student, self.data.n_items(), Device::Cpu, self.seed).unwrap();
        let eval = eval_config();
        let setup = Setup {
            student: &self.student,
            train: &self.train,
            eval: &eval,
            dataset: &self.data,
            seed: self.seed,
            folder,
            resume,
        };
        let fitted = fit(&setup, &student, watch);
        (student, fitted)
    }

    /// Weights after an undisturbed training without a folder.
    pub(crate) fn weights(&self) -> BTreeMap<String, Vec<u32>> {
        let (student, fitted) = self.fit(None, false, &mut Recorder::default());
        fitted.unwrap();
        bits(&student)
    }
}

/// The bits of all parameters.
pub(crate) fn bits(student: &Student) -> BTreeMap<String, Vec<u32>> {
    let of = |tensor: &Tensor| {
        let values = Vec::<f32>::try_from(tensor.detach().view([-1])).unwrap();
        values.into_iter().map(f32::to_bits).collect()
    };
    student.params.named().map(|(name, tensor)| (name.to_owned(), of(tensor))).collect()
}

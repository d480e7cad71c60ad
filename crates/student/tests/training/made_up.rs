//! Made-up data, configurations and a watch that records and stops.

use std::{collections::BTreeMap, path::Path};

use anyo_core::{Result, data::Dataset};
use anyo_student::{
    Fitted, Setup, Student, TrainConfig,
    config::{LossName, StudentConfig},
    fit,
};
use serde_json::{Value, json};
use tch::Device;

use crate::support::student::{bits as bits_of, loss_config, neural};
pub(crate) use crate::support::{
    data::{dataset, eval_config, thirty, train_config},
    watch::Recorder,
};

/// 8 users whose sequences begin with an item of their own, so that every next item is determined.
pub(crate) fn eight() -> Dataset {
    let sequence = |user: u32| {
        // Steps of 3, 5, 7 through items 8..24, which never meet themselves within five.
        let step = [3, 5, 7][user as usize % 3];
        std::iter::once(user).chain((0..5).map(|i| 8 + (user * 5 + i * step) % 16)).collect()
    };
    dataset(&(0..8).map(sequence).collect::<Vec<Vec<u32>>>(), 24, false)
}

/// Label, `name` of the configuration, and what differs from [`neural`]'s.
pub(crate) type Named = (&'static str, &'static str, Vec<(&'static str, Value)>);

/// The students under test: the classic and the modern SASRec, and the three small models.
pub(crate) fn students() -> Vec<Named> {
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
    bits_of(&student.params)
}

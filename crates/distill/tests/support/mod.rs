//! Made-up data, bundles and configurations for the tests of distillation.

#![allow(dead_code, reason = "each test file uses a part")]

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyo_core::{
    Error, Result,
    bundle::{Bundle, BundleWriter, DatasetIdentity, Distance, Flush, Lists, Opened, Position, Spec, Teacher, Wanted},
    data::{Dataset, Item, Rows, TargetIndex},
    eval::EvalConfig,
};
use anyo_distill::{DistillConfig, Distillation, TeacherLists};
use anyo_student::{
    CheckpointConfig, Extra, Fitted, Progress, Setup, Student, TrainConfig, Watch, config::StudentConfig, fit_with,
};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

/// A data set of training sequences; the last two items of each become validation and test when `held_out`.
pub(crate) fn dataset(sequences: &[Vec<u32>], n_items: usize, held_out: bool) -> Dataset {
    let (mut train, mut valid, mut test) = (Rows::new(), Rows::new(), Rows::new());
    for (user, items) in (0u32..).zip(sequences) {
        let end = if held_out { items.len() - 2 } else { items.len() };
        train.push(user, items[..end].iter().copied(), 1);
        let end = if held_out { items.len() - 1 } else { items.len() };
        valid.push_eval(user, &items[..end - 1], items[end - 1]);
        test.push_eval(user, &items[..items.len() - 1], items[items.len() - 1]);
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
    let mut draw = numbers(7);
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

/// Numbers below their argument.
pub(crate) fn numbers(mut state: u32) -> impl FnMut(u32) -> u32 {
    move |n| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % n
    }
}

/// Lists of a bundle by target: items, distances, rank and distance of the target.
pub(crate) type Row = (Vec<u32>, Vec<f32>, Option<(u32, f32)>);

/// Writes a bundle with these lists (`None`: no list) and vectors into `folder`.
pub(crate) fn write_bundle(
    folder: &Path,
    dataset: &Dataset,
    top_n: usize,
    rows: &[Option<Row>],
    vectors: Option<&Tensor>,
) {
    let spec = Spec {
        dataset: DatasetIdentity::of(dataset, Position::Train),
        position: Position::Train,
        top_n,
        exclude_history: false,
        target_may_appear: true,
        confidence: Distance::ScoreGap.confidence(),
        teacher: Teacher { name: "made_up".into(), config: Value::Null },
        selection: if rows.iter().all(Option::is_some) { Value::Null } else { json!({"how": "some"}) },
    };
    let flush = Flush { rows: usize::MAX, time: Duration::MAX };
    let Opened::Writer(mut writer) = BundleWriter::open(folder, &spec, flush).unwrap() else { panic!() };
    let mut lists = Lists::new(top_n);
    for (number, row) in (0u32..).zip(rows) {
        if let Some((items, distances, truth)) = row {
            lists.push(number, items, distances, *truth);
        }
    }
    writer.push(&lists).unwrap();
    writer.finish(vectors, dataset).unwrap();
}

/// A teacher that knows the rule of [`thirty`] half of the time: lists of `k` items; every `gap`-th target has none.
pub(crate) fn teach(folder: &Path, dataset: &Dataset, k: usize, gap: usize) {
    let index = TargetIndex::new(&dataset.train);
    let n_items = dataset.n_items() as u32;
    let mut draw = numbers(3);
    let row = |number: usize| {
        let last = *index.history(number).last().unwrap();
        let mut items = vec![(last * 3 + 1) % n_items];
        while items.len() < k {
            let item = draw(n_items);
            if !items.contains(&item) {
                items.push(item);
            }
        }
        let swap = draw(k as u32) as usize;
        items.swap(0, swap);
        let distances: Vec<f32> = (0..k).map(|i| i as f32 * 0.7 + draw(10) as f32 * 0.05).collect();
        let target = index.target(number).unwrap();
        let rank = items.iter().position(|&i| i == target).map_or(k as u32 + draw(9) + 1, |place| place as u32 + 1);
        (items, distances, Some((rank, rank as f32 * 0.7)))
    };
    let mut row = row;
    let rows: Vec<Option<Row>> =
        (0..index.len()).map(|number| Some(row(number)).filter(|_| gap == 0 || number % gap != 0)).collect();
    write_bundle(folder, dataset, k, &rows, Some(&vectors(dataset.n_items(), 6)));
}

/// Item vectors `[n, t]`.
pub(crate) fn vectors(n: usize, t: usize) -> Tensor {
    let mut draw = numbers(11);
    let values: Vec<f32> = (0..n * t).map(|_| draw(2001) as f32 / 1000.0 - 1.0).collect();
    Tensor::from_slice(&values).view([n as i64, t as i64])
}

/// The shipped `distill=NAME` with changes at dotted keys.
pub(crate) fn distill(name: &str, changes: &[(&str, Value)]) -> DistillConfig {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../conf/distill/{name}.yaml"));
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(path, folder.path().join("config.yaml")).unwrap();
    let config: DistillConfig = anyo_core::config::load_saved(folder.path()).unwrap();
    let mut tree = serde_json::to_value(config).unwrap();
    for (key, value) in changes {
        let pointer = format!("/{}", key.replace('.', "/"));
        *tree.pointer_mut(&pointer).unwrap_or_else(|| panic!("{key}")) = value.clone();
    }
    serde_json::from_value(tree).unwrap()
}

/// A small student without dropout; `changes` replace keys.
pub(crate) fn student(name: &str, changes: &[(&str, Value)]) -> StudentConfig {
    let mut config = json!({
        "name": name, "max_len": 10, "d_model": 16, "dropout": 0.0, "rows": "last_position",
        "loss": {
            "name": "bce", "n_negatives": 1, "negatives": "uniform", "logq": "negatives", "gbce_t": 0.75,
            "temperature": 1.0, "dros_alpha": 0.0, "dros_beta": 1.0,
        },
        "optim": {
            "name": "adam", "lr": 1e-2, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "clip_norm": null,
            "schedule": {"name": "constant", "warmup_steps": 0, "total_steps": null, "floor": 0.0},
        },
    });
    if name == "sasrec" {
        for (key, value) in [
            ("n_blocks", json!(2)),
            ("n_heads", json!(1)),
            ("attention_dropout", json!(0.0)),
            ("norm", json!("query")),
            ("ffn", json!("relu")),
            ("ffn_ratio", json!(1.0)),
            ("scale_embeddings", json!(true)),
            ("seen_bias", json!(false)),
            ("norm_eps", json!(1e-8)),
            ("init", json!("xavier_normal")),
            ("rows", json!("every_position")),
        ] {
            config[key] = value;
        }
    }
    for (key, value) in changes {
        let pointer = format!("/{}", key.replace('.', "/"));
        *config.pointer_mut(&pointer).unwrap_or_else(|| panic!("{key}")) = value.clone();
    }
    serde_json::from_value(config).unwrap()
}

pub(crate) const STUDENTS: [&str; 4] = ["sasrec", "sasrec_dllm2rec", "gru4rec", "caser"];

pub(crate) fn train_config() -> TrainConfig {
    TrainConfig {
        batch_size: 8,
        accumulation: 1,
        epochs: 3,
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

/// Keeps what the loop says, and asks it to stop at a step.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) scalars: Vec<(u64, String, u64)>,
    pub(crate) stop_at: Option<u64>,
    pub(crate) done: u64,
}

impl Recorder {
    pub(crate) fn values(&self, name: &str) -> Vec<f64> {
        self.scalars.iter().filter(|(_, n, _)| n == name).map(|(_, _, bits)| f64::from_bits(*bits)).collect()
    }
}

impl Watch for Recorder {
    fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        self.scalars.extend(values.iter().map(|(name, value)| (step, (*name).to_owned(), value.to_bits())));
        Ok(())
    }
    fn note(&mut self, _: &str) {}
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

/// A training with a teacher.
pub(crate) struct Trial {
    pub(crate) student: StudentConfig,
    pub(crate) distill: DistillConfig,
    pub(crate) train: TrainConfig,
    pub(crate) data: Dataset,
    pub(crate) bundle: tempfile::TempDir,
    pub(crate) seed: u64,
}

impl Trial {
    /// [`thirty`] and its teacher; every seventh target has no list.
    pub(crate) fn new(student: StudentConfig, distill: DistillConfig) -> Self {
        let bundle = tempfile::tempdir().unwrap();
        let data = thirty();
        teach(&bundle.path().join("b"), &data, 10, 7);
        Self { student, distill, train: train_config(), data, bundle, seed: 3 }
    }

    pub(crate) fn new_student(&self) -> Student {
        Student::new(&self.student, self.data.n_items(), Device::Cpu, self.seed).unwrap()
    }

    /// The guest for `student`.
    pub(crate) fn guest(&self, student: &mut Student) -> Distillation<'_> {
        self.guest_with(student, None)
    }

    pub(crate) fn guest_with(
        &self,
        student: &mut Student,
        policy: Option<Box<dyn anyo_core::SelectionPolicy>>,
    ) -> Distillation<'_> {
        let wanted = Wanted { rankings: self.distill.wants_rankings(), embeddings: self.distill.wants_embeddings() };
        let bundle = Bundle::open_for_training(&self.bundle.path().join("b"), &self.data, wanted).unwrap();
        let lists = wanted.rankings.then(|| TeacherLists::new(&bundle, &self.data, &self.distill).unwrap());
        let vectors = wanted.embeddings.then(|| bundle.item_embeddings().unwrap().shallow_clone());
        Distillation::new(&self.distill, &self.data, lists, vectors.as_ref(), policy, student, self.seed).unwrap()
    }

    pub(crate) fn fit_guest(
        &self,
        student: &Student,
        guest: Option<&mut Distillation<'_>>,
        folder: Option<&Path>,
        resume: bool,
        watch: &mut Recorder,
    ) -> Result<Fitted> {
        if let Some(folder) = folder {
            let models = folder.join("models");
            std::fs::create_dir_all(&models).map_err(Error::io(&models, "make the folder"))?;
        }
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
        fit_with(&setup, student, guest.map(|guest| guest as &mut dyn Extra), watch)
    }

    pub(crate) fn fit(&self, folder: Option<&Path>, resume: bool, watch: &mut Recorder) -> (Student, Result<Fitted>) {
        let mut student = self.new_student();
        let mut guest = self.guest(&mut student);
        let fitted = self.fit_guest(&student, Some(&mut guest), folder, resume, watch);
        (student, fitted)
    }
}

/// The bits of all parameters.
pub(crate) fn bits(student: &Student) -> BTreeMap<String, Vec<u32>> {
    let of = |tensor: &Tensor| {
        let values = Vec::<f32>::try_from(tensor.detach().to_kind(Kind::Float).view([-1])).unwrap();
        values.into_iter().map(f32::to_bits).collect()
    };
    student.params.named().map(|(name, tensor)| (name.to_owned(), of(tensor))).collect()
}

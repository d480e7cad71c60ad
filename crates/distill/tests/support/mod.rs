//! Made-up data, bundles and configurations for the tests of distillation.

#![allow(dead_code, reason = "each test file uses a part")]

#[path = "../../../student/tests/support/data.rs"]
mod data;
#[path = "../../../student/tests/support/student.rs"]
mod small;
#[path = "../../../student/tests/support/watch.rs"]
mod watch;

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyo_core::{
    Error, Result,
    bundle::{Bundle, BundleWriter, DatasetIdentity, Distance, Flush, Lists, Opened, Position, Spec, Teacher, Wanted},
    data::{Dataset, TargetIndex},
};
use anyo_distill::{DistillConfig, Distillation, TeacherLists};
use anyo_student::{Extra, Fitted, Setup, Student, TrainConfig, config::StudentConfig, fit_with};
use serde_json::{Value, json};
use tch::{Device, Tensor};

pub(crate) use self::{
    data::{dataset, eval_config, numbers, thirty, train_config},
    watch::Recorder,
};

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

/// A small student without dropout that learns fast; `changes` replace keys.
pub(crate) fn student(name: &str, changes: &[(&str, Value)]) -> StudentConfig {
    small::neural(name, &[&[("optim.lr", json!(1e-2))], changes].concat())
}

/// The bits of all parameters.
pub(crate) fn bits(student: &Student) -> BTreeMap<String, Vec<u32>> {
    small::bits(&student.params)
}

pub(crate) const STUDENTS: [&str; 4] = ["sasrec", "sasrec_dllm2rec", "gru4rec", "caser"];

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
        Self { student, distill, train: TrainConfig { epochs: 3, ..train_config() }, data, bundle, seed: 3 }
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

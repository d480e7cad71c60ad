//! `run-student-baseline`: data, training, evaluation beside the non-neural rows, files of the run.

use std::{collections::BTreeMap, time::Instant};

use anyo_core::{
    Error, Recommender, Result,
    config::{Check, Problem, Ranges},
    data::{self, DataConfig, Dataset, DatasetConfig},
    eval::{Comparison, EvalConfig, Evaluation, evaluate, write_metrics, write_other_ranks, write_per_user},
    run::{Run, RunConfig},
    torch::{DeviceChoice, Dtype, Role},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tch::Device;

use crate::{
    config::StudentConfig,
    extra::{EXTRA_PREFIX, Extra, save_own},
    prepare::Prepare,
    run_watch::RunWatch,
    student::{Student, baseline},
    train::{Fitted, Setup, fit_with},
    train_config::TrainConfig,
};

/// File of a run's final weights inside its folder.
pub const MODEL_FILE: &str = "models/student.safetensors";

/// The whole configuration of `run-student-baseline`; defaults and meanings stand in `conf/run-student-baseline.yaml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaselineRunConfig {
    /// Which data.
    pub dataset: DatasetConfig,
    /// Which student.
    pub student: StudentConfig,
    /// Root of all random streams.
    pub seed: u64,
    /// Where to compute.
    pub device: DeviceChoice,
    /// Number format of the computation.
    pub dtype: Dtype,
    /// CPU threads, 0 for all cores.
    pub threads: usize,
    /// Where data lies.
    pub data: DataConfig,
    /// The training loop.
    pub train: TrainConfig,
    /// The evaluation.
    pub eval: EvalConfig,
    /// Rows beside the student, by name; popularity is always there.
    pub baselines: BTreeMap<String, StudentConfig>,
    /// Where the run writes.
    pub run: RunConfig,
}

impl BaselineRunConfig {
    /// What a training is made of, without a folder.
    pub fn setup<'a>(&'a self, dataset: &'a Dataset) -> Setup<'a> {
        Setup {
            student: &self.student,
            train: &self.train,
            eval: &self.eval,
            dataset,
            seed: self.seed,
            folder: None,
            resume: false,
        }
    }
}

impl Check for BaselineRunConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut list = Ranges::default();
        list.nested("dataset", &self.dataset);
        list.nested("student", &self.student);
        list.nested("data", &self.data);
        list.nested("train", &self.train);
        list.nested("eval", &self.eval);
        if self.dtype != Dtype::Float32 {
            list.push("dtype", "the students compute in float32: their sums are too short for bfloat16 to pay".into());
        }
        for (name, config) in &self.baselines {
            list.nested(&format!("baselines.{name}"), config);
            if config.recipe().is_some() {
                list.push(
                    &format!("baselines.{name}"),
                    format!("`{}` must be trained; give it a run of its own", config.name()),
                );
            }
        }
        let metrics = self.eval.ks.iter().flat_map(|k| ["hr", "recall", "ndcg", "mrr"].map(|m| format!("{m}@{k}")));
        if !metrics.chain(["mrr".into()]).any(|m| m == self.train.metric) {
            list.0.push(Problem {
                key: "train.metric".into(),
                message: format!(
                    "wanted hr, recall, ndcg or mrr at a K of eval.ks {:?}, got {:?}",
                    self.eval.ks, self.train.metric
                ),
                hint: Some(format!("train.metric=ndcg@{}", self.eval.headline_k())),
            });
        }
        list.0
    }
}

/// Runs it all and prints the table.
///
/// # Errors
/// What loading, training, evaluating and writing can meet; each names the file, key or step.
pub fn run_student_baseline(config: &BaselineRunConfig, run: &mut Run) -> Result<()> {
    run_student(config, run, "student_baseline_train_time", &mut |dataset, device, run| {
        let mut student = Student::new(&config.student, dataset.n_items(), device, config.seed)?;
        let fitted = train_student(config, dataset, &mut student, None, run)?;
        Ok(Trained { student, fitted })
    })
}

/// A trained student.
#[derive(Debug)]
pub struct Trained {
    /// With the weights to be ranked.
    pub student: Student,
    /// How it came about.
    pub fitted: Fitted,
}

/// How a student is made of data: with what, where, and into which run.
pub type Train<'a> = dyn FnMut(&Dataset, Device, &mut Run) -> Result<Trained> + 'a;

/// Everything around a training: data, evaluation beside the other rows, files of the run, the table. `train` makes the
/// student where the configuration names one that is trained; its seconds stand in `metrics/time.json` under `time_key`.
///
/// # Errors
/// What loading, training, evaluating and writing can meet; each names the file, key or step.
pub fn run_student(config: &BaselineRunConfig, run: &mut Run, time_key: &str, train: &mut Train<'_>) -> Result<()> {
    let started = Instant::now();
    let prepare = Prepare {
        dataset: &config.dataset,
        data: &config.data,
        device: config.device,
        threads: config.threads,
        eval: &config.eval,
    };
    let (device, dataset) = prepare.run(run, &|_| Vec::new())?;
    let loaded = started.elapsed().as_secs_f64();

    let mut test = Vec::new();
    let (valid, fitted) = match baseline(&config.student, &dataset) {
        Some(model) => {
            let valid = rank(model.as_ref(), &dataset.valid, &dataset, config)?;
            test.push((config.student.name().to_owned(), rank(model.as_ref(), &dataset.test, &dataset, config)?));
            (valid, None)
        }
        None => {
            let Trained { student, fitted } = train(&dataset, device, run)?;
            let valid = rank(&student, &dataset.valid, &dataset, config)?;
            test.push((config.student.name().to_owned(), rank(&student, &dataset.test, &dataset, config)?));
            (valid, Some(fitted))
        }
    };
    for (name, other) in beside(config) {
        if let Some(model) = baseline(&other, &dataset) {
            test.push((name, rank(model.as_ref(), &dataset.test, &dataset, config)?));
        }
    }

    let mut comparison = Comparison::new();
    for (name, evaluation) in test {
        comparison.push(name, evaluation);
    }
    let model = &comparison.rows()[0].1;
    write_metrics(&run.path().join("metrics"), &[("valid", &valid), ("test", model)])?;
    run.write_json("metrics/compare.json", &comparison.to_json())?;
    if config.eval.per_user {
        write_per_user(&run.path().join("metrics/per_user.parquet"), model, &dataset)?;
        write_other_ranks(&run.path().join("metrics/other_ranks.parquet"), &comparison, &dataset)?;
    }
    write_times(run, loaded, fitted.as_ref().map(|fitted| (time_key, fitted)), started)?;
    run.print(&comparison.to_table(table_width()));
    run.print(&format!("run folder: {}", run.path().display()));
    Ok(())
}

/// Trains `student`, with a guest where there is one, and saves its weights as those of the run.
///
/// # Errors
/// What training and writing can meet.
pub fn train_student(
    config: &BaselineRunConfig,
    dataset: &Dataset,
    student: &mut Student,
    extra: Option<&mut dyn Extra>,
    run: &mut Run,
) -> Result<Fitted> {
    let extras = student.params.named().filter(|(name, _)| student.params.role(name) != Some(Role::Buffer));
    let extras: usize = extras.filter(|(name, _)| name.starts_with(EXTRA_PREFIX)).map(|(_, t)| t.numel()).sum();
    let n_parameters = student.params.n_parameters() - extras;
    let more = if extras > 0 { format!(", and {extras} that only training needs") } else { String::new() };
    run.info(&format!("student {}: {n_parameters} parameters{more}", config.student.name()));
    run.record("n_parameters", json!(n_parameters))?;
    let (folder, resume) = (run.path().to_owned(), run.resumed());
    std::fs::create_dir_all(folder.join("models")).map_err(Error::io(folder.join("models"), "make the folder"))?;
    let setup = Setup { folder: Some(&folder), resume, ..config.setup(dataset) };
    let fitted = fit_with(&setup, student, extra, &mut RunWatch::new(run))?;
    let metadata = BTreeMap::from([
        ("student".to_owned(), config.student.name().to_owned()),
        ("items_hash".to_owned(), dataset.items_hash.clone()),
        ("data_hash".to_owned(), dataset.hash.clone()),
    ]);
    save_own(&folder.join(MODEL_FILE), &student.params, &metadata)?;
    Ok(fitted)
}

fn rank(
    model: &dyn Recommender,
    rows: &data::Rows,
    dataset: &Dataset,
    config: &BaselineRunConfig,
) -> Result<Evaluation> {
    evaluate(model, rows, dataset, &config.eval, config.seed)
}

/// The rows beside the student: popularity always, then those of the configuration that are not the student itself.
fn beside(config: &BaselineRunConfig) -> Vec<(String, StudentConfig)> {
    let popularity = StudentConfig::Popularity(crate::baselines::PopularityConfig {});
    let mut rows = vec![("popularity".to_owned(), popularity)];
    rows.extend(config.baselines.iter().map(|(name, config)| (name.clone(), config.clone())));
    rows.retain(|(_, other)| other.name() != config.student.name());
    rows
}

fn write_times(run: &Run, loaded: f64, fitted: Option<(&str, &Fitted)>, started: Instant) -> Result<()> {
    let mut time = json!({
        "load_seconds": loaded,
        "total_seconds": started.elapsed().as_secs_f64(),
        "peak_rss_bytes": anyo_core::memory::peak_rss_bytes(),
    });
    if let Some((key, fitted)) = fitted {
        time[key] = json!(fitted.seconds);
        time["epochs"] = json!(fitted.epochs);
        time["steps"] = json!(fitted.steps);
        time["best_epoch"] = json!(fitted.best_epoch);
        time["stopped_early"] = json!(fitted.stopped_early);
        time["seconds_to_first_step"] = json!(fitted.seconds_to_first_step.map(|s| s + loaded));
    }
    run.write_json("metrics/time.json", &time)
}

/// Columns of the terminal, or 100.
fn table_width() -> usize {
    std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).unwrap_or(100)
}

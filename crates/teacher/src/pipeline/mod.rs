//! `run-teacher`: data, encoder, language model, training, evaluation beside the encoder and popularity, the bundle.

mod assemble;
mod beside;
mod config;
mod encoder;
mod export;
mod language;
mod measure;
mod mix;
mod rankers;

use std::{collections::BTreeMap, time::Instant};

use anyo_core::{
    Error, Result,
    bundle::{BundleSource, Wanted},
    config::Problem,
    data::Dataset,
    run::Run,
};
use anyo_student::{Prepare, RunWatch};
use serde_json::json;
use tch::Device;

pub use self::{
    assemble::assemble,
    config::{
        BuiltinRecipe, ChoiceConfig, EncoderRecipe, FirstRanker, GroundConfig, RankersConfig, RerankConfig,
        TeacherExport, TeacherRunConfig, TeacherWay,
    },
    language::texts as builtin_texts,
};
use crate::{
    candidates::{Candidates, Draw},
    model::Teacher,
    rank::{RankSettings, Ranker},
    train::{SoftTargets, TeacherFitted, TeacherSetup, fit_teacher},
};

/// File of a run's final weights inside its folder.
pub const TEACHER_FILE: &str = "models/teacher.safetensors";

/// Runs it all and prints the tables.
///
/// # Errors
/// What loading, training, evaluating, exporting and writing can meet; each names the file, key, row or step.
pub fn run_teacher(config: &TeacherRunConfig, run: &mut Run) -> Result<()> {
    let started = Instant::now();
    let (device, dataset) = prepare(config, run)?;
    std::fs::create_dir_all(run.path().join("models")).map_err(Error::io(run.path(), "make the folder models"))?;
    let soft = soft_targets(config, &dataset, run)?;
    let encoder = encoder::open(config, &dataset, device, run)?;
    let (lm, tokenizer) = language::open(config, &dataset, device, run)?;
    let (prompts, teacher) = {
        let bar = run.progress(dataset.n_items() as u64, "titles");
        let mut before = 0;
        let mut read = |done: usize| {
            bar.inc((done - std::mem::replace(&mut before, done)) as u64);
            match run.stop_requested() {
                true => Err(Error::Interrupted { detail: "before the first step".into() }),
                false => Ok(()),
            }
        };
        assemble(config, &dataset, &encoder, lm, &tokenizer, &mut read)?
    };
    let candidates = Candidates::new(dataset.n_items(), &config.teacher.prompt.candidates)?;
    let n_parameters = teacher.params().n_parameters();
    run.info(&format!("teacher {}: {n_parameters} parameters beside the language model", config.teacher.name));
    run.record("n_parameters", json!(n_parameters))?;

    let parts =
        measure::Measured { config, dataset: &dataset, encoder: &encoder, prompts: &prompts, tokenizer: &tokenizer };
    let ready = started.elapsed().as_secs_f64();
    let fitted = train(&parts, &candidates, soft.as_ref(), &teacher, run)?;
    mix::choose(&parts, &teacher, run)?;
    let metadata = BTreeMap::from([
        ("teacher".to_owned(), config.teacher.name.clone()),
        ("items_hash".to_owned(), dataset.items_hash.clone()),
        ("data_hash".to_owned(), dataset.hash.clone()),
    ]);
    teacher.save(&run.path().join(TEACHER_FILE), &metadata)?;

    let ranker = match teacher.head() {
        Some(_) => Some(Ranker::new(&teacher, &encoder, &prompts, settings(config))?),
        None => None,
    };
    measure::catalogue(&parts, &teacher, ranker.as_ref(), run)?;
    measure::choices(&parts, &candidates, &teacher, ranker.as_ref(), run)?;
    let exported = match &ranker {
        Some(ranker) if config.export.enabled => Some(export::bundle(&parts, ranker, run)?),
        None if config.export.enabled => {
            run.warn("no bundle: it is ranked by the scoring head, and teacher.head is null");
            None
        }
        _ => None,
    };

    let summary = prompts.summary();
    run.info(&format!("prompts: {summary}"));
    run.write_json("metrics/prompts.json", &summary)?;
    write_times(run, ready, &fitted, exported.as_ref(), started)?;
    run.print(&format!("run folder: {}\n", run.path().display()));
    Ok(())
}

/// The lists of `soft_targets.run`, checked before anything is trained.
fn soft_targets<'a>(config: &TeacherRunConfig, dataset: &'a Dataset, run: &mut Run) -> Result<Option<SoftTargets<'a>>> {
    let soft = &config.soft_targets;
    let Some(from) = &soft.run else { return Ok(None) };
    let source = BundleSource { key: "soft_targets.run", from, role: "soft_targets" };
    let bundle = source.open(dataset, Wanted { rankings: true, embeddings: false }, run)?;
    let found = SoftTargets::new(&bundle, dataset, soft)?;
    let (with, of) = found.counts();
    run.info(&format!(
        "{with} of {of} training targets have a list, which is {} of what their rows aim at",
        soft.share
    ));
    Ok(Some(found))
}

/// Everything that is checked before something is trained.
fn prepare(config: &TeacherRunConfig, run: &mut Run) -> Result<(Device, Dataset)> {
    language::check_folder(&config.teacher.lm)?;
    encoder::check(config)?;
    let export = &config.export;
    let top_n = |dataset: &Dataset| {
        let (n, got) = (dataset.n_items(), export.top_n);
        let what = || Problem::new("export.top_n", format!("wanted 1 to {n} (the items), got {got}"));
        (export.enabled && got > n).then(what).into_iter().collect()
    };
    let prepare = Prepare {
        dataset: &config.dataset,
        data: &config.data,
        device: config.device,
        threads: config.threads,
        eval: &config.eval,
    };
    prepare.run(run, &top_n)
}

/// How the head's prompts are made.
fn settings(config: &TeacherRunConfig) -> RankSettings {
    RankSettings { template: 0, mode: config.mode(), batch: config.eval.batch_size.min(PROMPTS) }
}

/// Prompts in one forward pass at most: more do not make a CPU faster, and a GPU has enough to do with them.
const PROMPTS: usize = 64;

fn train(
    parts: &measure::Measured<'_>,
    candidates: &Candidates,
    soft: Option<&SoftTargets<'_>>,
    teacher: &Teacher,
    run: &mut Run,
) -> Result<TeacherFitted> {
    let config = parts.config;
    let draw = |epoch: u64, key: u64, history: &[u32], target: u32| {
        candidates.list(Draw::Train { seed: config.seed, epoch }, key, history, target)
    };
    let (folder, resume) = (run.path().to_owned(), run.resumed());
    let choice = |teacher: &Teacher| measure::validate(parts, candidates, teacher);
    let setup = TeacherSetup {
        config: &config.teacher,
        dataset: parts.dataset,
        encoder: parts.encoder,
        prompts: parts.prompts,
        candidates: &draw,
        soft,
        validate: teacher.head().is_none().then_some(&choice),
        eval: &config.eval,
        seed: config.seed,
        folder: Some(&folder),
        resume,
    };
    let fitted = fit_teacher(&setup, teacher, &mut RunWatch::new(run))?;
    run.record("training", serde_json::to_value(&fitted).unwrap_or_default())?;
    let rate = |n: u64| n as f64 / fitted.seconds.max(1e-9);
    if fitted.steps > 0 {
        run.info(&format!(
            "trained {} rows in {:.0} s: {:.1} rows/s, {:.0} tokens/s, {:.0} % of the time in the language model",
            fitted.rows,
            fitted.seconds,
            rate(fitted.rows),
            rate(fitted.tokens),
            100.0 * fitted.lm_seconds / fitted.seconds.max(1e-9)
        ));
    }
    Ok(fitted)
}

fn write_times(
    run: &Run,
    ready: f64,
    fitted: &TeacherFitted,
    exported: Option<&export::Exported>,
    started: Instant,
) -> Result<()> {
    let seconds = fitted.seconds.max(1e-9);
    let mut time = json!({
        "load_seconds": ready,
        "teacher_train_time_total": fitted.seconds,
        "train_rows_per_s": fitted.rows as f64 / seconds,
        "train_tokens_per_s": fitted.tokens as f64 / seconds,
        "train_language_model_share": fitted.lm_seconds / seconds,
        "steps": fitted.steps,
        "best_step": fitted.best_step,
        "total_seconds": started.elapsed().as_secs_f64(),
        "peak_rss_bytes": anyo_core::memory::peak_rss_bytes(),
    });
    if let Some(exported) = exported {
        time["distill_teacher_export_time"] = json!(exported.seconds);
        time["export_rows"] = json!(exported.rows);
        time["export_rows_per_s"] = json!(exported.rows as f64 / exported.seconds.max(1e-9));
    }
    run.write_json("metrics/time.json", &time)
}

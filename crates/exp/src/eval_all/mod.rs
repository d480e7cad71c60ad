//! `run-eval-all`: teacher, baselines, plain and distilled students side by side, and which differences are real.
//! `docs/specification/09_comparison.md` has the definitions.

mod config;
mod costs;
mod curves;
mod document;
mod html;
mod latency;
mod measure;
mod methods;
mod past;
mod place;
mod plots;
mod sections;
mod stages;
mod store;
mod svg;

use std::path::{Path, PathBuf};

use anyo_core::{
    Error, Result,
    data::{self, Dataset},
    run::{Run, write_atomic},
    torch::device,
};
use serde_json::json;

pub use self::config::EvalAllConfig;
use self::{
    methods::Method,
    past::{APPS, Past},
    sections::Report,
};

/// The report as a page.
pub const HTML_FILE: &str = "report.html";
/// The same tables as Markdown.
pub const MARKDOWN_FILE: &str = "report.md";
/// One line for each subset, method, seed and metric.
pub const RESULTS_FILE: &str = "results.parquet";

/// Finds or makes the runs, compares them, writes the report and prints its table.
///
/// # Errors
/// A run that cannot be compared with the others, a stage that failed, a file that cannot be written; each names it.
pub fn run_eval_all(config: &EvalAllConfig, run: &mut Run) -> Result<()> {
    let threads = device::set_threads(config.threads)?;
    run.record("device", json!({"chosen": "cpu", "threads": threads}))?;
    let mut notes = Vec::new();
    let (runs, dataset) = if config.has_runs() { finished(config, run)? } else { made(config, run, &mut notes)? };
    run.record("data", json!({"hash": dataset.hash, "items_hash": dataset.items_hash}))?;
    methods::check_same(&runs)?;
    let protocol = runs[0].1.protocol.clone();
    let groups = methods::group(runs, &mut |note| notes.push(note))?;
    let (methods, rows) = methods::load(groups, &dataset, &mut |note| notes.push(note))?;
    unequal_seeds(&methods, &mut notes);
    run.info(&format!("comparing {} methods on {} test rows", methods.len(), rows.users.len()));
    let workers = tch::get_num_threads().max(1) as usize;
    let findings = measure::measure(config, &methods, &rows, &dataset, workers)?;
    let costs = costs::costs(&methods, &dataset, config.latency_users, &mut |note| notes.push(note));
    notes.iter().for_each(|note| run.warn(note));
    let folder = run.path().to_owned();
    let report = Report {
        config,
        dataset: &dataset,
        protocol: &protocol,
        methods: &methods,
        findings: &findings,
        costs: &costs,
        notes: &notes,
        folder: &folder,
    };
    let document = report.document();
    write(&folder, HTML_FILE, &html::page(&document))?;
    let plots = folder.join(document::PLOTS);
    std::fs::create_dir_all(&plots).map_err(Error::io(&plots, "make the folder"))?;
    for plot in document.plots() {
        write(&plots, &format!("{}.svg", plot.id), &plot.file())?;
    }
    write(&folder, MARKDOWN_FILE, &document.to_markdown())?;
    store::write(&folder.join(RESULTS_FILE), &methods, &config.measures(), &findings)?;
    run.print(&report.terminal());
    run.print(&format!("report: {}\n", folder.join(HTML_FILE).display()));
    Ok(())
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    write_atomic(&folder.join(name), text.as_bytes())
}

type Runs = Vec<(String, Past)>;

/// The runs that the configuration names, and their data set.
fn finished(config: &EvalAllConfig, run: &Run) -> Result<(Runs, Dataset)> {
    let mut opened = Vec::new();
    for (name, word) in config.all_runs() {
        for folder in past::folders(&word)? {
            opened.push((name.map(str::to_owned), Past::open(&folder)?));
        }
    }
    let runs = methods::name(opened);
    // told before the data is read, which may no longer be there
    methods::check_same(&runs)?;
    methods::group(runs.clone(), &mut |_| ())?;
    let past = &runs[0].1;
    let (dataset, place) = past.dataset()?;
    let dataset = data::load(&dataset, &place, &mut |note| run.info(note))?;
    if dataset.hash != past.data_hash() {
        return Err(Error::Invalid {
            message: format!(
                "{}: the run used data {}, what lies in {} now is {}",
                past.path.display(),
                past.data_hash(),
                place.root.display(),
                dataset.hash
            ),
            hint: Some("the data changed since the run; run again, or put the data of then back".into()),
        });
    }
    Ok((runs, dataset))
}

/// The runs that the configuration describes, made where they are not there yet.
fn made(config: &EvalAllConfig, run: &mut Run, notes: &mut Vec<String>) -> Result<(Runs, Dataset)> {
    let dataset = data::load(&config.dataset, &config.data, &mut |note| run.info(note))?;
    if dataset.test.is_empty() {
        return Err(Error::invalid(format!("data set `{}` has no test row", dataset.name)));
    }
    let folders: Vec<(String, PathBuf)> = stages::run_all(config, &dataset, run)?;
    let mut runs = Vec::new();
    for (method, folder) in folders {
        if method == config::TEACHER && !folder.join("metrics/per_user.parquet").is_file() {
            notes.push(format!(
                "{} ranks no catalogue (teacher.head or eval.per_user), so it has no row",
                folder.display()
            ));
            continue;
        }
        runs.push((method, Past::open(&folder)?));
    }
    Ok((runs, dataset))
}

fn unequal_seeds(methods: &[Method], notes: &mut Vec<String>) {
    let told: Vec<String> = methods
        .iter()
        .filter(|method| method.is_trained() && method.runs.first().is_none_or(|past| past.app != APPS[1]))
        .map(|method| (method.name.as_str(), method.runs.len()))
        .map(|(name, n)| format!("{name} {n}"))
        .collect();
    let mut numbers: Vec<&str> = told.iter().filter_map(|text| text.rsplit(' ').next()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    if numbers.len() > 1 {
        notes.push(format!("the methods have different numbers of seeds: {}", told.join(", ")));
    }
}

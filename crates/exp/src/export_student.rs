//! `export-student RUN [OUT]`: a trained student as a folder for production.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyo_core::{
    Error, Result,
    bundle::FileInfo,
    cli,
    config::{Check, Problem, Ranges},
    run::{Run, RunConfig, resolve_run_of},
    torch::{DeviceChoice, device},
};
use anyo_student::{MODEL_FILE, Production, STUDENT_APPS, Source, production::Written};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::bundles::with_run;

/// Folder of the export inside a run folder where no other is asked for.
pub const STUDENT_FOLDER: &str = "student";

/// The whole configuration of `export-student`; defaults and meanings stand in `conf/export-student.yaml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportStudentConfig {
    /// A finished run of run-student-baseline, or `latest`.
    pub student_run: PathBuf,
    /// The folder to write; null: [`STUDENT_FOLDER`] inside the run folder.
    #[serde(deserialize_with = "Option::deserialize")]
    pub out: Option<PathBuf>,
    /// Where the raw data lies now; null: where the run found it.
    #[serde(deserialize_with = "Option::deserialize")]
    pub data_root: Option<PathBuf>,
    /// Histories of validation rows on which the files are compared with the student.
    pub check_rows: usize,
    /// CPU threads, 0 for all cores.
    pub threads: usize,
    /// Where the run writes.
    pub run: RunConfig,
}

impl Check for ExportStudentConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut list = Ranges::default();
        list.at_least("check_rows", self.check_rows as f64, 1.0);
        list.0
    }
}

/// `export-student`.
pub fn main(words: impl Iterator<Item = OsString>) -> ExitCode {
    let app = cli::App {
        name: "export-student",
        about: "Writes a trained student for production: safetensors, TorchScript, flat item matrix, manifest.",
        examples: &["export-student latest", "export-student result/result_20260101_120000 my_student"],
        resumable: &["threads"],
        subcommand: None,
    };
    cli::run_words::<ExportStudentConfig>(&app, with_out(with_run(words.collect())), |config, run| body(&config, run))
}

/// A second plain word, after one that names the run, is the folder to write.
fn with_out(mut words: Vec<OsString>) -> Vec<OsString> {
    let names_run = words.get(1).is_some_and(|word| word.to_string_lossy().starts_with("student_run="));
    if let Some(second) = words.get_mut(2).filter(|_| names_run) {
        let text = second.to_string_lossy().into_owned();
        if !text.starts_with(['-', '+', '~']) && !text.contains('=') {
            *second = format!("out={text}").into();
        }
    }
    words
}

fn body(config: &ExportStudentConfig, run: &mut Run) -> Result<()> {
    run.info(&device::set_threads(config.threads)?);
    let out = config.out.clone().unwrap_or_else(|| run.path().join(STUDENT_FOLDER));
    let student_run = resolve_run_of(&config.student_run, STUDENT_APPS)?;
    let source =
        Source::open(&student_run, config.data_root.as_deref(), DeviceChoice::Cpu, &mut |note| run.info(note))?;
    let (name, dataset) = (source.config.student.name(), &source.dataset);
    let student = source.student().ok_or_else(|| Error::Invalid {
        message: format!("{} is a run of `{name}`, which has no weights to export", student_run.display()),
        hint: Some("name a run of sasrec, sasrec_dllm2rec, gru4rec or caser".into()),
    })?;
    run.record("student", json!({"run": student_run, "name": name}))?;
    run.record("data", json!({"hash": dataset.hash, "items_hash": dataset.items_hash}))?;
    run.info(&format!("student {name} of {}; data set {}", student_run.display(), dataset.name));
    let weights = FileInfo::of(&student_run.join(MODEL_FILE))?;
    let production = Production {
        student,
        config: &source.config.student,
        dataset,
        trained_weights_sha256: Some(&weights.sha256),
        check_rows: config.check_rows,
    };
    if run.stop_requested() {
        return Err(Error::Interrupted { detail: "nothing was written".into() });
    }
    let written = production.write(&out)?;
    run.record("export", json!({"folder": out, "checked": written.checked, "difference": written.difference}))?;
    run.write_json("metrics/time.json", &json!({"total_seconds": run.elapsed()}))?;
    run.print(&summary(&written, &out));
    Ok(())
}

/// The finished folder in a few lines.
fn summary(written: &Written, out: &Path) -> String {
    let manifest = &written.manifest;
    let size: u64 = manifest.files.values().map(|file| file.bytes).sum();
    format!(
        "{} of {} with {} items, {} parameters; {} files, {:.1} MB\nread back and compared on {} histories: largest \
         difference {:.1e}\nstudent: {}\n",
        manifest.model.name,
        manifest.dataset.name,
        manifest.dataset.n_items,
        manifest.model.n_parameters,
        manifest.files.len() + 1,
        size as f64 / 1e6,
        written.checked,
        written.difference,
        out.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_words_name_run_and_folder() {
        let turn = |words: &[&str]| {
            let words = std::iter::once("export-student").chain(words.iter().copied()).map(OsString::from).collect();
            with_out(with_run(words))[1..].iter().map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(turn(&["result/r", "my", "threads=1"]), ["student_run=result/r", "out=my", "threads=1"]);
        assert_eq!(turn(&["result/r", "threads=1"]), ["student_run=result/r", "threads=1"]);
        assert_eq!(turn(&["result/r", "--cfg", "job"]), ["student_run=result/r", "--cfg", "job"]);
        assert_eq!(turn(&["--resume", "r"]), ["--resume", "r"]);
        assert!(turn(&[]).is_empty());
    }
}

//! `export-bundle RUN`.

use std::path::PathBuf;

use anyo_core::{
    Error, Result,
    bundle::{BUNDLE_FOLDER, Bundle, dllm2rec},
    config::{Check, Problem},
    run::{Run, RunConfig, resolve_run_of},
    torch::{DeviceChoice, device},
};
use anyo_student::{ExportConfig, STUDENT_APPS, Source, export_bundle};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{DLLM2REC_FOLDER, summary};

/// The whole configuration of `export-bundle`; defaults and meanings stand in `conf/export-bundle.yaml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportRunConfig {
    /// A finished run of run-student-baseline, or `latest`.
    pub student_run: PathBuf,
    /// Where the raw data lies now; null: where the run found it.
    #[serde(deserialize_with = "Option::deserialize")]
    pub data_root: Option<PathBuf>,
    /// What is exported.
    pub export: ExportConfig,
    /// Write DLLM2Rec's three files beside the bundle.
    pub dllm2rec: bool,
    /// Where to compute.
    pub device: DeviceChoice,
    /// CPU threads, 0 for all cores.
    pub threads: usize,
    /// Where the run writes.
    pub run: RunConfig,
}

impl Check for ExportRunConfig {
    fn problems(&self) -> Vec<Problem> {
        let inside = |p: Problem| Problem { key: format!("export.{}", p.key), ..p };
        self.export.problems().into_iter().map(inside).collect()
    }
}

pub(super) fn run(config: &ExportRunConfig, run: &mut Run) -> Result<()> {
    let threads = device::set_threads(config.threads)?;
    let chosen = config.device.choose()?;
    run.info(&format!("device {}; {threads}", chosen.why));
    run.record("device", json!({"chosen": chosen.why, "threads": threads}))?;
    let student_run = resolve_run_of(&config.student_run, STUDENT_APPS)?;
    let source = Source::open(&student_run, config.data_root.as_deref(), config.device, &mut |note| run.info(note))?;
    let dataset = &source.dataset;
    run.record("teacher", json!({"run": student_run, "name": source.config.student.name()}))?;
    run.record("data", json!({"hash": dataset.hash, "items_hash": dataset.items_hash}))?;
    run.info(&format!(
        "teacher {} of {}; data set {}",
        source.config.student.name(),
        student_run.display(),
        dataset.name
    ));

    let folder = run.path().join(BUNDLE_FOLDER);
    let mut bar = None;
    let mut done = 0;
    let exported = export_bundle(&source, &config.export, &folder, &mut |progress| {
        let bar = bar.get_or_insert_with(|| {
            if progress.rows > 0 {
                run.info(&format!("{} of {} rows were there already", progress.rows, progress.of));
            }
            let bar = run.progress(progress.of as u64, "rows");
            bar.skip(progress.rows as u64);
            done = progress.rows;
            bar
        });
        bar.inc((progress.rows - done) as u64);
        done = progress.rows;
        if run.stop_requested() {
            return Err(Error::Interrupted { detail: format!("{} of {} rows are kept", progress.rows, progress.of) });
        }
        Ok(())
    })?;
    drop(bar);
    exported.notes.iter().for_each(|note| run.warn(note));
    let rate = exported.rows as f64 / exported.seconds.max(1e-9);
    let time = json!({
        "distill_teacher_export_time": exported.seconds,
        "rows": exported.rows,
        "rows_per_s": rate,
        "total_seconds": run.elapsed(),
        "peak_rss_bytes": anyo_core::memory::peak_rss_bytes(),
    });
    run.write_json("metrics/time.json", &time)?;
    if config.dllm2rec {
        let files = run.path().join(DLLM2REC_FOLDER);
        dllm2rec::write(&files, &Bundle::open(&folder, Some(dataset))?)?;
        run.print(&format!("DLLM2Rec's files: {}\n", files.display()));
    }
    run.info(&format!("{} rows in {:.1} s, {rate:.0} rows/s", exported.rows, exported.seconds));
    run.print(&summary(&exported.manifest, &folder));
    Ok(())
}

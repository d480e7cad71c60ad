//! What the teacher ranks for every training row, as a bundle: one prompt a row, the catalogue with one matrix product.

use std::time::{Duration, Instant};

use anyo_core::{
    Error, Result,
    bundle::{
        BUNDLE_FOLDER, Bundle, BundleWriter, DatasetIdentity, FileInfo, Flush, ListMaker, ListRule, Opened, Position,
        Spec, Teacher as Maker, choose_rows, dllm2rec,
    },
    data::TargetIndex,
    run::Run,
};
use serde_json::{Value, json};

use super::{TEACHER_FILE, measure::Measured};
use crate::rank::Ranker;

/// Rows of a batch of the writer: what an interrupt waits for.
const BATCH: usize = 128;
/// Folder of DLLM2Rec's three files inside a run folder.
const DLLM2REC_FOLDER: &str = "dllm2rec";

/// What an export came to.
pub(super) struct Exported {
    /// Rows made by this process.
    pub(super) rows: usize,
    pub(super) seconds: f64,
}

/// Exports, or continues where an interrupted export of the same teacher stopped.
pub(super) fn bundle(parts: &Measured<'_>, ranker: &Ranker<'_>, run: &mut Run) -> Result<Exported> {
    let Measured { config, dataset, .. } = parts;
    let options = &config.export;
    let started = Instant::now();
    let index = TargetIndex::new(&dataset.train);
    let mut numbers = match options.rows {
        Some(budget) => choose_rows(index.len(), budget, options.rows_seed),
        None => (0..index.len() as u32).collect(),
    };
    if numbers.is_empty() {
        return Err(Error::invalid("the data set has no training row to label"));
    }
    let spec = spec(parts, run, numbers.len() < index.len())?;
    let folder = run.path().join(BUNDLE_FOLDER);
    let flush = Flush { rows: options.part_rows, time: Duration::from_secs(options.part_seconds) };
    let mut writer = match BundleWriter::open(&folder, &spec, flush)? {
        Opened::Done(_) => return Ok(Exported { rows: 0, seconds: 0.0 }),
        Opened::Writer(writer) => *writer,
    };
    // Rows of like length share a batch. The order depends on titles alone, so a continued export has the same batches.
    numbers.sort_by_cached_key(|&n| (parts.prompts.history_tokens(index.history(n as usize)), n));
    let before = writer.rows_done();
    let bar = run.progress(numbers.len() as u64, "rows");
    bar.skip(before as u64);
    let rule = ListRule {
        top_n: options.top_n,
        exclude_history: options.exclude_history,
        target_may_appear: options.target_may_appear,
        distance: options.distance,
    };
    let mut maker = ListMaker::new(&index, dataset.n_items(), rule);
    for batch in numbers.chunks(BATCH).skip(writer.next_batch() as usize) {
        let histories: Vec<&[u32]> = batch.iter().map(|&n| index.history(n as usize)).collect();
        let scores = ranker.rank(&histories)?;
        writer.push(&maker.make(&scores, batch)?)?;
        bar.inc(batch.len() as u64);
        if run.stop_requested() {
            writer.flush()?;
            let detail = format!("{} of {} rows of the bundle are kept", writer.rows_done(), numbers.len());
            return Err(Error::Interrupted { detail });
        }
    }
    drop(bar);
    writer.notes().iter().for_each(|note| run.warn(note));
    let rows = writer.rows_done() - before;
    writer.finish(Some(&ranker.items().vectors), dataset)?;
    let exported = Exported { rows, seconds: started.elapsed().as_secs_f64() };
    run.info(&format!(
        "bundle of {rows} rows in {:.1} s, {:.0} rows/s: {}",
        exported.seconds,
        rows as f64 / exported.seconds.max(1e-9),
        folder.display()
    ));
    if options.dllm2rec {
        dllm2rec::write(&run.path().join(DLLM2REC_FOLDER), &Bundle::open(&folder, Some(dataset))?)?;
    }
    Ok(exported)
}

fn spec(parts: &Measured<'_>, run: &Run, some: bool) -> Result<Spec> {
    let Measured { config, dataset, .. } = parts;
    let options = &config.export;
    let teacher = serde_json::to_value(&config.teacher)
        .map_err(|e| Error::invalid(format!("the teacher's configuration is no JSON: {e}")))?;
    let mut made = json!({
        "teacher": teacher,
        "seed": config.seed,
        "encoder": parts.encoder.source(),
        "weights_sha256": FileInfo::of(&run.path().join(TEACHER_FILE))?.sha256,
    });
    if config.soft_targets.run.is_some() {
        made["soft_targets"] = serde_json::to_value(&config.soft_targets)
            .map_err(|e| Error::invalid(format!("soft_targets are no JSON: {e}")))?;
    }
    let selection = match options.rows.filter(|_| some) {
        Some(budget) => json!({"how": "random", "budget": budget, "seed": options.rows_seed}),
        None => Value::Null,
    };
    Ok(Spec {
        dataset: DatasetIdentity::of(dataset, Position::Train),
        position: Position::Train,
        top_n: options.top_n,
        exclude_history: options.exclude_history,
        target_may_appear: options.target_may_appear,
        confidence: options.distance.confidence(),
        teacher: Maker { name: config.teacher.name.clone(), config: made },
        selection,
    })
}

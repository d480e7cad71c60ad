//! A trained student's lists and item vectors as a teacher bundle, so that a wide model can teach a small one.

mod config;
mod plan;
mod source;

use std::{path::Path, time::Duration, time::Instant};

use anyo_core::{
    Batch, Error, Result,
    bundle::{
        BundleWriter, DatasetIdentity, FileInfo, Flush, ListMaker, ListRule, Lists, Manifest, Opened, Spec, Teacher,
        choose_rows,
    },
    data::TargetIndex,
};
use serde_json::{Value, json};
use tch::Tensor;

use self::plan::{Plan, Segment, Work};
pub use self::{
    config::{ExportConfig, Pass},
    source::Source,
};
use crate::{batch::Input, config::RowsKind, dropout::Mode, pipeline::MODEL_FILE, seen::Seen, student::Student};

/// Scores held at once, 16 MiB: a block stays in the caches while it is ranked.
const MAX_SCORES: usize = 1 << 22;

/// How far an export is.
#[derive(Debug, Clone, Copy)]
pub struct ExportProgress {
    /// Rows with a list so far.
    pub rows: usize,
    /// Of so many.
    pub of: usize,
}

/// What an export came to.
#[derive(Debug, Clone)]
pub struct Exported {
    /// The finished bundle's manifest.
    pub manifest: Manifest,
    /// Rows made by this process; the others were there from an interrupted one.
    pub rows: usize,
    /// Seconds of this process, from the first batch to the finished bundle.
    pub seconds: f64,
    /// What a person may want to know, such as a damaged part that was made again.
    pub notes: Vec<String>,
}

/// Exports the bundle `folder` from a finished run, or continues it where an export of the same options was cut off.
///
/// `watch` hears after every batch how far it is and ends the export by returning an error; what is done is kept.
///
/// # Errors
/// Options that do not fit the student or the data; what the model, the writer and `watch` meet.
pub fn export_bundle(
    source: &Source,
    options: &ExportConfig,
    folder: &Path,
    watch: &mut dyn FnMut(ExportProgress) -> Result<()>,
) -> Result<Exported> {
    let started = Instant::now();
    let index = TargetIndex::new(options.position.rows(&source.dataset));
    let chosen = options.rows.map(|budget| choose_rows(index.len(), budget, options.rows_seed));
    let of = chosen.as_ref().map_or(index.len(), Vec::len);
    if of == 0 {
        return Err(Error::invalid(format!("the data set has no {} row to label", options.position.name())));
    }
    let pass = source.pass(options)?;
    let flush = Flush { rows: options.part_rows, time: Duration::from_secs(options.part_seconds) };
    let spec = spec(source, options, pass, of < index.len())?;
    let mut writer = match BundleWriter::open(folder, &spec, flush)? {
        Opened::Done(manifest) => {
            return Ok(Exported { manifest: *manifest, rows: 0, seconds: 0.0, notes: Vec::new() });
        }
        Opened::Writer(writer) => *writer,
    };
    let before = writer.rows_done();
    watch(ExportProgress { rows: before, of })?;

    let max_len = source.max_len();
    let plan = Plan::new(&index, chosen.as_deref(), pass, max_len, options.batch_places);
    let rule = ListRule {
        top_n: options.top_n,
        exclude_history: options.exclude_history,
        target_may_appear: options.target_may_appear,
        distance: options.distance,
    };
    let _no_grad = tch::no_grad_guard();
    let mut exporter = Exporter::new(source, &index, chosen.as_deref(), rule);
    for work in plan.batches().skip(writer.next_batch() as usize) {
        writer.push(&exporter.lists(work)?)?;
        if let Err(error) = watch(ExportProgress { rows: writer.rows_done(), of }) {
            writer.flush()?;
            return Err(error);
        }
    }
    let (rows, notes) = (writer.rows_done() - before, writer.notes().to_vec());
    let manifest = writer.finish(source.item_vectors().as_ref(), &source.dataset)?;
    Ok(Exported { manifest, rows, seconds: started.elapsed().as_secs_f64(), notes })
}

fn spec(source: &Source, options: &ExportConfig, pass: Pass, some: bool) -> Result<Spec> {
    let invalid = |e: serde_json::Error| Error::invalid(format!("the student's configuration is no JSON: {e}"));
    let mut config = json!({
        "student": serde_json::to_value(&source.config.student).map_err(invalid)?,
        "seed": source.config.seed,
        "pass": pass,
    });
    if source.student().is_some() {
        config["weights_sha256"] = FileInfo::of(&source.run.join(MODEL_FILE))?.sha256.into();
    }
    let selection = match options.rows.filter(|_| some) {
        Some(budget) => json!({"how": "random", "budget": budget, "seed": options.rows_seed}),
        None => Value::Null,
    };
    Ok(Spec {
        dataset: DatasetIdentity::of(&source.dataset, options.position),
        position: options.position,
        top_n: options.top_n,
        exclude_history: options.exclude_history,
        target_may_appear: options.target_may_appear,
        confidence: options.distance.confidence(),
        teacher: Teacher { name: source.config.student.name().to_owned(), config },
        selection,
    })
}

/// Turns batches of work into lists.
struct Exporter<'a> {
    source: &'a Source,
    index: &'a TargetIndex<'a>,
    /// Rows to label, ascending; `None` for all.
    chosen: Option<&'a [u32]>,
    maker: ListMaker<'a>,
    top_n: usize,
    stamps: Vec<u32>,
    stamp: u32,
}

impl<'a> Exporter<'a> {
    fn new(source: &'a Source, index: &'a TargetIndex<'a>, chosen: Option<&'a [u32]>, rule: ListRule) -> Self {
        let n_items = source.dataset.n_items();
        let maker = ListMaker::new(index, n_items, rule);
        Self { source, index, chosen, maker, top_n: rule.top_n, stamps: vec![0; n_items], stamp: 0 }
    }

    fn lists(&mut self, work: &Work) -> Result<Lists> {
        match (work, self.source.student()) {
            (Work::Segments(segments), Some(student)) => self.segments(student, segments),
            (Work::Segments(_), None) => Err(Error::invalid("a recommender without weights has no states")),
            (Work::Windows(numbers), _) => self.windows(numbers),
        }
    }

    /// One forward pass; every chosen place of every segment gets its list.
    fn segments(&mut self, student: &Student, segments: &[Segment]) -> Result<Lists> {
        let rows = self.index.rows();
        let inputs: Vec<&[u32]> = segments.iter().map(|s| &rows.items(s.row)[s.start..s.end]).collect();
        let input = Input::new(&inputs, student.network.pad(), student.params.device());
        let head = student.network.head();
        let (mut numbers, mut places, mut seen) = (Vec::new(), Vec::new(), Seen::default());
        for (i, segment) in segments.iter().enumerate() {
            let targets: Vec<usize> = (segment.first..=segment.end)
                .filter(|&place| self.number(segment.row, place).is_some_and(|n| is_chosen(self.chosen, n)))
                .collect();
            numbers.extend(targets.iter().filter_map(|&place| self.number(segment.row, place)));
            // the state after item `place - 1` ranks what stands at `place`
            places.extend(targets.iter().map(|&place| (i * input.width + place - 1 - segment.start) as i64));
            if head.seen_bias.is_some() {
                self.stamp += 1;
                seen.push_sequence(rows.items(segment.row), targets.into_iter(), &mut self.stamps, self.stamp);
            }
        }
        let states = student.network.states(&input, &Mode::Eval); // [B,T,D]
        let width = states.size().last().copied().unwrap_or(1);
        let places = Tensor::from_slice(&places).to_device(states.device());
        let states = states.reshape([-1, width]).index_select(0, &places); // [M,D]
        let mut lists = Lists::new(self.top_n);
        let block = (MAX_SCORES / self.stamps.len().max(1)).max(1);
        for (at, part) in numbers.chunks(block).enumerate() {
            let start = at * block;
            let scores = head.scores(&states.narrow(0, start as i64, part.len() as i64)); // [block,N]
            if let Some(value) = head.seen_value() {
                seen.add(&scores, start, value);
            }
            lists.append(&self.maker.make(&scores, part)?);
        }
        Ok(lists)
    }

    /// Every target with a history of its own, as in evaluation.
    fn windows(&mut self, numbers: &[u32]) -> Result<Lists> {
        let mut lists = Lists::new(self.top_n);
        for part in numbers.chunks((MAX_SCORES / self.stamps.len().max(1)).max(1)) {
            let histories: Vec<&[u32]> = part.iter().map(|&n| self.index.history(n as usize)).collect();
            let user = |&n: &u32| self.index.place(n as usize).map_or(0, |(row, _)| self.index.rows().user(row));
            let users: Vec<u32> = part.iter().map(user).collect();
            let scores = self.source.recommender().score(&Batch { users: &users, histories: &histories })?;
            lists.append(&self.maker.make(&scores, part)?);
        }
        Ok(lists)
    }

    fn number(&self, row: usize, place: usize) -> Option<u32> {
        self.index.number(row, place).map(|n| n as u32)
    }
}

fn is_chosen(chosen: Option<&[u32]>, number: u32) -> bool {
    chosen.is_none_or(|chosen| chosen.binary_search(&number).is_ok())
}

/// Whether a student was trained with a target at every place, so that its states at every place mean something.
fn trained_at_every_place(rows: RowsKind) -> bool {
    matches!(rows, RowsKind::EveryPosition | RowsKind::EveryPositionSplit)
}

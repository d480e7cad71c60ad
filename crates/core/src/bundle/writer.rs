//! Writing a bundle batch by batch: killed at any moment it continues where it stopped, and ends in the same bytes.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tch::Tensor;

use super::{
    Bundle, EMBEDDINGS_FILE, FileInfo, Lists, ListsInfo, MANIFEST_FILE, Manifest, RANKINGS_FILE, SCHEMA_VERSION, Spec,
    bad, check::ListCheck, embeddings::write_embeddings, open::rankings_columns, parts,
};
use crate::{
    Error, Result,
    data::{Column, Dataset, number_table::NumberWriter},
    run::write_atomic,
};

const SPEC: &str = "spec.json";
/// Rows of a row group of the finished file.
const ROW_GROUP: usize = 1 << 16;

/// When lists in memory become a part on disk: what a kill may cost.
#[derive(Debug, Clone, Copy)]
pub struct Flush {
    /// So many rows wait at most.
    pub rows: usize,
    /// They wait so long at most (seen at the next batch).
    pub time: Duration,
}

/// What [`BundleWriter::open`] finds.
#[derive(Debug)]
pub enum Opened {
    /// There is work to do, from [`BundleWriter::next_batch`] on.
    Writer(Box<BundleWriter>),
    /// The bundle of this very spec is finished already.
    Done(Box<Manifest>),
}

/// Takes lists in batches and makes a bundle of them.
///
/// The caller's work is a fixed sequence of batches: the same batch number has the same rows whenever it is asked for.
/// Finished batches lie in `FOLDER.part/` as checked part files, each written beside and renamed. After a kill,
/// [`BundleWriter::next_batch`] is the first batch whose lists are not on disk. The finished folder is made in
/// `FOLDER.part/bundle`, read back and checked there, and appears at its place by one rename. Its bytes depend on the
/// lists only, not on how often the work was cut off.
#[derive(Debug)]
pub struct BundleWriter {
    folder: PathBuf,
    work: PathBuf,
    spec: Spec,
    flush: Flush,
    parts: usize,
    next_batch: u64,
    /// First batch in memory.
    first_waiting: u64,
    waiting: Lists,
    since: Instant,
    seen: Vec<bool>,
    rows_done: usize,
    check: ListCheck,
    notes: Vec<String>,
}

impl BundleWriter {
    /// Starts the bundle `folder`, or continues it where parts of the same spec lie beside it.
    ///
    /// # Errors
    /// A bundle or parts of another spec at that place; a folder that cannot be written; a spec out of range.
    pub fn open(folder: &Path, spec: &Spec, flush: Flush) -> Result<Opened> {
        if spec.top_n == 0 || spec.top_n > spec.dataset.n_items {
            let n = spec.dataset.n_items;
            return Err(Error::invalid(format!("top_n: wanted 1 to {n} (the items), got {}", spec.top_n)));
        }
        let text = spec_text(spec)?;
        let mut name = folder.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let work = folder.with_file_name(name);
        if folder.exists() {
            let manifest = Manifest::read(folder)?;
            if spec_text(&manifest.spec())? != read_back(&text)? {
                let message = "there is a bundle of another data set or with other options at this place";
                return Err(bad(folder, message, "choose another folder; a bundle is never overwritten"));
            }
            remove(&work)?;
            return Ok(Opened::Done(Box::new(manifest)));
        }
        fs::create_dir_all(&work).map_err(Error::io(&work, "make the folder for an export"))?;
        let spec_file = work.join(SPEC);
        match fs::read_to_string(&spec_file) {
            Ok(found) if found == text => {}
            Ok(_) => {
                let message = "an export of another data set or with other options was begun here";
                return Err(bad(&work, message, "remove that folder, or choose another place for this export"));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => write_atomic(&spec_file, text.as_bytes())?,
            Err(e) => return Err(Error::io(spec_file, "read the options of the export")(e)),
        }
        let mut writer = Self {
            folder: folder.to_owned(),
            work,
            spec: spec.clone(),
            flush,
            parts: 0,
            next_batch: 0,
            first_waiting: 0,
            waiting: Lists::new(spec.top_n),
            since: Instant::now(),
            seen: vec![false; spec.dataset.n_rows],
            rows_done: 0,
            check: ListCheck::new(spec.dataset.n_items),
            notes: Vec::new(),
        };
        writer.continue_from_parts()?;
        Ok(Opened::Writer(Box::new(writer)))
    }

    /// Takes over the parts that follow one another; one that is damaged and all behind it are made again.
    fn continue_from_parts(&mut self) -> Result<()> {
        loop {
            let path = parts::file(&self.work, self.parts);
            if !path.exists() {
                break;
            }
            let found = parts::read(&path, self.spec.top_n)?.and_then(|((first, end), lists)| {
                if first != self.next_batch || end <= first {
                    return Err(format!("starts at batch {first}, wanted {}", self.next_batch));
                }
                self.admit(&lists).map(|()| (end, lists.len()))
            });
            match found {
                Ok((end, rows)) => {
                    self.next_batch = end;
                    self.rows_done += rows;
                    self.parts += 1;
                }
                Err(why) => {
                    self.notes.push(format!("{} {why}; this part and later ones are made again", path.display()));
                    break;
                }
            }
        }
        for number in self.parts.. {
            let path = parts::file(&self.work, number);
            if !path.exists() {
                break;
            }
            fs::remove_file(&path).map_err(Error::io(&path, "remove a part that is made again"))?;
        }
        self.first_waiting = self.next_batch;
        Ok(())
    }

    /// The first batch to be computed; 0 in a new export.
    pub fn next_batch(&self) -> u64 {
        self.next_batch
    }

    /// Rows in all batches before [`BundleWriter::next_batch`].
    pub fn rows_done(&self) -> usize {
        self.rows_done
    }

    /// What a person may want to know of the parts found.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Takes the lists of batch [`BundleWriter::next_batch`], in any order of rows; an empty batch counts too.
    ///
    /// # Errors
    /// A list that breaks a rule, naming the row; a row that came before; a part that cannot be written.
    pub fn push(&mut self, lists: &Lists) -> Result<()> {
        if lists.top_n != self.spec.top_n {
            return Err(Error::invalid(format!("lists of {} items, wanted {}", lists.top_n, self.spec.top_n)));
        }
        self.admit(lists).map_err(Error::invalid)?;
        self.waiting.append(lists);
        self.next_batch += 1;
        self.rows_done += lists.len();
        if self.waiting.len() >= self.flush.rows || self.since.elapsed() >= self.flush.time {
            self.flush()?;
        }
        Ok(())
    }

    /// Checks lists and marks their rows as seen.
    fn admit(&mut self, lists: &Lists) -> std::result::Result<(), String> {
        for (i, &row) in lists.rows.iter().enumerate() {
            let n_rows = self.seen.len();
            match self.seen.get_mut(row as usize).map(|seen| std::mem::replace(seen, true)) {
                None => return Err(format!("row {row}: the data set has rows 0..{n_rows}")),
                Some(true) => return Err(format!("row {row} has two lists")),
                Some(false) => {}
            }
            let (items, distances) = lists.padded(i);
            let truth = (lists.true_ranks[i], lists.true_distances[i]);
            self.check.list(items, distances, truth).map_err(|why| format!("row {row}: {why}"))?;
        }
        Ok(())
    }

    /// Writes what waits in memory as a part: after this nothing is lost by a kill.
    ///
    /// # Errors
    /// When the part cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        if self.first_waiting < self.next_batch {
            let path = parts::file(&self.work, self.parts);
            parts::write(&path, (self.first_waiting, self.next_batch), &self.waiting)?;
            self.parts += 1;
            self.first_waiting = self.next_batch;
            self.waiting = Lists::new(self.spec.top_n);
        }
        self.since = Instant::now();
        Ok(())
    }

    /// Puts the bundle together, with item vectors `[N, D]` where the teacher has them, reads it back, and renames it to
    /// its place.
    ///
    /// # Errors
    /// Rows without a list although the spec names no selection; vectors of another shape or not finite; a file that
    /// cannot be written; whatever [`Bundle::open`] finds.
    pub fn finish(mut self, embeddings: Option<&Tensor>, dataset: &Dataset) -> Result<Manifest> {
        self.flush()?;
        let data = &self.spec.dataset;
        if self.spec.selection.is_null() && self.rows_done != data.n_rows {
            let first = self.seen.iter().position(|seen| !seen).unwrap_or(0);
            let message =
                format!("{} of {} rows have a list; the first without is row {first}", self.rows_done, data.n_rows);
            return Err(Error::Invalid { message, hint: Some("say how the rows were chosen, or label all".into()) });
        }
        let inside = self.work.join("bundle");
        remove(&inside)?;
        fs::create_dir(&inside).map_err(Error::io(&inside, "make the folder of the bundle"))?;
        self.write_rankings(&inside.join(RANKINGS_FILE))?;
        let embeddings = embeddings.map(|vectors| write_embeddings(&inside, vectors, data.n_items)).transpose()?;
        let mut files = BTreeMap::new();
        for name in [Some(RANKINGS_FILE), embeddings.as_ref().map(|_| EMBEDDINGS_FILE)].into_iter().flatten() {
            files.insert(name.to_owned(), FileInfo::of(&inside.join(name))?);
        }
        let spec = &self.spec;
        let manifest = Manifest {
            schema_version: SCHEMA_VERSION,
            dataset: spec.dataset.clone(),
            position: spec.position,
            lists: ListsInfo {
                rows: self.rows_done,
                of: data.n_rows,
                top_n: spec.top_n,
                exclude_history: spec.exclude_history,
                target_may_appear: spec.target_may_appear,
            },
            confidence: spec.confidence.clone(),
            embeddings,
            teacher: spec.teacher.clone(),
            selection: spec.selection.clone(),
            files,
        };
        let mut text = serde_json::to_string_pretty(&manifest)
            .map_err(|e| Error::invalid(format!("the manifest cannot be written as JSON: {e}")))?;
        text.push('\n');
        write_atomic(&inside.join(MANIFEST_FILE), text.as_bytes())?;
        Bundle::open(&inside, Some(dataset))?;
        fs::rename(&inside, &self.folder).map_err(Error::io(&self.folder, "rename the finished bundle"))?;
        let parent = self.folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(parent).and_then(|f| f.sync_all()).map_err(Error::io(parent, "flush the folder to disk"))?;
        remove(&self.work)?;
        Ok(manifest)
    }

    /// One Parquet file of all parts, rows ascending.
    fn write_rankings(&self, path: &Path) -> Result<()> {
        let top_n = self.spec.top_n;
        let mut all = Lists::new(top_n);
        for number in 0..self.parts {
            let part = parts::file(&self.work, number);
            let (_, lists) = parts::read(&part, top_n)?
                .map_err(|why| bad(&part, why, "start the export again with --resume; the part is made anew"))?;
            all.append(&lists);
        }
        let mut order: Vec<u32> = (0..all.len() as u32).collect();
        order.sort_unstable_by_key(|&i| all.rows[i as usize]);
        let mut writer = NumberWriter::create(path, &rankings_columns(top_n))?;
        for group in order.chunks(ROW_GROUP) {
            let pick = |values: &[u32]| Column::U32(group.iter().map(|&i| values[i as usize]).collect());
            let at = |place: usize| move |&i: &u32| i as usize * top_n + place;
            let mut columns = vec![pick(&all.rows)];
            columns.extend((0..top_n).map(|k| Column::U32(group.iter().map(at(k)).map(|i| all.items[i]).collect())));
            columns
                .extend((0..top_n).map(|k| Column::F32(group.iter().map(at(k)).map(|i| all.distances[i]).collect())));
            columns.push(pick(&all.true_ranks));
            columns.push(Column::F32(group.iter().map(|&i| all.true_distances[i as usize]).collect()));
            writer.write(columns)?;
        }
        writer.finish()
    }
}

fn spec_text(spec: &Spec) -> Result<String> {
    serde_json::to_value(spec).and_then(|value| serde_json::to_string_pretty(&value)).map_err(unwritable)
}

/// The text as it looks once it was read from a file: the last digit of a number may change then.
fn read_back(text: &str) -> Result<String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(unwritable)?;
    serde_json::to_string_pretty(&value).map_err(unwritable)
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::invalid(format!("the options of the export cannot be written as JSON: {error}"))
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(folder, "remove the folder of an export")(e)),
        _ => Ok(()),
    }
}

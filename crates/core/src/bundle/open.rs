//! Reading a bundle: nothing is handed out before everything was checked.

use std::path::{Path, PathBuf};

use tch::Tensor;

use super::{
    EMBEDDINGS_FILE, MANIFEST_FILE, Manifest, Position, bad,
    check::{HistoryCheck, ListCheck, list_len},
    read_embeddings,
};
use crate::{
    Error, Result,
    data::{
        Column, Dataset, TargetIndex,
        number_table::{read_numbers, table_shape},
    },
};

/// Name of the lists' file inside a bundle.
pub const RANKINGS_FILE: &str = "rankings.parquet";
/// Rows read at once.
const SLICE: usize = 1 << 16;
/// Stands where a row has no list.
const NONE: u32 = u32::MAX;

/// Columns of the lists' file, `true` for whole numbers.
pub(super) fn rankings_columns(top_n: usize) -> Vec<(String, bool)> {
    let mut columns = vec![("row".to_owned(), true)];
    columns.extend((0..top_n).map(|k| (format!("item_{k}"), true)));
    columns.extend((0..top_n).map(|k| (format!("distance_{k}"), false)));
    columns.extend([("true_item_rank".to_owned(), true), ("true_item_distance".to_owned(), false)]);
    columns
}

/// Which files of a bundle are needed; the others are not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The lists.
    pub rankings: bool,
    /// The item vectors.
    pub embeddings: bool,
}

impl Wanted {
    /// Both.
    pub const ALL: Self = Self { rankings: true, embeddings: true };
}

/// A checked bundle in memory: 8 bytes for each entry of a list, 12 a row, and the item vectors.
#[derive(Debug)]
pub struct Bundle {
    folder: PathBuf,
    manifest: Manifest,
    /// Entry of each row, [`NONE`] without a list, `[rows of the data set]`; empty when the lists were not wanted.
    entries: Vec<u32>,
    items: Vec<u32>,
    distances: Vec<f32>,
    true_ranks: Vec<u32>,
    true_distances: Vec<f32>,
    embeddings: Option<Tensor>,
}

impl Bundle {
    /// Opens the bundle in `folder` and checks all of it; against a data set where one is at hand.
    ///
    /// # Errors
    /// One message with file and row: no bundle, another version, a file that is missing, truncated or changed, another
    /// data set; rows out of range, twice or not ascending; items out of range or twice in a list; distances that are
    /// NaN, negative or descending; items of the history or the target where the manifest rules them out; vectors of
    /// another width or not finite. Nothing is returned then.
    pub fn open(folder: &Path, dataset: Option<&Dataset>) -> Result<Self> {
        Self::read(folder, dataset, Wanted::ALL)
    }

    /// Opens a bundle as training signal: of this data set, and for its training rows.
    ///
    /// # Errors
    /// As [`Bundle::open`]; lists made for validation or test rows; a wanted file that the bundle does not have.
    pub fn open_for_training(folder: &Path, dataset: &Dataset, wanted: Wanted) -> Result<Self> {
        let manifest = Manifest::read(folder)?;
        if manifest.position != Position::Train {
            let position = manifest.position.name();
            return Err(bad(
                &folder.join(MANIFEST_FILE),
                format!(
                    "position: the lists were made for the {position} rows; only lists for training rows may teach"
                ),
                "learning from them would show the student what it is tested on; export lists for the training rows",
            ));
        }
        let bundle = Self::read(folder, Some(dataset), wanted)?;
        if wanted.embeddings {
            bundle.item_embeddings()?;
        }
        Ok(bundle)
    }

    fn read(folder: &Path, dataset: Option<&Dataset>, wanted: Wanted) -> Result<Self> {
        let manifest = Manifest::read(folder)?;
        if let Some(dataset) = dataset {
            manifest.check_dataset(folder, dataset)?;
        }
        let mut bundle = Self {
            folder: folder.to_owned(),
            entries: Vec::new(),
            items: Vec::new(),
            distances: Vec::new(),
            true_ranks: Vec::new(),
            true_distances: Vec::new(),
            embeddings: None,
            manifest,
        };
        if wanted.rankings {
            bundle.manifest.check_file(folder, RANKINGS_FILE)?;
            bundle.read_rankings(dataset)?;
        }
        if let Some(info) = bundle.manifest.embeddings.clone().filter(|_| wanted.embeddings) {
            bundle.manifest.check_file(folder, EMBEDDINGS_FILE)?;
            let path = folder.join(EMBEDDINGS_FILE);
            bundle.embeddings = Some(read_embeddings(&path, info.n_items, Some(info.dim))?);
        }
        Ok(bundle)
    }

    fn read_rankings(&mut self, dataset: Option<&Dataset>) -> Result<()> {
        let path = self.folder.join(RANKINGS_FILE);
        let wrong = |message: String| bad(&path, message, "export the bundle again");
        let (info, data) = (self.manifest.lists.clone(), self.manifest.dataset.clone());
        let columns = rankings_columns(info.top_n);
        let (names, n_rows) = table_shape(&path)?;
        if !names.iter().eq(columns.iter().map(|(name, _)| name)) {
            let (want, got) = (columns.len(), names.len());
            let at = names.iter().zip(&columns).position(|(name, (want, _))| name != want).unwrap_or(want.min(got));
            let column = names.get(at).map_or("missing", String::as_str);
            return Err(wrong(format!("wanted {want} columns row, item_0 …, got {got}; column {at} is {column}")));
        }
        if n_rows != info.rows {
            return Err(wrong(format!("has {n_rows} rows, the manifest says {}", info.rows)));
        }
        let index = dataset.map(|dataset| TargetIndex::new(self.manifest.position.rows(dataset)));
        let mut histories = index.as_ref().map(|index| HistoryCheck::new(index, data.n_items));
        let mut check = ListCheck::new(data.n_items);
        self.entries = vec![NONE; data.n_rows];
        let mut last = None;
        for from in (0..n_rows).step_by(SLICE) {
            let slice = Slice::read(&path, &columns, from, SLICE.min(n_rows - from), info.top_n)?;
            for (i, &row) in slice.rows.iter().enumerate() {
                let place = from + i;
                let at = |why: String| wrong(format!("row {row} (line {place} of the file, from 0): {why}"));
                if row as usize >= data.n_rows {
                    return Err(at(format!("the data set has rows 0..{}", data.n_rows)));
                }
                if last.is_some_and(|last| last >= row) {
                    let twice = if last == Some(row) { "stands there twice" } else { "rows must ascend" };
                    return Err(at(format!("{twice}; the row before it is {}", last.unwrap_or(0))));
                }
                last = Some(row);
                let range = i * info.top_n..(i + 1) * info.top_n;
                let (items, distances) = (&slice.items[range.clone()], &slice.distances[range]);
                check.list(items, distances, (slice.true_ranks[i], slice.true_distances[i])).map_err(at)?;
                let (of_history, target) = match &mut histories {
                    Some(histories) => histories.look(row as usize, &items[..list_len(items)]),
                    None => (None, false),
                };
                if let Some(item) = of_history.filter(|_| info.exclude_history) {
                    return Err(at(format!("item {item} is of the history, which the manifest says is left out")));
                }
                if target && !info.target_may_appear {
                    return Err(at("the list holds the target, which the manifest rules out".into()));
                }
                self.entries[row as usize] = place as u32;
            }
            self.items.extend_from_slice(&slice.items);
            self.distances.extend_from_slice(&slice.distances);
            self.true_ranks.extend_from_slice(&slice.true_ranks);
            self.true_distances.extend_from_slice(&slice.true_distances);
        }
        Ok(())
    }

    /// The folder it was read from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the bundle says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// K.
    pub fn top_n(&self) -> usize {
        self.manifest.lists.top_n
    }

    /// Items and distances of a row, best first, without empty places; `None` for a row without teacher output. Zero
    /// allocations: slices of one flat buffer.
    pub fn rankings(&self, row: usize) -> Option<(&[u32], &[f32])> {
        let entry = *self.entries.get(row).filter(|&&entry| entry != NONE)? as usize;
        let range = entry * self.top_n()..(entry + 1) * self.top_n();
        let items = &self.items[range.clone()];
        let len = list_len(items);
        Some((&items[..len], &self.distances[range][..len]))
    }

    /// 1-based rank and distance of the row's target among all items that its list may hold, where they are known.
    pub fn true_rank(&self, row: usize) -> Option<(u32, f32)> {
        let entry = *self.entries.get(row).filter(|&&entry| entry != NONE)? as usize;
        Some((self.true_ranks[entry], self.true_distances[entry])).filter(|(rank, _)| *rank > 0)
    }

    /// Vectors of the items, `[N, D]` in f32 on the CPU.
    ///
    /// # Errors
    /// When the bundle has none, or they were not wanted when it was opened.
    pub fn item_embeddings(&self) -> Result<&Tensor> {
        self.embeddings.as_ref().ok_or_else(|| {
            let hint = "switch off what learns from item vectors, or import the bundle with them (embeddings=FILE)";
            bad(&self.folder.join(MANIFEST_FILE), "embeddings: the bundle has no item vectors", hint)
        })
    }

    /// Rows of the data set at the bundle's position.
    pub fn n_rows(&self) -> usize {
        self.manifest.dataset.n_rows
    }

    /// Rows with a list.
    pub fn n_labelled(&self) -> usize {
        self.manifest.lists.rows
    }

    /// Rows without teacher output.
    pub fn n_missing(&self) -> usize {
        self.n_rows() - self.n_labelled()
    }

    /// The rows without teacher output, ascending.
    pub fn missing(&self) -> impl Iterator<Item = u32> + '_ {
        self.entries.iter().zip(0u32..).filter(|(entry, _)| **entry == NONE).map(|(_, row)| row)
    }

    /// For a training that needs the teacher's word on every one of `rows`.
    ///
    /// # Errors
    /// Names the first rows without teacher output and counts them.
    pub fn require(&self, rows: impl IntoIterator<Item = u32>) -> Result<()> {
        let mut n = 0;
        let mut first = Vec::new();
        for row in rows {
            if self.entries.get(row as usize).is_none_or(|&entry| entry == NONE) {
                n += 1;
                if first.len() < 5 {
                    first.push(row.to_string());
                }
            }
        }
        if n == 0 {
            return Ok(());
        }
        let more = if n > first.len() { ", …" } else { "" };
        Err(Error::Data {
            path: self.folder.join(RANKINGS_FILE),
            line: None,
            message: format!("{n} rows have no teacher output: rows {}{more}", first.join(", ")),
            hint: Some("export all rows, or allow rows without teacher output".into()),
        })
    }
}

/// Some rows of the lists' file, entries of a list side by side.
struct Slice {
    rows: Vec<u32>,
    items: Vec<u32>,
    distances: Vec<f32>,
    true_ranks: Vec<u32>,
    true_distances: Vec<f32>,
}

impl Slice {
    fn read(path: &Path, columns: &[(String, bool)], from: usize, len: usize, top_n: usize) -> Result<Self> {
        let mut found = read_numbers(path, columns, from, len)?.into_iter();
        let broken = || bad(path, format!("rows from {from} on have other columns"), "export the bundle again");
        let mut whole = || match found.next() {
            Some(Column::U32(values)) if values.len() == len => Ok(values),
            _ => Err(broken()),
        };
        let rows = whole()?;
        let mut items = vec![0; len * top_n];
        for place in 0..top_n {
            for (i, item) in whole()?.into_iter().enumerate() {
                items[i * top_n + place] = item;
            }
        }
        let mut distances = vec![0.0; len * top_n];
        for place in 0..top_n {
            let Some(Column::F32(values)) = found.next() else { return Err(broken()) };
            for (slot, distance) in distances.iter_mut().skip(place).step_by(top_n).zip(values) {
                *slot = distance;
            }
        }
        match (found.next(), found.next()) {
            (Some(Column::U32(true_ranks)), Some(Column::F32(true_distances)))
                if true_ranks.len() == len && true_distances.len() == len =>
            {
                Ok(Self { rows, items, distances, true_ranks, true_distances })
            }
            _ => Err(broken()),
        }
    }
}

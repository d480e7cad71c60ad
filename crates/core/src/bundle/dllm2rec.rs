//! The three files of DLLM2Rec: item vectors, ranked ids and their distances, line t for training row t.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
};

use serde_json::json;

use super::{
    Bundle, Imported, MANIFEST_FILE, Position, bad,
    import::{Collector, Given, ItemIds, RowIds},
    read_embeddings, write_pt,
};
use crate::{Error, Result, data::Dataset};

/// Vectors of the items, `[N, D]`, row = item.
pub const EMBEDDINGS: &str = "all_embeddings.pt";
/// Items, best first, one line a row, separated by blanks.
pub const RANKS: &str = "myrank_train.txt";
/// The matching distances, in the same form.
pub const CONFIDENCES: &str = "confidence_train.txt";

/// Whether a folder holds such files.
pub fn is_layout(folder: &Path) -> bool {
    folder.join(RANKS).is_file()
}

/// Reads the three files of `folder`; the vectors may be missing, the lists not.
///
/// # Errors
/// Names file, line and row: another number of lines than the data set has rows, unequal lines, ids out of range or
/// twice, distances that are NaN, negative or descending, vectors of another height or not finite.
pub fn read(folder: &Path, dataset: &Dataset, position: Position, top_n: Option<usize>) -> Result<Imported> {
    let (ranks, confidences) = (folder.join(RANKS), folder.join(CONFIDENCES));
    let mut rows = Collector::new(&ranks, dataset, position, (RowIds::Number, ItemIds::Index), Given::Distance, top_n);
    let (mut items, mut distances) = (Lines::open(&ranks)?, Lines::open(&confidences)?);
    let n_rows = position.rows(dataset).n_targets();
    let mut n = 0;
    loop {
        let (list, numbers) = (items.next()?, distances.next()?);
        if list.is_none() && numbers.is_none() {
            break;
        }
        if n >= n_rows || list.is_none() || numbers.is_none() {
            let short = if list.is_none() { &ranks } else { &confidences };
            let (path, message) = match n >= n_rows {
                true => (&ranks, format!("has more lines than the data set has rows ({n_rows})")),
                false => (short, format!("ends after {n} lines, the other file goes on")),
            };
            return Err(bad(path, message, "line t belongs to row t of the data set; were both files copied whole?"));
        }
        let (list, numbers) = (list.unwrap_or_default(), numbers.unwrap_or_default());
        let list: Vec<&str> = list.split_whitespace().collect();
        let numbers: Vec<&str> = numbers.split_whitespace().collect();
        if list.len() != numbers.len() {
            let message = format!("line {} (row {n}): {} numbers for {} items", n + 1, numbers.len(), list.len());
            return Err(bad(&confidences, message, "both files have the same number of columns"));
        }
        rows.add(n as u64 + 1, &n.to_string(), &list, &numbers)?;
        n += 1;
    }
    if n < n_rows {
        let message =
            format!("is truncated: {n} lines, the data set has {n_rows} rows at the position {}", position.name());
        return Err(bad(
            &ranks,
            message,
            "line t belongs to row t of the data set; import a table to label only some rows",
        ));
    }
    let vectors = folder.join(EMBEDDINGS);
    let embeddings = if vectors.is_file() { Some(read_embeddings(&vectors, dataset.n_items(), None)?) } else { None };
    let mut origin = json!({"imported": "dllm2rec", "position": position.name()});
    for path in [Some(&ranks), Some(&confidences), embeddings.as_ref().map(|_| &vectors)].into_iter().flatten() {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        origin[name] = super::FileInfo::of(path)?.sha256.into();
    }
    Ok(Imported { lists: rows.finish()?, confidence: Given::Distance.confidence(), embeddings, origin })
}

/// Lines of a text file, one at a time.
struct Lines<'a> {
    path: &'a Path,
    reader: BufReader<File>,
}

impl<'a> Lines<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        Ok(Self { path, reader: BufReader::new(File::open(path).map_err(Error::io(path, "read the lists"))?) })
    }

    fn next(&mut self) -> Result<Option<String>> {
        let mut line = String::new();
        let n = self.reader.read_line(&mut line).map_err(Error::io(self.path, "read the lists"))?;
        Ok((n > 0).then_some(line))
    }
}

/// Writes a bundle as the three files into `folder`, which is made; without item vectors only two of them.
///
/// # Errors
/// A bundle that is not for training rows, has rows without a list, or lists shorter than the others: that layout
/// cannot say so.
pub fn write(folder: &Path, bundle: &Bundle) -> Result<()> {
    let manifest = bundle.manifest();
    let refused = |message: String| {
        Err(bad(
            &bundle.folder().join(MANIFEST_FILE),
            message,
            "DLLM2Rec's files hold one full list for every training row",
        ))
    };
    if manifest.position != Position::Train {
        return refused(format!("position: the lists are for the {} rows", manifest.position.name()));
    }
    if bundle.n_missing() > 0 {
        return refused(format!("lists.rows: {} rows have no list", bundle.n_missing()));
    }
    let top_n = bundle.top_n();
    let short = (0..bundle.n_rows()).find(|&row| bundle.rankings(row).is_none_or(|(items, _)| items.len() < top_n));
    if let Some(row) = short {
        return refused(format!("row {row}: its list is shorter than {top_n}"));
    }
    fs::create_dir_all(folder).map_err(Error::io(folder, "make the folder"))?;
    lines(&folder.join(RANKS), bundle, |out, items, _| {
        items.iter().enumerate().try_for_each(|(i, item)| write!(out, "{}{item}", if i > 0 { " " } else { "" }))
    })?;
    // the shortest text that reads back as the same f32
    lines(&folder.join(CONFIDENCES), bundle, |out, _, distances| {
        distances.iter().enumerate().try_for_each(|(i, d)| write!(out, "{}{d}", if i > 0 { " " } else { "" }))
    })?;
    if manifest.embeddings.is_some() {
        write_pt(&folder.join(EMBEDDINGS), bundle.item_embeddings()?)?;
    }
    Ok(())
}

fn lines(
    path: &Path,
    bundle: &Bundle,
    line: impl Fn(&mut BufWriter<File>, &[u32], &[f32]) -> std::io::Result<()>,
) -> Result<()> {
    let beside = path.with_extension("txt.part");
    let write = || {
        let mut out = BufWriter::new(File::create(&beside)?);
        for (items, distances) in (0..bundle.n_rows()).filter_map(|row| bundle.rankings(row)) {
            line(&mut out, items, distances)?;
            out.write_all(b"\n")?;
        }
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&beside);
        Error::io(path, "write the lists")(e)
    })
}

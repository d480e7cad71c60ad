//! Any table of rows and ranked items: CSV, TSV, text with blanks, Parquet.
//!
//! The first column names the row; the others hold the list: one item a column, then, where there are any, one number a
//! column in the same order; or one column with all items (`[12, 7, 3]`, `12 7 3`), then one with all numbers.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::json;

pub use super::import::{Given, ItemIds, RowIds};
use super::{Imported, Position, bad, import::Collector};
use crate::{
    Error, Result,
    config::{Check, Problem},
    data::{
        Dataset,
        number_table::{read_texts, table_shape},
    },
};

/// Rows of a Parquet table read at once.
const SLICE: usize = 1 << 15;

/// How a table is laid out; `table:` in the configuration of `import-bundle`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableOptions {
    /// Between columns; null: `,` for .csv, tab for .tsv, blanks otherwise.
    #[serde(deserialize_with = "Option::deserialize")]
    pub separator: Option<String>,
    /// Whether the first line names the columns.
    pub header: bool,
    /// What the first column names.
    pub row: RowIds,
    /// How items are named.
    pub item: ItemIds,
    /// Which numbers stand behind the items.
    pub confidence: Given,
    /// Keep so many items of each list; null: all.
    #[serde(deserialize_with = "Option::deserialize")]
    pub top_n: Option<usize>,
}

impl Check for TableOptions {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.separator.as_ref().is_some_and(|s| s.is_empty() || s.contains(['\n', '\r', '"'])) {
            problems.push(Problem::new("separator", "wanted one or more characters other than a line end or a quote"));
        }
        if self.top_n == Some(0) {
            problems.push(Problem::new("top_n", "wanted at least 1 or null, got 0"));
        }
        problems
    }
}

/// Reads the lists of a table for the targets at `position`.
///
/// # Errors
/// Names the file, the line and the row of the first value that does not fit.
pub fn read(path: &Path, dataset: &Dataset, position: Position, options: &TableOptions) -> Result<Imported> {
    let ids = (options.row, options.item);
    let mut rows = Collector::new(path, dataset, position, ids, options.confidence, options.top_n);
    let is_parquet =
        path.extension().is_some_and(|e| e.eq_ignore_ascii_case("parquet") || e.eq_ignore_ascii_case("pq"));
    if is_parquet {
        parquet(path, options, &mut rows)?
    } else {
        text(path, options, &mut rows)?
    }
    let lists = rows.finish()?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let sha256 = super::FileInfo::of(path)?.sha256;
    let origin = json!({"imported": "table", "file": name, "sha256": sha256, "position": position.name()});
    Ok(Imported { lists, confidence: options.confidence.confidence(), embeddings: None, origin })
}

fn text(path: &Path, options: &TableOptions, rows: &mut Collector<'_>) -> Result<()> {
    let bytes = fs::read(path).map_err(Error::io(path, "read the lists"))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let good = e.utf8_error().valid_up_to();
        let line = e.as_bytes()[..good].iter().filter(|&&b| b == b'\n').count() as u64 + 1;
        let hint = Some("wanted a text table, or Parquet with the extension .parquet".to_owned());
        Error::Data { path: path.to_owned(), line: Some(line), message: "is not UTF-8".into(), hint }
    })?;
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    let separator = options.separator.as_deref().or(match extension.as_str() {
        "csv" => Some(","),
        "tsv" => Some("\t"),
        _ => None,
    });
    let lines = text.lines().zip(1u64..).filter(|(line, _)| !line.trim().is_empty());
    for (line, number) in lines.skip(usize::from(options.header)) {
        let cells = match separator {
            Some(separator) => split(line, separator),
            None => line.split_whitespace().collect(),
        };
        add(path, options, rows, number, &cells)?;
    }
    Ok(())
}

fn parquet(path: &Path, options: &TableOptions, rows: &mut Collector<'_>) -> Result<()> {
    let (mut names, n_rows) = table_shape(path)?;
    // those of a bundle's own file follow from the lists
    names.retain(|name| !name.starts_with("true_item_"));
    for from in (0..n_rows).step_by(SLICE) {
        let columns = read_texts(path, &names, from, SLICE.min(n_rows - from))?;
        for i in 0..columns.first().map_or(0, Vec::len) {
            let cells: Vec<&str> = columns.iter().map(|column| column[i].as_deref().unwrap_or("")).collect();
            add(path, options, rows, (from + i) as u64 + 1, &cells)?;
        }
    }
    Ok(())
}

fn add(path: &Path, options: &TableOptions, rows: &mut Collector<'_>, line: u64, cells: &[&str]) -> Result<()> {
    let wrong = |message: String| {
        let hint =
            "the first column names the row, the others hold items, then as many numbers if table.confidence says so";
        let mut error = bad(path, message, hint);
        if let Error::Data { line: at, .. } = &mut error {
            *at = Some(line);
        }
        error
    };
    let [row, rest @ ..] = cells else { return Err(wrong("is empty".into())) };
    let (items, values) = match (options.confidence, rest) {
        (Given::None, [list]) => (members(list), Vec::new()),
        (Given::None, _) => (filled(rest), Vec::new()),
        (_, [list, numbers]) if members(list).len() != 1 || members(numbers).len() != 1 => {
            (members(list), members(numbers))
        }
        (_, _) if rest.len() % 2 == 0 => {
            let (items, numbers) = rest.split_at(rest.len() / 2);
            (filled(items), filled(numbers))
        }
        _ => return Err(wrong(format!("{} columns behind the row: not as many numbers as items", rest.len()))),
    };
    if options.confidence != Given::None && items.len() != values.len() {
        return Err(wrong(format!("row {row}: {} items and {} numbers", items.len(), values.len())));
    }
    rows.add(line, row.trim(), &items, &values)
}

/// Cells up to the first empty one.
fn filled<'a>(cells: &[&'a str]) -> Vec<&'a str> {
    cells.iter().map(|cell| cell.trim()).take_while(|cell| !cell.is_empty()).collect()
}

/// Members of a list in one cell.
fn members(cell: &str) -> Vec<&str> {
    let inside = cell.trim().trim_matches(['[', ']', '(', ')']);
    let parts = inside.split(|c: char| c == ',' || c == ';' || c.is_whitespace());
    parts.map(|part| part.trim_matches(['\'', '"'])).filter(|part| !part.is_empty()).collect()
}

/// Cells of a line; a separator inside double quotes separates nothing.
fn split<'a>(line: &'a str, separator: &str) -> Vec<&'a str> {
    let (mut cells, mut rest) = (Vec::new(), line);
    loop {
        let quoted = rest.strip_prefix('"').and_then(|inside| {
            let (cell, after) = inside.split_once('"')?;
            (after.is_empty() || after.starts_with(separator)).then_some((cell, after))
        });
        let (cell, after) = match quoted {
            Some((cell, after)) => (cell, after.strip_prefix(separator)),
            None => rest.split_once(separator).map_or((rest, None), |(cell, after)| (cell, Some(after))),
        };
        cells.push(cell);
        match after {
            Some(after) => rest = after,
            None => return cells,
        }
    }
}

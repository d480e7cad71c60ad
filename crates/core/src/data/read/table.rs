//! Tables in any format: finds the columns asked for, converts them strictly, and says on which line a value is wrong.

use std::{collections::HashMap, path::Path};

use super::{
    super::config::{Column, Encoding, Format, TextConfig},
    data_error,
    polars_io::{self, Failure, Frame},
    resolve_format,
    text::{self, Layout},
};
use crate::Result;

/// A column to read.
pub(super) struct Want<'a> {
    /// The configuration's key, for messages.
    pub(super) key: &'a str,
    /// Where it is in the file.
    pub(super) column: &'a Column,
    /// What it must be.
    pub(super) kind: Kind,
}

/// What a column must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ids: never empty.
    Ids,
    /// Numbers from 0 up.
    Numbers,
    /// Text; may be empty.
    Texts,
}

/// A column as read.
pub(super) enum Data {
    /// The row's id is `names[codes[row]]`; names in order of their first row.
    Ids { codes: Vec<u32>, names: Vec<String> },
    /// One number a row.
    Numbers(Vec<f64>),
    /// One text a row.
    Texts(Vec<String>),
}

/// Where the rows of a table lie in its file.
pub(super) struct Places {
    text: Option<String>,
    quotes: bool,
    header: bool,
}

impl Places {
    /// The 1-based line of a row; `None` in binary files.
    pub(super) fn line(&self, row: usize) -> Option<u64> {
        let text = self.text.as_deref()?;
        text::records(text, self.quotes).nth(row + usize::from(self.header)).map(|(line, _)| line)
    }
}

/// Reads the columns `wants` of the table at `path`.
///
/// # Errors
/// Names the column that is missing, or the line and the value that is wrong.
pub(super) fn read_table(
    path: &Path,
    format: Format,
    text: &TextConfig,
    wants: &[Want<'_>],
) -> Result<(Vec<Data>, Places)> {
    let format = resolve_format(format, path)?;
    let (frame, places) = match format {
        Format::Parquet => {
            let fail = |message: String| {
                data_error(
                    path,
                    None,
                    format!("cannot be read as Parquet: {message}"),
                    "is the file whole, and Parquet?",
                )
            };
            let names = polars_io::parquet_names(path).map_err(fail)?;
            let columns = find_columns(path, None, names.len(), Some(&names), wants, "")?;
            let wanted: Vec<String> = columns.iter().map(|&i| names[i].clone()).collect();
            let frame = polars_io::parquet(path, &wanted).map_err(fail)?;
            (frame, Places { text: None, quotes: false, header: false })
        }
        Format::Ndjson => read_ndjson(path, wants)?,
        _ => read_delimited(path, format, text, wants)?,
    };
    if frame.n_rows() == 0 {
        return Err(data_error(path, None, "has no rows", "get the file again, or name another"));
    }
    let data =
        wants.iter().enumerate().map(|(i, want)| convert(path, &frame, i, want, &places)).collect::<Result<_>>()?;
    Ok((data, places))
}

/// Every choice about a text file made: from the configuration, the format and the extension.
fn layout(path: &Path, format: Format, text: &TextConfig) -> Layout {
    let atomic = format == Format::Atomic;
    let csv = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"));
    let separator = match &text.separator {
        Some(separator) if !atomic => separator.clone(),
        _ if csv && !atomic => ",".to_owned(),
        _ => "\t".to_owned(),
    };
    Layout {
        separator,
        header: text.header || atomic,
        encoding: text.encoding,
        quotes: text.quotes && !atomic,
        max_columns: text.max_columns.filter(|_| !atomic),
    }
}

fn read_delimited(path: &Path, format: Format, config: &TextConfig, wants: &[Want<'_>]) -> Result<(Frame, Places)> {
    let layout = layout(path, format, config);
    let mut text = text::decode(path, text::read_bytes(path, "read the table")?, layout.encoding)?;
    let (_, first) = text::records(&text, layout.quotes).next().unwrap_or((1, ""));
    let first = text::fields(first, &layout);
    let n_columns = first.len();
    let names: Option<Vec<String>> = layout.header.then(|| {
        let short = |name: &String| match format {
            Format::Atomic => name.split(':').next().unwrap_or_default().trim().to_owned(),
            _ => name.trim().to_owned(),
        };
        first.iter().map(short).collect()
    });
    let guess = guess_separator(&text, &layout);
    let columns = find_columns(path, Some(1), n_columns, names.as_deref(), wants, &guess)?;
    let original = text.clone();
    // polars and the line reader must agree on what a row is
    if text.contains("\n\n") || text.contains("\n\r\n") || text.starts_with(['\n', '\r']) {
        text = text::records(&text, layout.quotes).map(|(_, record)| format!("{record}\n")).collect();
    }
    let places = Places { text: Some(original), quotes: layout.quotes, header: layout.header };
    let frame = match polars_io::delimited(text, &layout, n_columns, &columns) {
        Ok(frame) => frame,
        Err(message) => return Err(diagnose(path, &layout, n_columns, &places, &message)),
    };
    Ok((frame, places))
}

/// Finds the line that polars stumbled over.
fn diagnose(path: &Path, layout: &Layout, n_columns: usize, places: &Places, message: &str) -> crate::Error {
    let text = places.text.as_deref().unwrap_or_default();
    for (line, record) in text::records(text, layout.quotes) {
        let n = text::fields(record, layout).len();
        if n != n_columns {
            return data_error(
                path,
                Some(line),
                format!(
                    "{n} columns found, wanted {n_columns} as on the first line (separator {:?})",
                    layout.separator
                ),
                "is the file whole, and is dataset.text.separator right?",
            );
        }
    }
    data_error(path, None, format!("cannot be read: {message}"), "is the file whole, and are dataset.text.* right?")
}

fn guess_separator(text: &str, layout: &Layout) -> String {
    let first = text.lines().next().unwrap_or_default();
    let found = ["::", "\t", "|", ";", ","].into_iter().find(|s| *s != layout.separator && first.contains(s));
    found.map_or(String::new(), |s| {
        format!("the first line looks separated by {s:?}: write dataset.text.separator={s:?}")
    })
}

fn read_ndjson(path: &Path, wants: &[Want<'_>]) -> Result<(Frame, Places)> {
    let text = text::decode(path, text::read_bytes(path, "read the table")?, Encoding::Utf8)?;
    let mut names: Vec<String> = Vec::new();
    // a key may be missing on some lines, so more than the first line is asked for the names
    for (line, record) in text::records(&text, false).take(100) {
        for key in json_object(path, line, record)?.keys() {
            if !names.contains(key) {
                names.push(key.clone());
            }
        }
    }
    let columns = find_columns(path, None, names.len(), Some(&names), wants, "")?;
    let wanted: Vec<String> = columns.iter().map(|&i| names[i].clone()).collect();
    let frame = match polars_io::ndjson(&text, &wanted) {
        Ok(frame) => frame,
        Err(message) => {
            for (line, record) in text::records(&text, false) {
                json_object(path, line, record)?;
            }
            let message = format!("cannot be read as NDJSON: {message}");
            return Err(data_error(path, None, message, "one JSON object a line"));
        }
    };
    Ok((frame, Places { text: Some(text), quotes: false, header: false }))
}

fn json_object(path: &Path, line: u64, record: &str) -> Result<serde_json::Map<String, serde_json::Value>> {
    let hint = "one whole object a line; is the file whole?";
    match serde_json::from_str(record) {
        Ok(serde_json::Value::Object(map)) => Ok(map),
        Ok(_) => Err(data_error(path, Some(line), "wanted a JSON object", hint)),
        Err(error) => Err(data_error(path, Some(line), format!("is not JSON: {error}"), hint)),
    }
}

/// The places (from 0) of the columns.
fn find_columns(
    path: &Path,
    line: Option<u64>,
    n_columns: usize,
    names: Option<&[String]>,
    wants: &[Want<'_>],
    separator_hint: &str,
) -> Result<Vec<usize>> {
    let find = |want: &Want<'_>| match (want.column, names) {
        (Column::Number(number), _) if (1..=n_columns).contains(number) => Ok(number - 1),
        (Column::Number(number), _) => {
            let found = if n_columns == 1 { "1 column".to_owned() } else { format!("{n_columns} columns") };
            let hint = if separator_hint.is_empty() { "columns are counted from 1" } else { separator_hint };
            Err(data_error(path, line, format!("{found} found, wanted column {number} for {}", want.key), hint))
        }
        (Column::Name(name), None) => Err(data_error(
            path,
            line,
            format!("{} is `{name}`, but the file has no line with names", want.key),
            &format!("give the column's number (from 1 to {n_columns}), or text.header=true"),
        )),
        (Column::Name(name), Some(names)) => names
            .iter()
            .position(|known| known == name)
            .ok_or_else(|| missing(path, line, name, names, want, separator_hint)),
    };
    wants.iter().map(find).collect()
}

fn missing(path: &Path, line: Option<u64>, name: &str, names: &[String], want: &Want<'_>, hint: &str) -> crate::Error {
    let nearest = names.iter().map(|known| (strsim::jaro_winkler(&known.to_lowercase(), &name.to_lowercase()), known));
    let nearest = nearest.filter(|(score, _)| *score > 0.7).max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = match nearest {
        // A single name that holds separators is like every wanted name.
        _ if names.len() == 1 && !hint.is_empty() => hint.to_owned(),
        Some((_, known)) => format!("did you mean dataset.{}={known}?", want.key),
        None => format!("set dataset.{} to one of them, or to null if there is none", want.key),
    };
    data_error(path, line, format!("no column `{name}` ({}); the columns are: {}", want.key, names.join(", ")), &hint)
}

fn convert(path: &Path, frame: &Frame, column: usize, want: &Want<'_>, places: &Places) -> Result<Data> {
    let wrong = |(row, failure): (usize, Failure<String>)| match failure {
        Failure::Kind(kind) => data_error(path, None, format!("column {} {kind}", name(want)), ""),
        Failure::Value(message) => {
            let line = places.line(row);
            let row = if line.is_none() { format!("row {}: ", row + 1) } else { String::new() };
            data_error(path, line, format!("{row}{message}"), "is the file whole, and are the columns right?")
        }
    };
    match want.kind {
        Kind::Ids => {
            let (mut codes, mut names) = (Vec::with_capacity(frame.n_rows()), Vec::new());
            let mut known: HashMap<String, u32> = HashMap::new();
            let take = |value: Option<&str>| {
                let id = value
                    .map(str::trim)
                    .filter(|id| !id.is_empty())
                    .ok_or_else(|| format!("column {} is empty", name(want)))?;
                let code = match known.get(id) {
                    Some(code) => *code,
                    None => {
                        let code = names.len() as u32;
                        names.push(id.to_owned());
                        known.insert(id.to_owned(), code);
                        code
                    }
                };
                codes.push(code);
                Ok(())
            };
            frame.texts(column, take).map_err(wrong)?;
            Ok(Data::Ids { codes, names })
        }
        Kind::Texts => {
            let mut texts = Vec::with_capacity(frame.n_rows());
            let take = |value: Option<&str>| -> Result<(), String> {
                texts.push(value.unwrap_or_default().trim().to_owned());
                Ok(())
            };
            frame.texts(column, take).map_err(wrong)?;
            Ok(Data::Texts(texts))
        }
        Kind::Numbers => {
            let mut numbers = Vec::with_capacity(frame.n_rows());
            let mut take = |value: Option<f64>, shown: &str| match value {
                Some(number) if number.is_finite() && number >= 0.0 => {
                    numbers.push(number);
                    Ok(())
                }
                Some(_) => Err(format!("column {}: wanted a finite number from 0 up, got `{shown}`", name(want))),
                None if shown.is_empty() => Err(format!("column {} is empty", name(want))),
                None => Err(format!("column {}: wanted a number, got `{shown}`", name(want))),
            };
            match frame.numbers(column).map_err(|kind| wrong((0, Failure::Kind(kind))))? {
                Some(values) => {
                    for (row, value) in values.into_iter().enumerate() {
                        let shown = value.map_or(String::new(), |v| v.to_string());
                        take(value, &shown).map_err(|message| wrong((row, Failure::Value(message))))?;
                    }
                }
                None => {
                    let parse = |value: Option<&str>| {
                        let shown = value.unwrap_or_default().trim();
                        take(shown.parse().ok(), shown)
                    };
                    frame.texts(column, parse).map_err(wrong)?;
                }
            }
            Ok(Data::Numbers(numbers))
        }
    }
}

fn name(want: &Want<'_>) -> String {
    match want.column {
        Column::Number(number) => format!("{number} ({})", want.key),
        Column::Name(name) => format!("`{name}` ({})", want.key),
    }
}

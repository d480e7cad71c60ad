//! Reading the formats; each reader turns a file into plain vectors, so nothing outside knows where they came from.

mod interactions;
mod items;
mod polars_io;
mod sequences;
mod table;
mod text;
mod windows;

pub(super) use interactions::{Interactions, read_interactions};
pub(super) use items::{ItemTable, read_items};
pub(super) use windows::{Windows, read_windows};

use std::path::Path;

use super::config::Format;
use crate::{Error, Result};

/// An [`Error::Data`] with a hint.
pub(in crate::data) fn data_error(path: &Path, line: Option<u64>, message: impl Into<String>, hint: &str) -> Error {
    let hint = (!hint.is_empty()).then(|| hint.to_owned());
    Error::Data { path: path.to_owned(), line, message: message.into(), hint }
}

/// What [`Format::Auto`] means for this file.
pub(super) fn resolve_format(format: Format, path: &Path) -> Result<Format> {
    if format != Format::Auto {
        return Ok(format);
    }
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    match extension.as_str() {
        "csv" | "tsv" | "txt" | "dat" | "data" => Ok(Format::Delimited),
        "parquet" | "pq" => Ok(Format::Parquet),
        "ndjson" | "jsonl" => Ok(Format::Ndjson),
        "inter" | "item" => Ok(Format::Atomic),
        _ => Err(data_error(
            path,
            None,
            format!("the extension `{extension}` does not say how the file is written"),
            "write dataset.format=delimited, parquet, ndjson or atomic",
        )),
    }
}

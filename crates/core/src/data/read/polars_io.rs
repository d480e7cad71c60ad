//! The only user of polars: a table file becomes columns of text or numbers.

use std::{io::Cursor, path::Path, sync::Arc};

use polars::prelude::{
    Column, DataFrame, DataType, JsonFormat, JsonReader, LazyCsvReader, LazyFileListReader, LazyFrame, PlRefPath,
    PlSmallStr, PolarsError, ScanArgsParquet, ScanSources, Schema, SerReader, col,
};

use super::text::{self, Layout};

/// Some columns of a table, in the order asked for.
pub(super) struct Frame {
    columns: Vec<Column>,
}

/// Columns `wanted` (from 0) of `n_columns` in a delimited text; `Err` is polars' message.
pub(super) fn delimited(text: String, layout: &Layout, n_columns: usize, wanted: &[usize]) -> Result<Frame, String> {
    let one_byte = layout.separator.len() == 1 && layout.max_columns.is_none();
    let (separator, quotes, text) = match one_byte {
        true => (layout.separator.as_bytes()[0], layout.quotes, text),
        false => (text::ONE_BYTE, false, text::with_one_byte_separator(&text, layout)),
    };
    let names: Vec<PlSmallStr> = (0..n_columns).map(|i| PlSmallStr::from_string(format!("c{i}"))).collect();
    let schema: Schema = names.iter().map(|name| (name.clone(), DataType::String)).collect();
    let sources = ScanSources::Buffers(Arc::from([text.into_bytes().into()]));
    let lazy = LazyCsvReader::new_with_sources(sources)
        .with_separator(separator)
        .with_quote_char(quotes.then_some(b'"'))
        .with_has_header(layout.header)
        .with_schema(Some(Arc::new(schema)))
        .finish()
        .map_err(message)?;
    collect(lazy, wanted.iter().map(|&i| names[i].as_str()))
}

/// Names of a Parquet file's columns.
pub(super) fn parquet_names(path: &Path) -> Result<Vec<String>, String> {
    let schema = scan_parquet(path)?.collect_schema().map_err(message)?;
    Ok(schema.iter_names().map(|name| name.to_string()).collect())
}

/// Columns of a Parquet file.
pub(super) fn parquet(path: &Path, wanted: &[String]) -> Result<Frame, String> {
    collect(scan_parquet(path)?, wanted.iter().map(String::as_str))
}

fn scan_parquet(path: &Path) -> Result<LazyFrame, String> {
    let path = PlRefPath::try_from_path(path).map_err(message)?;
    // a path is a path: no globbing, so that brackets in a folder's name do no harm
    LazyFrame::scan_parquet(path, ScanArgsParquet { glob: false, ..ScanArgsParquet::default() }).map_err(message)
}

/// Columns of a text with one JSON object a line, as text; other keys are skipped, missing ones have no value.
pub(super) fn ndjson(text: &str, wanted: &[String]) -> Result<Frame, String> {
    let schema: Schema = wanted.iter().map(|name| (PlSmallStr::from_str(name), DataType::String)).collect();
    let frame: DataFrame = JsonReader::new(Cursor::new(text.as_bytes()))
        .with_json_format(JsonFormat::JsonLines)
        .with_schema(Arc::new(schema))
        .finish()
        .map_err(message)?;
    let columns = wanted.iter().map(|name| frame.column(name).cloned().map_err(message)).collect::<Result<_, _>>()?;
    Ok(Frame { columns })
}

fn collect<'a>(lazy: LazyFrame, names: impl Iterator<Item = &'a str> + Clone) -> Result<Frame, String> {
    let mut unique: Vec<&str> = names.clone().collect();
    unique.sort_unstable();
    unique.dedup();
    let frame = lazy.select(unique.into_iter().map(col).collect::<Vec<_>>()).collect().map_err(message)?;
    let columns = names.map(|name| frame.column(name).cloned().map_err(message)).collect::<Result<_, _>>()?;
    Ok(Frame { columns })
}

impl Frame {
    /// Number of rows.
    pub(super) fn n_rows(&self) -> usize {
        self.columns.first().map_or(0, Column::len)
    }

    /// Calls `f` with each row's value as text, `None` where there is none; stops at the first error with its row.
    pub(super) fn texts<E>(
        &self,
        column: usize,
        mut f: impl FnMut(Option<&str>) -> Result<(), E>,
    ) -> Result<(), (usize, Failure<E>)> {
        let texts = as_text(&self.columns[column]).map_err(|kind| (0, Failure::Kind(kind)))?;
        let texts = texts.str().map_err(|error| (0, Failure::Kind(message(error))))?;
        for (row, value) in texts.iter().enumerate() {
            f(value).map_err(|error| (row, Failure::Value(error)))?;
        }
        Ok(())
    }

    /// The column as numbers when it is stored as numbers or times (then as their integers); `None` when it is text.
    pub(super) fn numbers(&self, column: usize) -> Result<Option<Vec<Option<f64>>>, String> {
        let column = &self.columns[column];
        if column.dtype() == &DataType::String {
            return Ok(None);
        }
        let physical = column.to_physical_repr();
        if !physical.dtype().is_primitive_numeric() {
            return Err(format!("is {}, wanted numbers", column.dtype()));
        }
        let numbers = physical.cast(&DataType::Float64).map_err(message)?;
        Ok(Some(numbers.f64().map_err(message)?.iter().collect()))
    }
}

/// Why a column could not be read.
pub(super) enum Failure<E> {
    /// The column as a whole is of a kind that has no text.
    Kind(String),
    /// The caller refused a value.
    Value(E),
}

fn as_text(column: &Column) -> Result<Column, String> {
    let dtype = column.dtype();
    if dtype == &DataType::String {
        return Ok(column.clone());
    }
    // ids such as 17.0 come from tools that store a column with gaps as floats
    let whole = if dtype.is_float() {
        let whole = column.cast(&DataType::Int64).map_err(message)?;
        let numbers = column.cast(&DataType::Float64).map_err(message)?;
        let fits = numbers.f64().map_err(message)?.iter().all(|v| v.is_none_or(|v| v.fract() == 0.0));
        if fits { whole } else { column.clone() }
    } else if dtype.is_integer() || dtype.is_bool() || matches!(dtype, DataType::Categorical(..) | DataType::Enum(..)) {
        column.clone()
    } else {
        return Err(format!("is {dtype}, wanted text or numbers"));
    };
    whole.cast(&DataType::String).map_err(message)
}

fn message(error: PolarsError) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or("unreadable").to_owned()
}

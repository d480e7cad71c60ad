//! Large Parquet tables of numbers, written and read some rows at a time so that the whole is never held as a frame.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use polars::{
    io::parquet::write::BatchedWriter,
    prelude::{
        DataFrame, DataType, IntoColumn, NamedFrom, ParquetReader, ParquetWriter, PolarsError, Schema, SerReader,
        Series,
    },
};

use super::{Column, read::data_error};
use crate::{Error, Result};

/// Writes a table in row groups.
pub(crate) struct NumberWriter {
    path: PathBuf,
    names: Vec<String>,
    writer: BatchedWriter<File>,
}

impl NumberWriter {
    /// Starts the file `path` with these columns; `true` stands for whole numbers, `false` for f32.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub(crate) fn create(path: &Path, columns: &[(String, bool)]) -> Result<Self> {
        let file = File::create(path).map_err(Error::io(path, "write the table"))?;
        let kind = |whole: bool| if whole { DataType::UInt32 } else { DataType::Float32 };
        let schema: Schema = columns.iter().map(|(name, whole)| (name.as_str().into(), kind(*whole))).collect();
        let writer = ParquetWriter::new(file).batched(&schema).map_err(|e| failed(path, e))?;
        Ok(Self { path: path.to_owned(), names: columns.iter().map(|(name, _)| name.clone()).collect(), writer })
    }

    /// Appends one row group: equally long columns in the order of [`NumberWriter::create`].
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&mut self, columns: Vec<Column>) -> Result<()> {
        let series = self.names.iter().zip(columns).map(|(name, column)| {
            let name = name.as_str().into();
            match column {
                Column::U32(values) => Series::new(name, values).into_column(),
                Column::F32(values) => Series::new(name, values).into_column(),
                Column::Text(values) => Series::new(name, values).into_column(),
                Column::TextOrNull(values) => Series::new(name, values).into_column(),
                Column::F64OrNull(values) => Series::new(name, values).into_column(),
            }
        });
        let frame = DataFrame::new_infer_height(series.collect()).map_err(|e| failed(&self.path, e))?;
        self.writer.write_batch(&frame).map_err(|e| failed(&self.path, e))
    }

    /// Writes the end of the file and flushes it to the disk.
    ///
    /// # Errors
    /// When that fails.
    pub(crate) fn finish(self) -> Result<()> {
        self.writer.finish().map_err(|e| failed(&self.path, e))?;
        File::open(&self.path).and_then(|f| f.sync_all()).map_err(Error::io(&self.path, "flush the table to disk"))
    }
}

fn failed(path: &Path, error: PolarsError) -> Error {
    let source = match error {
        PolarsError::IO { error, .. } => std::io::Error::new(error.kind(), error.to_string()),
        other => std::io::Error::other(other.to_string()),
    };
    Error::io(path, "write the table")(source)
}

/// Names and number of rows of a Parquet file.
///
/// # Errors
/// When it is missing or no Parquet file.
pub(crate) fn table_shape(path: &Path) -> Result<(Vec<String>, usize)> {
    let mut reader = open(path)?;
    let rows = reader.num_rows().map_err(|e| unreadable(path, &e))?;
    let schema = reader.schema().map_err(|e| unreadable(path, &e))?;
    Ok((schema.iter_names().map(|name| name.to_string()).collect(), rows))
}

/// Rows `from..from + len` of some columns, each `true` as whole numbers and `false` as f32.
///
/// # Errors
/// A column that is missing, has gaps, or holds something else; `row` in the message counts from 0.
pub(crate) fn read_numbers(path: &Path, columns: &[(String, bool)], from: usize, len: usize) -> Result<Vec<Column>> {
    let frame = slice(path, columns.iter().map(|(name, _)| name.clone()).collect(), from, len)?;
    let read = |(name, whole): &(String, bool)| {
        let column = frame.column(name).map_err(|e| unreadable(path, &e))?;
        let wrong = |message: String| data_error(path, None, message, "the file was made by something else than anyo");
        if let Some(row) = (column.null_count() > 0).then(|| column.is_null().iter().position(|v| v == Some(true))) {
            return Err(wrong(format!("row {}: column `{name}` has no value", from + row.unwrap_or(0))));
        }
        let kind = if *whole { DataType::UInt32 } else { DataType::Float32 };
        if column.dtype() != &kind {
            return Err(wrong(format!("column `{name}` is {}, wanted {kind}", column.dtype())));
        }
        Ok(if *whole {
            Column::U32(column.u32().map_err(|e| unreadable(path, &e))?.iter().flatten().collect())
        } else {
            Column::F32(column.f32().map_err(|e| unreadable(path, &e))?.iter().flatten().collect())
        })
    };
    columns.iter().map(read).collect()
}

/// Rows `from..from + len` of some columns as texts, `None` where there is no value.
///
/// # Errors
/// A column that is missing or holds something that has no text.
pub(crate) fn read_texts(path: &Path, columns: &[String], from: usize, len: usize) -> Result<Vec<Vec<Option<String>>>> {
    let frame = slice(path, columns.to_vec(), from, len)?;
    let read = |name: &String| {
        let column = frame.column(name).map_err(|e| unreadable(path, &e))?;
        let texts = column.cast(&DataType::String).map_err(|e| unreadable(path, &e))?;
        let texts = texts.str().map_err(|e| unreadable(path, &e))?;
        Ok(texts.iter().map(|text| text.map(str::to_owned)).collect())
    };
    columns.iter().map(read).collect()
}

fn slice(path: &Path, columns: Vec<String>, from: usize, len: usize) -> Result<DataFrame> {
    open(path)?.with_columns(Some(columns)).with_slice(Some((from, len))).finish().map_err(|e| unreadable(path, &e))
}

fn open(path: &Path) -> Result<ParquetReader<File>> {
    Ok(ParquetReader::new(File::open(path).map_err(Error::io(path, "read the table"))?))
}

fn unreadable(path: &Path, error: &PolarsError) -> Error {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or("unreadable");
    data_error(path, None, format!("cannot be read as Parquet: {first}"), "is the file whole, and Parquet?")
}

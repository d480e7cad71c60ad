//! Named columns to and from one Parquet file.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use polars::prelude::{
    DataFrame, DataType, IntoColumn, NamedFrom, ParquetReader, ParquetWriter, PolarsError, SerReader, Series,
};

use crate::{Error, Result};

/// The values of one column of a table.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// Whole numbers.
    U32(Vec<u32>),
    /// Numbers.
    F32(Vec<f32>),
    /// Texts.
    Text(Vec<String>),
    /// Texts, some missing. There is no list type: polars writes lists of texts in a form that pandas cannot read.
    TextOrNull(Vec<Option<String>>),
    /// Numbers, some missing.
    F64OrNull(Vec<Option<f64>>),
}

/// Writes `columns`, which are equally long, as the Parquet file `path`: beside it first, then renamed, so a reader
/// never sees half a file. Missing folders are made.
///
/// # Errors
/// [`Error::Io`] when the file cannot be written; [`Error::Invalid`] when the columns are unequal or share a name.
pub fn write_parquet(path: &Path, columns: Vec<(String, Column)>) -> Result<()> {
    let columns = columns.into_iter().map(|(name, column)| series(name, column).into_column()).collect();
    let mut frame = DataFrame::new_infer_height(columns)
        .map_err(|error| Error::invalid(format!("{}: the columns do not fit together: {error}", path.display())))?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(Error::io(folder, "make the folder"))?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    let result = write(&beside, &mut frame).and_then(|()| fs::rename(&beside, path));
    if result.is_err() {
        // the cause is reported below; a part that cannot be removed either adds nothing to it
        let _ = fs::remove_file(&beside);
    }
    result.map_err(Error::io(path, "write the table"))
}

fn write(path: &Path, frame: &mut DataFrame) -> io::Result<()> {
    let file = File::create(path)?;
    ParquetWriter::new(&file).finish(frame).map_err(|error| match error {
        PolarsError::IO { error, .. } => io::Error::new(error.kind(), error.to_string()),
        other => io::Error::other(other.to_string()),
    })?;
    file.sync_all()
}

fn series(name: String, column: Column) -> Series {
    let name = name.as_str().into();
    match column {
        Column::U32(values) => Series::new(name, values),
        Column::F32(values) => Series::new(name, values),
        Column::Text(values) => Series::new(name, values),
        Column::TextOrNull(values) => Series::new(name, values),
        Column::F64OrNull(values) => Series::new(name, values),
    }
}

/// Names of the columns of the Parquet file `path`, in their order.
///
/// # Errors
/// [`Error::Io`] when the file cannot be opened, [`Error::Data`] when it is no Parquet file.
pub fn parquet_columns(path: &Path) -> Result<Vec<String>> {
    let schema = reader(path)?.schema().map_err(damaged(path))?;
    Ok(schema.iter_names().map(|name| name.to_string()).collect())
}

/// The columns `names` of the Parquet file `path`, in this order: texts as [`Column::Text`], whole numbers as
/// [`Column::U32`], other numbers as [`Column::F64OrNull`].
///
/// # Errors
/// [`Error::Io`] when the file cannot be opened; [`Error::Data`] when it is no Parquet file, lacks a column, or a column
/// holds something else (a missing text or whole number, a number outside of u32).
pub fn read_parquet(path: &Path, names: &[&str]) -> Result<Vec<Column>> {
    let wanted: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let there = parquet_columns(path)?;
    if let Some(lacking) = wanted.iter().find(|name| !there.contains(name)) {
        return Err(Error::Data {
            path: path.to_owned(),
            line: None,
            message: format!("has no column `{lacking}`, only {}", there.join(", ")),
            hint: None,
        });
    }
    let frame = reader(path)?.with_columns(Some(wanted)).finish().map_err(damaged(path))?;
    let column = |&name: &&str| {
        let series = frame.column(name).map_err(damaged(path))?.as_materialized_series();
        column(series).map_err(|what| damaged(path)(format!("column `{name}` {what}")))
    };
    names.iter().map(column).collect()
}

fn reader(path: &Path) -> Result<ParquetReader<File>> {
    Ok(ParquetReader::new(File::open(path).map_err(Error::io(path, "open the table"))?))
}

fn damaged<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> Error + '_ {
    |why| Error::Data { path: path.to_owned(), line: None, message: format!("cannot be read: {why}"), hint: None }
}

fn column(series: &Series) -> std::result::Result<Column, String> {
    let missing = || "misses values".to_owned();
    match series.dtype() {
        DataType::String => {
            let texts = series.str().map_err(|e| e.to_string())?;
            texts
                .iter()
                .map(|text| text.map(str::to_owned))
                .collect::<Option<_>>()
                .map(Column::Text)
                .ok_or_else(missing)
        }
        kind if kind.is_integer() => {
            let numbers = series.strict_cast(&DataType::UInt32).map_err(|e| e.to_string())?;
            let numbers = numbers.u32().map_err(|e| e.to_string())?;
            numbers.iter().collect::<Option<_>>().map(Column::U32).ok_or_else(missing)
        }
        kind if kind.is_float() => {
            let numbers = series.cast(&DataType::Float64).map_err(|e| e.to_string())?;
            Ok(Column::F64OrNull(numbers.f64().map_err(|e| e.to_string())?.iter().collect()))
        }
        other => Err(format!("holds {other}, wanted texts or numbers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_a_bad_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        let columns = vec![
            ("n".to_owned(), Column::U32(vec![3, 4])),
            ("x".to_owned(), Column::F64OrNull(vec![None, Some(0.5)])),
            ("t".to_owned(), Column::Text(vec!["a".into(), "b".into()])),
        ];
        write_parquet(&path, columns.clone()).unwrap();
        assert_eq!(parquet_columns(&path).unwrap(), ["n", "x", "t"]);
        let back = read_parquet(&path, &["t", "n", "x"]).unwrap();
        assert_eq!(back, [columns[2].1.clone(), columns[0].1.clone(), columns[1].1.clone()]);
        let lacking = read_parquet(&path, &["rank"]).unwrap_err().to_string();
        assert!(lacking.contains("a.parquet: has no column `rank`, only n, x, t"), "{lacking}");
        fs::write(&path, b"PAR1 no table").unwrap();
        assert!(read_parquet(&path, &["n"]).unwrap_err().to_string().contains("a.parquet: cannot be read"));
        assert!(read_parquet(&dir.path().join("b"), &["n"]).unwrap_err().to_string().contains("cannot open the table"));
    }
}

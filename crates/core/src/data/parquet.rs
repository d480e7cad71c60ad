//! Writes named columns as one Parquet file.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use polars::prelude::{DataFrame, IntoColumn, NamedFrom, ParquetWriter, PolarsError, Series};

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
    }
}

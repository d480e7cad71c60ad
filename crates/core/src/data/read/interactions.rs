//! Interactions in the order of their file, whatever they were written in.

use std::path::Path;

use super::{
    resolve_format,
    sequences::read_sequences,
    table::{Data, Kind, Want, read_table},
};
use crate::{
    Result,
    data::config::{DatasetConfig, Format},
};

/// Interactions in file order; user and item are indices of `users` and `items`, which are in order of appearance.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::data) struct Interactions {
    pub(in crate::data) users: Vec<String>,
    pub(in crate::data) items: Vec<String>,
    pub(in crate::data) user: Vec<u32>,
    pub(in crate::data) item: Vec<u32>,
    /// Finite, from 0 up; `None`: the file order is the time order of each user.
    pub(in crate::data) time: Option<Vec<f64>>,
    pub(in crate::data) rating: Option<Vec<f64>>,
}

/// Reads the interactions of `config` from `path`, which is written in `format`.
///
/// # Errors
/// Names the line that is wrong, or the column that is missing.
pub(in crate::data) fn read_interactions(path: &Path, format: Format, config: &DatasetConfig) -> Result<Interactions> {
    let format = resolve_format(format, path)?;
    if format == Format::Sequences {
        return read_sequences(path, config.text.encoding);
    }
    let columns = &config.columns;
    let keys = [
        ("columns.user", &columns.user, Kind::Ids),
        ("columns.item", &columns.item, Kind::Ids),
        ("columns.time", &columns.time, Kind::Numbers),
        ("columns.rating", &columns.rating, Kind::Numbers),
    ];
    let wants: Vec<Want<'_>> = keys
        .iter()
        .filter_map(|(key, column, kind)| column.as_ref().map(|column| Want { key, column, kind: *kind }))
        .collect();
    let (data, _) = read_table(path, format, &config.text, &wants)?;
    let mut out = Interactions::default();
    for (want, data) in wants.iter().zip(data) {
        match (want.key, data) {
            ("columns.user", Data::Ids { codes, names }) => (out.user, out.users) = (codes, names),
            ("columns.item", Data::Ids { codes, names }) => (out.item, out.items) = (codes, names),
            ("columns.time", Data::Numbers(numbers)) => out.time = Some(numbers),
            ("columns.rating", Data::Numbers(numbers)) => out.rating = Some(numbers),
            _ => {}
        }
    }
    Ok(out)
}

//! Titles and other text of the items.

use std::{collections::HashMap, path::Path};

use super::{
    data_error, resolve_format,
    table::{Data, Kind, Want, read_table},
};
use crate::{
    Result,
    data::{
        config::{Column, Format, ItemsConfig, TitleConfig},
        dataset::Item,
        title,
    },
};

/// The items of an item file in file order, and where each id is.
#[derive(Debug, Clone, Default)]
pub(in crate::data) struct ItemTable {
    pub(in crate::data) items: Vec<Item>,
    pub(in crate::data) place: HashMap<String, usize>,
}

/// Reads the item file at `path`.
///
/// # Errors
/// Names the line of an empty, double or (with `id_shift`) non-numeric id, or the column that is missing.
pub(in crate::data) fn read_items(path: &Path, config: &ItemsConfig, title: &TitleConfig) -> Result<ItemTable> {
    let flags: Vec<Column> =
        config.flags.iter().flat_map(|flags| (0..flags.names.len()).map(|i| Column::Number(flags.first + i))).collect();
    let mut wants = vec![Want { key: "items.id", column: &config.id, kind: Kind::Texts }];
    wants.extend(config.title.iter().map(|column| Want { key: "items.title", column, kind: Kind::Texts }));
    wants.extend(config.other.iter().map(|column| Want { key: "items.other", column, kind: Kind::Texts }));
    wants.extend(flags.iter().map(|column| Want { key: "items.flags", column, kind: Kind::Texts }));
    let format = resolve_format(config.format, path)?;
    debug_assert!(!matches!(format, Format::Toy | Format::Windows | Format::Sequences));
    let (data, places) = read_table(path, format, &config.text, &wants)?;
    let texts: Vec<Vec<String>> =
        data.into_iter().map(|d| if let Data::Texts(t) = d { t } else { Vec::new() }).collect();
    let (n_titles, n_other) = (usize::from(config.title.is_some()), config.other.len());
    let mut table = ItemTable::default();
    for row in 0..texts[0].len() {
        let id = shifted(&texts[0][row], config.id_shift).map_err(|message| {
            data_error(path, places.line(row), message, "is the file whole, and is items.id right?")
        })?;
        let cleaned = if n_titles == 1 { title::clean(&texts[1][row], title) } else { String::new() };
        let mut parts: Vec<&str> = Vec::new();
        for column in &texts[1 + n_titles..1 + n_titles + n_other] {
            match &config.other_separator {
                Some(separator) => parts.extend(column[row].split(separator.as_str())),
                None => parts.push(&column[row]),
            }
        }
        if let Some(flags) = &config.flags {
            let columns = &texts[1 + n_titles + n_other..];
            parts
                .extend(columns.iter().zip(&flags.names).filter(|(c, _)| c[row] == "1").map(|(_, name)| name.as_str()));
        }
        let text = parts.iter().map(|p| p.trim()).filter(|p| !p.is_empty()).collect::<Vec<_>>().join(", ");
        if table.place.insert(id.clone(), table.items.len()).is_some() {
            let hint = "each item has one line; remove the other one";
            return Err(data_error(path, places.line(row), format!("item `{id}` is there twice"), hint));
        }
        let title = if cleaned.is_empty() { id.clone() } else { cleaned };
        table.items.push(Item { id, title, text });
    }
    Ok(table)
}

fn shifted(id: &str, shift: i64) -> Result<String, String> {
    if id.is_empty() {
        return Err("the item id is empty".into());
    }
    if shift == 0 {
        return Ok(id.to_owned());
    }
    let number: i64 = id.parse().map_err(|_| format!("items.id_shift needs whole numbers as ids, got `{id}`"))?;
    number
        .checked_add(shift)
        .filter(|n| *n >= 0)
        .map(|n| n.to_string())
        .ok_or_else(|| format!("item id {id} is below 0 after items.id_shift {shift}"))
}

//! Histories with their target, one a row: `seq`, `len_seq`, `next`.

use std::path::Path;

use super::{
    data_error,
    table::{Data, Kind, Want, read_table},
};
use crate::{
    Result,
    data::config::{Column, Encoding, Format, TextConfig},
};

/// Rows of one file: history and target in one flat buffer, with the stated length of each history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::data) struct Windows {
    /// History and target of each row.
    pub(in crate::data) rows: Vec<Vec<u32>>,
    /// `len_seq` as stated: an empty history has 1.
    pub(in crate::data) stated: Vec<usize>,
    /// The user of each row, where the file has one.
    pub(in crate::data) users: Option<Vec<String>>,
}

/// Reads one file; ids are `0..pad`, `pad` fills a history up at its end, and `id:rating` counts as `id`.
///
/// # Errors
/// Names the line whose ids, length or padding are wrong.
pub(in crate::data) fn read_windows(path: &Path, pad: u32, user: Option<&Column>) -> Result<Windows> {
    let column = |name: &str| Column::Name(name.to_owned());
    let (seq, len, next) = (column("seq"), column("len_seq"), column("next"));
    let mut wants = vec![
        Want { key: "seq", column: &seq, kind: Kind::Texts },
        Want { key: "len_seq", column: &len, kind: Kind::Numbers },
        Want { key: "next", column: &next, kind: Kind::Texts },
    ];
    wants.extend(user.map(|column| Want { key: "windows.user", column, kind: Kind::Texts }));
    let layout =
        TextConfig { separator: None, header: true, encoding: Encoding::Utf8, quotes: true, max_columns: None };
    let (data, places) = read_table(path, Format::Auto, &layout, &wants)?;
    let mut data = data.into_iter();
    let (Some(Data::Texts(seqs)), Some(Data::Numbers(lens)), Some(Data::Texts(nexts))) =
        (data.next(), data.next(), data.next())
    else {
        return Err(data_error(path, None, "wanted columns seq, len_seq, next", ""));
    };
    let mut out = Windows::default();
    for (row, ((seq, len), next)) in seqs.iter().zip(&lens).zip(&nexts).enumerate() {
        let items = window(seq, *len, next, pad)
            .map_err(|message| data_error(path, places.line(row), message, "is windows.pad the number of items?"))?;
        out.rows.push(items);
        out.stated.push(*len as usize);
    }
    out.users = data.next().and_then(|d| if let Data::Texts(users) = d { Some(users) } else { None });
    Ok(out)
}

fn window(seq: &str, len: f64, next: &str, pad: u32) -> Result<Vec<u32>, String> {
    let mut items = Vec::new();
    let inner = seq.trim().trim_start_matches('[').trim_end_matches(']');
    let mut padded = 0;
    for value in inner.split([' ', ',']).filter(|value| !value.is_empty()) {
        match item(value)? {
            id if id == pad => padded += 1,
            id if id > pad => return Err(format!("item {id} in seq is not below windows.pad = {pad}")),
            _ if padded > 0 => return Err("a real item follows padding in seq; wanted padding at the end only".into()),
            id => items.push(id),
        }
    }
    // the original writer puts 1 where the history is empty
    if len.fract() != 0.0 || len as usize != items.len().max(1) {
        return Err(format!("len_seq is {len}, but seq has {} items before its padding", items.len()));
    }
    let target = item(next)?;
    if target >= pad {
        return Err(format!("next is {target}, which is not below windows.pad = {pad}"));
    }
    items.push(target);
    Ok(items)
}

/// `12`, `12:5` (with a rating) or `12.0`.
fn item(value: &str) -> Result<u32, String> {
    let id = value.split(':').next().unwrap_or_default().trim();
    let whole = id.strip_suffix(".0").unwrap_or(id);
    whole.parse().map_err(|_| format!("wanted an item number, got `{value}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_by_hand() {
        assert_eq!(window("[5, 6, 9, 9]", 2.0, "4.0", 9), Ok(vec![5, 6, 4]));
        assert_eq!(window("8:5 7:3 9:0", 2.0, "3:4", 9), Ok(vec![8, 7, 3]));
        assert_eq!(window("9 9 9", 1.0, "0", 9), Ok(vec![0]));
        for (seq, len, next) in [
            ("5 9 6", 2.0, "1"),
            ("5 6", 3.0, "1"),
            ("10", 1.0, "1"),
            ("1", 1.0, "9"),
            ("x", 1.0, "1"),
            ("1", 1.0, "2.5"),
        ] {
            assert!(window(seq, len, next, 9).is_err(), "{seq} {len} {next}");
        }
    }
}

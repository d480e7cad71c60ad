//! One user a line: the user, then the items oldest to newest.

use std::{collections::HashMap, path::Path};

use super::{Interactions, data_error, text};
use crate::{Result, data::config::Encoding};

/// Reads the file; values are separated by tabs or spaces.
///
/// # Errors
/// On a line with no item, or a user with two lines.
pub(super) fn read_sequences(path: &Path, encoding: Encoding) -> Result<Interactions> {
    let text = text::decode(path, text::read_bytes(path, "read the sequences")?, encoding)?;
    let mut out = Interactions::default();
    let mut item_codes: HashMap<&str, u32> = HashMap::new();
    let mut lines: HashMap<&str, u64> = HashMap::new();
    for (line, record) in text::records(&text, false) {
        let mut values = record.split_ascii_whitespace();
        let user = values.next().unwrap_or_default();
        if let Some(first) = lines.insert(user, line) {
            let message = format!("user `{user}` already has line {first}");
            return Err(data_error(path, Some(line), message, "join the two lines"));
        }
        let code = out.users.len() as u32;
        out.users.push(user.to_owned());
        let before = out.item.len();
        for item in values {
            let next = item_codes.len() as u32;
            let item_code = *item_codes.entry(item).or_insert(next);
            if item_code == next {
                out.items.push(item.to_owned());
            }
            out.item.push(item_code);
            out.user.push(code);
        }
        if out.item.len() == before {
            let message = "1 column found, wanted a user and at least one item separated by tabs or spaces";
            return Err(data_error(path, Some(line), message, "for other separators use a table (format: delimited)"));
        }
    }
    Ok(out)
}

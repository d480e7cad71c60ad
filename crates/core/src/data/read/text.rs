//! Text files: decoding, and a slow and careful reader of lines that finds the line an error is on.

use std::path::Path;

use super::{super::config::Encoding, data_error};
use crate::{Error, Result};

/// How a delimited file is laid out, every choice made.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) separator: String,
    pub(super) header: bool,
    pub(super) encoding: Encoding,
    pub(super) quotes: bool,
    pub(super) max_columns: Option<usize>,
}

/// The whole file.
pub(super) fn read_bytes(path: &Path, action: &'static str) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(Error::io(path, action))?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(data_error(path, None, "the file is empty", "get the file again, or name another"));
    }
    Ok(bytes)
}

/// The text of a file without its byte-order mark; latin-1 never fails, UTF-8 names the line that is none.
pub(super) fn decode(path: &Path, bytes: Vec<u8>, encoding: Encoding) -> Result<String> {
    match encoding {
        Encoding::Latin1 => Ok(bytes.iter().map(|&b| char::from(b)).collect()),
        Encoding::Utf8 => {
            if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x1f\x8b") {
                return Err(data_error(path, None, "the file is compressed", "unpack it first"));
            }
            let mut text = String::from_utf8(bytes).map_err(|error| {
                let good = error.utf8_error().valid_up_to();
                let line = error.as_bytes()[..good].iter().filter(|&&b| b == b'\n').count() as u64 + 1;
                data_error(path, Some(line), "is not UTF-8", "write encoding: latin1 if it is ISO-8859-1")
            })?;
            if text.starts_with('\u{feff}') {
                text.drain(..'\u{feff}'.len_utf8());
            }
            Ok(text)
        }
    }
}

/// Rows of a text with the 1-based line each starts on; blank lines are no rows; quoted values may span lines.
pub(super) fn records(text: &str, quotes: bool) -> impl Iterator<Item = (u64, &str)> {
    let (mut rest, mut line) = (text, 1u64);
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let end = record_end(rest, quotes);
            let record = &rest[..end];
            let start = line;
            line += record.bytes().filter(|&b| b == b'\n').count() as u64;
            rest = &rest[end..];
            let record = record.strip_suffix('\n').unwrap_or(record);
            let record = record.strip_suffix('\r').unwrap_or(record);
            if !record.trim().is_empty() {
                return Some((start, record));
            }
        }
    })
}

fn record_end(text: &str, quotes: bool) -> usize {
    let mut inside = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if quotes => inside = !inside,
            b'\n' if !inside => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The values of one row, without their quotes.
pub(super) fn fields(record: &str, layout: &Layout) -> Vec<String> {
    let separator = layout.separator.as_str();
    let limit = layout.max_columns.unwrap_or(usize::MAX);
    if !layout.quotes || !record.contains('"') {
        return record.splitn(limit, separator).map(str::to_owned).collect();
    }
    let mut out = Vec::new();
    let mut rest = record;
    loop {
        let (value, after) = match rest.strip_prefix('"') {
            Some(inner) if out.len() + 1 < limit => quoted(inner),
            _ if out.len() + 1 >= limit => (rest.to_owned(), None),
            _ => match rest.split_once(separator) {
                Some((value, after)) => (value.to_owned(), Some(after)),
                None => (rest.to_owned(), None),
            },
        };
        out.push(value);
        let Some(after) = after else { return out };
        rest = match after.strip_prefix(separator) {
            Some(next) if rest.starts_with('"') => next,
            _ if rest.starts_with('"') && after.is_empty() => return out,
            _ => after,
        };
    }
}

/// A quoted value whose opening quote is gone, and what follows its closing quote.
fn quoted(text: &str) -> (String, Option<&str>) {
    let (mut value, mut rest) = (String::new(), text);
    loop {
        let Some((part, after)) = rest.split_once('"') else {
            return (value + rest, None);
        };
        value += part;
        match after.strip_prefix('"') {
            Some(after) => {
                value.push('"');
                rest = after;
            }
            None => return (value, Some(after)),
        }
    }
}

/// The text with `separator` replaced by the control character U+001F, which a one-byte reader can split at.
pub(super) fn with_one_byte_separator(text: &str, layout: &Layout) -> String {
    let mut out = String::with_capacity(text.len());
    for (_, record) in records(text, layout.quotes) {
        for (i, field) in fields(record, layout).iter().enumerate() {
            if i > 0 {
                out.push(ONE_BYTE as char);
            }
            out.push_str(field);
        }
        out.push('\n');
    }
    out
}

/// Stands in for separators of several characters.
pub(super) const ONE_BYTE: u8 = 0x1f;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn layout(separator: &str, quotes: bool, max_columns: Option<usize>) -> Layout {
        Layout { separator: separator.into(), header: false, encoding: Encoding::Utf8, quotes, max_columns }
    }

    #[test]
    fn fields_by_hand() {
        assert_eq!(fields("1::Toy Story (1995)::A|B", &layout("::", false, None)), ["1", "Toy Story (1995)", "A|B"]);
        assert_eq!(fields("354::A :: B::C", &layout("::", false, Some(2))), ["354", "A :: B::C"]);
        assert_eq!(fields("\"a,b\",c,\"say \"\"x\"\"\"", &layout(",", true, None)), ["a,b", "c", "say \"x\""]);
        assert_eq!(fields("\"a\",", &layout(",", true, None)), ["a", ""]);
        assert_eq!(fields("a,b", &layout("\t", true, None)), ["a,b"]);
    }

    #[test]
    fn records_count_lines() {
        let text = "a\n\nb,\"x\ny\"\r\nc";
        assert_eq!(records(text, true).collect::<Vec<_>>(), [(1, "a"), (3, "b,\"x\ny\""), (5, "c")]);
        assert_eq!(records(text, false).map(|r| r.0).collect::<Vec<_>>(), [1, 3, 4, 5]);
    }

    #[test]
    fn bad_letters_name_the_line() {
        let error = decode(Path::new("u.item"), b"ok\ncaf\xe9\n".to_vec(), Encoding::Utf8).unwrap_err();
        assert_eq!(error.to_string(), "u.item line 2: is not UTF-8");
        assert_eq!(decode(Path::new("u.item"), b"caf\xe9".to_vec(), Encoding::Latin1).unwrap(), "café");
    }

    proptest! {
        #[test]
        fn quoted_fields_survive(values in prop::collection::vec("[a-z,\" ]{0,6}", 1..5)) {
            let line = values.iter().map(|v| format!("\"{}\"", v.replace('"', "\"\""))).collect::<Vec<_>>().join(",");
            prop_assert_eq!(fields(&line, &layout(",", true, None)), values);
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,40}", quotes: bool, limit in prop::option::of(1usize..4)) {
            let layout = layout("::", quotes, limit);
            for (_, record) in records(&text, quotes) {
                let n = fields(record, &layout).len();
                prop_assert!(limit.is_none_or(|limit| n <= limit));
            }
        }
    }
}

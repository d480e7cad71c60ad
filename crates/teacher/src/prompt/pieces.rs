//! Token ids of pieces of text that will stand inside a longer one.

use anyo_core::{Error, Result};
use anyo_lm::Tokenizer;

/// Many token lists in one buffer.
#[derive(Debug, Clone, Default)]
pub(crate) struct TokenLists {
    ids: Vec<i64>,
    ends: Vec<usize>,
}

impl TokenLists {
    pub(crate) fn push(&mut self, ids: impl IntoIterator<Item = i64>) {
        self.ids.extend(ids);
        self.ends.push(self.ids.len());
    }

    /// List `index`.
    pub(crate) fn get(&self, index: usize) -> &[i64] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.ids[start..self.ends[index]]
    }

    /// Length of the longest list.
    pub(crate) fn longest(&self) -> usize {
        (0..self.ends.len()).map(|i| self.get(i).len()).max().unwrap_or(0)
    }
}

/// Tokenises pieces of a prompt.
#[derive(Debug)]
pub(crate) struct Pieces<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    /// Anchors with their ids: a letter for pieces that begin with a blank, a line break for the others (a line break
    /// joins with blanks behind it, a letter with letters).
    anchors: [(char, Vec<u32>); 2],
}

impl<'a> Pieces<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer) -> Result<Self> {
        let anchors = [('a', tokenizer.encode("a", false)?), ('\n', tokenizer.encode("\n", false)?)];
        Ok(Self { tokenizer, anchors })
    }

    /// Ids of a text that begins a prompt.
    pub(crate) fn first(&self, text: &str) -> Result<Vec<i64>> {
        Ok(self.tokenizer.encode(text, false)?.into_iter().map(i64::from).collect())
    }

    /// Ids of exactly `text` in the middle of a longer one.
    ///
    /// Tokenizers in the style of Llama 2 put a word start in front of whatever they are given; the piece is therefore
    /// encoded behind an anchor whose ids are taken off again. Where the anchor does not stay apart (a vocabulary that
    /// joins it with the piece), the piece is encoded alone.
    pub(crate) fn inner(&self, text: &str) -> Result<Vec<i64>> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let (anchor, alone) = &self.anchors[usize::from(!text.starts_with(char::is_whitespace))];
        let anchored = self.tokenizer.encode(&format!("{anchor}{text}"), false)?;
        let ids = match anchored.strip_prefix(alone.as_slice()) {
            Some(rest) if !rest.is_empty() => rest.to_vec(),
            _ => self.tokenizer.encode(text, false)?,
        };
        if ids.is_empty() {
            return Err(Error::Invalid {
                message: format!("the tokenizer gives no token for {text:?}"),
                hint: Some("its vocabulary cannot write this script; choose prompts and titles that it can".into()),
            });
        }
        Ok(ids.into_iter().map(i64::from).collect())
    }
}

/// Splits a blank off the end: it belongs to the first token of what follows.
pub(crate) fn trailing_blank(text: &str) -> (&str, bool) {
    match text.strip_suffix(' ') {
        Some(rest) => (rest, true),
        None => (text, false),
    }
}

/// `text` with a blank in front where `blank`.
pub(crate) fn with_blank(text: &str, blank: bool) -> String {
    format!("{}{text}", if blank { " " } else { "" })
}

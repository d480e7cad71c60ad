//! Token ids to text, piece by piece.

use anyo_core::Result;

use crate::Tokenizer;

/// Decodes ids one at a time. A piece never ends inside a character, and all pieces together are exactly what
/// [`Tokenizer::decode`] gives for all ids.
///
/// The pieces of a byte-level vocabulary may cut a character anywhere; with byte fallback a run of byte tokens is text
/// only if the whole run is valid, so it is held until a token of another kind follows.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    ids: Vec<u32>,
    /// Where the tokens of the last piece start: decoders treat the first token of a text differently, so new tokens
    /// are decoded behind these.
    anchor: usize,
    /// Where the tokens without text yet start.
    pending: usize,
    /// Length of the text of `ids[anchor..pending]`.
    anchor_len: usize,
    /// Length of all pieces.
    emitted: usize,
}

impl<'a> TextStream<'a> {
    /// An empty stream; `skip_special` leaves special tokens out.
    pub fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Self {
        Self { tokenizer, skip_special, ids: Vec::new(), anchor: 0, pending: 0, anchor_len: 0, emitted: 0 }
    }

    /// Goes on behind these ids: pieces are what comes after their text.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub(crate) fn behind(mut self, ids: &[u32]) -> Result<Self> {
        let shown = |id: &&u32| self.tokenizer.has(**id) && !(self.skip_special && self.tokenizer.is_special(**id));
        self.ids = ids.iter().filter(shown).copied().collect();
        self.pending = self.ids.len();
        self.anchor_len = self.tokenizer.decode(&self.ids, self.skip_special)?.len();
        self.emitted = self.anchor_len;
        Ok(self)
    }

    /// The text that `id` completes, often empty.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn push(&mut self, id: u32) -> Result<String> {
        // left out before the decoder sees them: they do not end a run of bytes
        if !self.tokenizer.has(id) || (self.skip_special && self.tokenizer.is_special(id)) {
            return Ok(String::new());
        }
        self.ids.push(id);
        if self.tokenizer.is_byte(id) {
            return Ok(String::new());
        }
        let text = self.tokenizer.decode(&self.ids[self.anchor..], self.skip_special)?;
        // the replacement character stands for a character still incomplete
        let Some(piece) = text.get(self.anchor_len..).filter(|_| !text.ends_with('\u{fffd}')) else {
            return Ok(String::new());
        };
        let piece = piece.to_owned();
        if piece.is_empty() {
            self.pending = self.ids.len();
            return Ok(piece);
        }
        self.emitted += piece.len();
        self.anchor = self.pending;
        self.pending = self.ids.len();
        self.anchor_len = self.tokenizer.decode(&self.ids[self.anchor..], self.skip_special)?.len();
        Ok(piece)
    }

    /// The rest, where the ids end inside a character: with replacement characters, as a full decode has them.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn finish(self) -> Result<String> {
        if self.pending == self.ids.len() {
            return Ok(String::new());
        }
        let text = self.tokenizer.decode(&self.ids, self.skip_special)?;
        Ok(text.get(self.emitted..).unwrap_or_default().to_owned())
    }
}

//! A prompt as token ids with the places of its item markers: what the prompt side hands to the model side.

use anyo_core::Result;

/// Whether a prompt shows items by their titles alone or also by injected vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptMode {
    /// Every marker is the one that stands for no vector; nothing is injected.
    TextOnly,
    /// Markers are replaced by the projected item vectors.
    Hybrid,
}

/// A marker token whose embedding the item's projected vector replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Index of the marker in the ids.
    pub position: usize,
    /// The item.
    pub item: u32,
}

/// One prompt in tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prompted {
    /// Token ids from BOS to the last token of the answer cue.
    pub ids: Vec<i64>,
    /// Markers in order of position; none for [`PromptMode::TextOnly`].
    pub marks: Vec<Mark>,
    /// How many of the oldest history items were left out to fit the context.
    pub left_out: usize,
}

/// Where the training loop, the rankers and the export get their prompts from.
///
/// Histories come whole, oldest item first; how many of the newest a prompt shows is the source's own matter.
pub trait PromptSource {
    /// Number of templates; template indices lie below.
    fn n_templates(&self) -> usize;

    /// A prompt that lists candidates, one of which is to be named.
    ///
    /// # Errors
    /// When even one history item and all candidates do not fit the context.
    fn choice(&self, history: &[u32], candidates: &[u32], template: usize, mode: PromptMode) -> Result<Prompted>;

    /// A prompt without candidates: any item of the catalogue may be named.
    ///
    /// # Errors
    /// When not even one history item fits the context.
    fn open(&self, history: &[u32], template: usize, mode: PromptMode) -> Result<Prompted>;

    /// The tokens of the answer that names `item`: its title and the end mark.
    fn answer(&self, item: u32) -> &[i64];

    /// Ids that generation must never emit (markers, pad).
    fn banned(&self) -> &[u32];
}

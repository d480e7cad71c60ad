//! What generation, scoring and training need of a causal language model.

use anyo_core::Result;
use tch::{Device, Tensor};

use crate::pass::Pass;

/// Tokens of a forward pass.
#[derive(Debug, Default)]
pub struct LmInput {
    /// Token ids `[B,S]` in i64; for a decode step only the new ones.
    pub ids: Tensor,
    /// 1 for a token, 0 for a pad in front of it, `[B, past + S]` in i64; `None`: no pads. Positions count from each
    /// row's first token.
    pub mask: Option<Tensor>,
    /// Vectors `[B,S,D]` in place of the embedding of `ids` (injected items); `ids` still gives the shape.
    pub embeddings: Option<Tensor>,
    /// Document number of each place `[B,S]` in i64 for packed rows: attention and positions stay inside a document.
    /// Not together with `mask` or a filled cache.
    pub documents: Option<Tensor>,
}

/// A decoder with a key-value cache.
pub trait Causal {
    /// Keys and values of the tokens so far.
    type Cache;

    /// An empty cache for `rows` rows.
    fn new_cache(&self, rows: usize) -> Self::Cache;

    /// Repeats or reorders the rows of a cache: row i of the result is row `rows[i]` (a shared prefix, scored with many
    /// continuations).
    fn select_rows(&self, cache: &Self::Cache, rows: &[i64]) -> Result<Self::Cache>;

    /// Vectors of token ids `[B,S]`, `[B,S,D]`: for [`LmInput::embeddings`] with some of them replaced.
    ///
    /// # Errors
    /// When an id lies outside the vocabulary.
    fn embed(&self, ids: &Tensor) -> Result<Tensor>;

    /// States after the final norm `[B,S,D]`; appends to `cache` where one is given.
    ///
    /// # Errors
    /// When ids lie outside the vocabulary, shapes do not fit, or the context is too short.
    fn hidden(&self, input: &LmInput, cache: Option<&mut Self::Cache>, pass: &Pass<'_>) -> Result<Tensor>;

    /// Scores over the vocabulary for states `[.., D]`, `[.., V]`.
    fn logits(&self, hidden: &Tensor) -> Result<Tensor>;

    /// Longest sequence that positions exist for.
    fn max_positions(&self) -> usize;

    /// Rows of the embedding; ids lie below.
    fn vocab_size(&self) -> usize;

    /// Where the weights lie.
    fn device(&self) -> Device;
}

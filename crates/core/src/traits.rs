//! The few traits that crates meet in.

use tch::Tensor;

use crate::Result;

/// Histories to score, oldest item first; a history may be empty.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// The user of each history, `[B]`.
    pub users: &'a [u32],
    /// The histories, `[B]` slices of unequal length.
    pub histories: &'a [&'a [u32]],
}

/// Anything that ranks a catalogue for a history: students, teachers, popularity.
pub trait Recommender {
    /// Scores of all items, `[B, n_items]` in f32 on any device; higher is better; the caller checks for NaN.
    ///
    /// The caller passes batches of similar history length where it can, so trimming to the longest row pays.
    ///
    /// # Errors
    /// When the model cannot score the batch.
    fn score(&self, batch: &Batch<'_>) -> Result<Tensor>;
}

//! What a training keeps beside its weights, and what it comes to.

use anyo_core::{data::Dataset, torch::DataIdentity};
use serde::{Deserialize, Serialize};

/// Everything that a resumed run needs beside weights and optimizer state.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) data: DataIdentity,
    /// The language model below.
    pub(super) base_lm: String,
    /// Steps done.
    pub(super) step: u64,
    /// Epochs done, and steps in the current one.
    pub(super) epoch: u64,
    pub(super) step_in_epoch: u64,
    /// The step after which validation was last made; bits of the best value, so that JSON keeps them exactly.
    pub(super) validated: u64,
    pub(super) best_bits: Option<u64>,
    pub(super) best_step: u64,
    pub(super) waited: u64,
    pub(super) stopped_early: bool,
    /// Micro-batches so far, those with item vectors, those with candidates.
    pub(super) micro_batches: u64,
    pub(super) hybrid: u64,
    pub(super) choice: u64,
    pub(super) rows: u64,
    pub(super) tokens: u64,
    pub(super) left_out: u64,
    /// Over all attempts.
    pub(super) seconds: f64,
    pub(super) lm_seconds: f64,
}

impl State {
    pub(super) fn new(dataset: &Dataset, base_lm: String) -> Self {
        Self {
            data: DataIdentity::of(dataset),
            base_lm,
            step: 0,
            epoch: 0,
            step_in_epoch: 0,
            validated: 0,
            best_bits: None,
            best_step: 0,
            waited: 0,
            stopped_early: false,
            micro_batches: 0,
            hybrid: 0,
            choice: 0,
            rows: 0,
            tokens: 0,
            left_out: 0,
            seconds: 0.0,
            lm_seconds: 0.0,
        }
    }
}

/// What training came to; rates are over all attempts.
#[derive(Debug, Clone, Serialize)]
pub struct TeacherFitted {
    /// Optimizer steps done.
    pub steps: u64,
    /// Passes over the rows begun.
    pub epochs: u64,
    /// Step after which the best validation was made; 0 without one.
    pub best_step: u64,
    /// Best value of the selecting metric.
    pub best: Option<f64>,
    /// Whether patience ended it.
    pub stopped_early: bool,
    /// Training rows, targets left out for a short history, and those left out by `max_rows`.
    pub train_rows: u64,
    /// Targets left out because their history is shorter than `min_history`.
    pub too_short: u64,
    /// Targets left out by `max_rows`.
    pub not_drawn: u64,
    /// Rows gone through, repeats counted.
    pub rows: u64,
    /// Tokens gone through, pads not counted.
    pub tokens: u64,
    /// History items that did not fit the context, summed over rows gone through.
    pub items_left_out: u64,
    /// Share of the micro-batches with item vectors.
    pub hybrid_share: f64,
    /// Share of the micro-batches with candidates.
    pub choice_share: f64,
    /// Seconds of training, validation included.
    pub seconds: f64,
    /// Seconds in the language model, its backward pass and the losses.
    pub lm_seconds: f64,
}

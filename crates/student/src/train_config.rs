//! Configuration of the training loop; the defaults and their reasons stand in `conf/run-student-baseline.yaml`.

use anyo_core::config::{Check, Problem, Ranges};
use serde::{Deserialize, Serialize};

/// `train:` in the configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Rows of a batch, at least 1; with `bucket` their mean number.
    pub batch_size: usize,
    /// Batches whose gradients make one step, weighted by their number of targets; at least 1.
    pub accumulation: usize,
    /// Passes over the training rows at most; 0 evaluates the initial weights.
    pub epochs: u64,
    /// Group rows of like length into batches of about equally many targets, so that hardly any padding is computed.
    pub bucket: bool,
    /// Validate after every so many epochs, at least 1.
    pub valid_every: u64,
    /// The validation metric that selects the weights, such as `ndcg@10`.
    pub metric: String,
    /// Stop after so many validations without a better value; 0 never stops early.
    pub patience: u64,
    /// Validate on so many rows drawn once at random; 0 takes all.
    pub valid_rows: usize,
    /// Scalars are written every so many steps, at least 1.
    pub log_every: u64,
    /// When checkpoints are written.
    pub checkpoint: CheckpointConfig,
}

/// When checkpoints are written and how many stay.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointConfig {
    /// After every so many steps; 0 never.
    pub every_steps: u64,
    /// After so many minutes since the last; 0 never.
    pub every_minutes: f64,
    /// Checkpoints kept, at least 1.
    pub keep: usize,
}

impl Check for TrainConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut list = Ranges::default();
        list.at_least("batch_size", self.batch_size as f64, 1.0);
        list.at_least("accumulation", self.accumulation as f64, 1.0);
        list.at_least("valid_every", self.valid_every as f64, 1.0);
        list.at_least("log_every", self.log_every as f64, 1.0);
        list.at_least("checkpoint.keep", self.checkpoint.keep as f64, 1.0);
        if !(self.checkpoint.every_minutes >= 0.0 && self.checkpoint.every_minutes.is_finite()) {
            list.push("checkpoint.every_minutes", format!("wanted 0 or more, got {}", self.checkpoint.every_minutes));
        }
        list.0
    }
}

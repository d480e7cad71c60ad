//! Options of an export; their defaults stand in `conf/export-bundle.yaml`.

use anyo_core::{
    bundle::{Distance, Position},
    config::{Check, Problem},
};
use serde::{Deserialize, Serialize};

/// `export:` in the configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportConfig {
    /// K, the length of a list.
    pub top_n: usize,
    /// How scores become distances.
    pub distance: Distance,
    /// Leave items of the history out of the lists (the target never is on that account).
    pub exclude_history: bool,
    /// Whether a list may hold its row's target.
    pub target_may_appear: bool,
    /// Which rows get lists.
    pub position: Position,
    /// Label so many rows drawn at random; null: all.
    #[serde(deserialize_with = "Option::deserialize")]
    pub rows: Option<usize>,
    /// Draws them.
    pub rows_seed: u64,
    /// One forward pass a sequence, or one a target.
    pub pass: Pass,
    /// Items that enter one forward pass.
    pub batch_places: usize,
    /// Rows in memory before they become a part on disk.
    pub part_rows: usize,
    /// Seconds in memory before they do.
    pub part_seconds: u64,
}

/// How histories enter the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pass {
    /// `sequence` for training rows of a student that was trained with a target at every place, else `window`.
    Auto,
    /// One pass a sequence: the lists of all places at once, states as in training.
    Sequence,
    /// One pass a target: states as in evaluation, and as many times the work as a sequence has targets.
    Window,
}

impl Check for ExportConfig {
    fn problems(&self) -> Vec<Problem> {
        let sizes = [("top_n", self.top_n), ("batch_places", self.batch_places), ("part_rows", self.part_rows)];
        let mut problems: Vec<Problem> = sizes
            .iter()
            .filter(|(_, value)| *value == 0)
            .map(|(key, _)| Problem::new(*key, "wanted at least 1, got 0"))
            .collect();
        if self.rows == Some(0) {
            let hint = Some("write export.rows=null for all".to_owned());
            problems.push(Problem { hint, ..Problem::new("rows", "wanted at least 1 or null, got 0") });
        }
        problems
    }
}

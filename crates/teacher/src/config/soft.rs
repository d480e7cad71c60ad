//! `soft_targets:`, what the teacher learns from a student.

use std::path::PathBuf;

use anyo_core::config::{Check, Problem, Ranges};
use serde::{Deserialize, Serialize};

/// Lists of another model that the scoring head learns beside the true items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoftConfig {
    /// A run with a bundle, a bundle, or `latest`; null: the true items alone.
    #[serde(deserialize_with = "Option::deserialize")]
    pub run: Option<PathBuf>,
    /// Share of a row's target distribution that its list has, 0 to 1; the true item has the rest.
    pub share: f64,
    /// Items of a list that count.
    pub top_k: usize,
    /// Temperature of the list's distances; null: each list's standard deviation.
    #[serde(deserialize_with = "Option::deserialize")]
    pub tau: Option<f64>,
}

impl Check for SoftConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut list = Ranges::default();
        list.share("share", self.share);
        list.at_least("top_k", self.top_k as f64, 1.0);
        if let Some(tau) = self.tau {
            list.positive("tau", tau);
        }
        list.0
    }
}

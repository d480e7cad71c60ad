//! Popularity: the same ranking for everyone, by how often items occur in training, overall or of late.

use anyo_core::{
    Batch, Recommender, Result,
    config::{Check, Problem},
    data::Dataset,
};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// `student=popularity`; nothing to set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PopularityConfig {}

impl Check for PopularityConfig {
    fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }
}

/// `student=recent_popularity`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecentPopularityConfig {
    /// How many of the newest training interactions are counted, at least 1; all where there are fewer.
    pub window: usize,
}

impl Check for RecentPopularityConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.window == 0 {
            problems.push(Problem {
                hint: Some("10000 is a good start".to_owned()),
                ..Problem::new("window", "must be at least 1, got 0")
            });
        }
        problems
    }
}

/// Scores each item by a count. Equal counts stay equal: the evaluator ranks ties worst, so nothing is gained by them.
///
/// Counts above 2²⁴ are rounded to f32, which can only make ties of items that differ by less than one in 16 million.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Popularity {
    counts: Vec<u64>,
}

impl Popularity {
    /// By occurrences in all of training.
    pub fn new(dataset: &Dataset) -> Self {
        Self::from_counts(dataset.train_counts.clone())
    }

    /// By occurrences among the newest `config.window` training interactions.
    ///
    /// Where the data set knows no times across users the newest interactions are those of its last users (see
    /// [`Dataset::train_order`]), which is a sample and not a recent one.
    pub fn recent(dataset: &Dataset, config: &RecentPopularityConfig) -> Self {
        let order = &dataset.train_order;
        let mut counts = vec![0; dataset.n_items()];
        for &item in &order[order.len().saturating_sub(config.window)..] {
            counts[item as usize] += 1;
        }
        Self::from_counts(counts)
    }

    /// By given counts, `[n_items]`.
    pub fn from_counts(counts: Vec<u64>) -> Self {
        Self { counts }
    }

    /// The counts, `[n_items]`.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }
}

impl Recommender for Popularity {
    fn score(&self, batch: &Batch<'_>) -> Result<Tensor> {
        let scores: Vec<f32> = self.counts.iter().map(|&count| count as f32).collect();
        let n_items = scores.len() as i64;
        // one row in memory, seen B times
        Ok(Tensor::from_slice(&scores).f_expand([batch.histories.len() as i64, n_items], false)?)
    }
}

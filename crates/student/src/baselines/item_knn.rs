//! Item neighbours: an item scores by its likeness to the last items of the history.
//!
//! `sim(i, j) = |Uᵢ ∩ Uⱼ| / (√(|Uᵢ|·|Uⱼ|) + h)` with `Uᵢ` the users who have item i in training and h the shrinkage, kept
//! for the K most similar items of each. A history `… b a`, a newest, gives item j the score
//! `sim(a, j) + δ·sim(b, j) + δ²·…` over its last items. Sarwar et al., "Item-based collaborative filtering" (2001), with
//! the shrinkage of Bell and Koren (2007).
//!
//! Differs: recency decay, which the original has not. Items without a neighbour in the history all score 0; the
//! evaluator ranks those ties worst.

use std::thread;

use anyo_core::{
    Batch, Recommender, Result,
    config::{Check, Problem},
    data::Rows,
};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// `student=item_knn`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemKnnConfig {
    /// K, neighbours kept for each item, at least 1; memory is 8·K·n_items bytes.
    pub neighbours: usize,
    /// h, pulls similarities that rest on few users towards 0; at least 0.
    pub shrinkage: f64,
    /// Items at the end of the history that count, at least 1.
    pub history: usize,
    /// δ, weight of an item relative to the next newer one, in 0..=1; 1 ignores the order.
    pub decay: f64,
}

impl Check for ItemKnnConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (key, value) in [("neighbours", self.neighbours), ("history", self.history)] {
            if value == 0 {
                problems.push(Problem::new(key, "must be at least 1, got 0"));
            }
        }
        if !(self.shrinkage >= 0.0 && self.shrinkage.is_finite()) {
            problems.push(Problem::new("shrinkage", format!("must be at least 0, got {}", self.shrinkage)));
        }
        if !(0.0..=1.0).contains(&self.decay) {
            problems.push(Problem::new("decay", format!("must lie in 0..=1, got {}", self.decay)));
        }
        problems
    }
}

/// The neighbours of every item.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemKnn {
    /// For each item its neighbours with their similarity, most similar first; at most K.
    neighbours: Vec<Vec<(u32, f32)>>,
    history: usize,
    decay: f32,
}

impl ItemKnn {
    /// Counts co-occurrences among the users of `train` and keeps the best; `threads` share the items.
    ///
    /// Rows of the same user count together, and an item once per user. Work grows with the square of the users'
    /// lengths; beside the result, memory is `threads · n_items` counters and twice the interactions.
    pub fn fit(train: &Rows, n_items: usize, config: &ItemKnnConfig, threads: usize) -> Self {
        let by_user = items_by_user(train);
        let mut by_item = vec![Vec::new(); n_items];
        for (user, items) in by_user.iter().enumerate() {
            for &item in items {
                by_item[item as usize].push(user as u32);
            }
        }
        let mut neighbours = vec![Vec::new(); n_items];
        let share = n_items.div_ceil(threads.max(1) * 16).max(1);
        // small pieces handed out in turn, because popular items, which cost most, often have neighbouring numbers
        let mut pieces: Vec<Vec<_>> = (0..threads.max(1)).map(|_| Vec::new()).collect();
        for (i, piece) in neighbours.chunks_mut(share).enumerate() {
            let thread = i % pieces.len();
            pieces[thread].push((i * share, piece));
        }
        let (by_user, by_item) = (&by_user, &by_item);
        thread::scope(|scope| {
            for pieces in pieces {
                scope.spawn(move || {
                    let mut together = vec![0u32; n_items];
                    for (start, piece) in pieces {
                        for (i, neighbours) in piece.iter_mut().enumerate() {
                            *neighbours = nearest(start + i, by_user, by_item, &mut together, config);
                        }
                    }
                });
            }
        });
        Self { neighbours, history: config.history, decay: config.decay as f32 }
    }

    /// The neighbours of `item` with their similarities, most similar first.
    pub fn neighbours(&self, item: u32) -> &[(u32, f32)] {
        &self.neighbours[item as usize]
    }
}

impl Recommender for ItemKnn {
    fn score(&self, batch: &Batch<'_>) -> Result<Tensor> {
        let n_items = self.neighbours.len();
        let mut scores = vec![0f32; batch.histories.len() * n_items];
        for (row, history) in scores.chunks_exact_mut(n_items.max(1)).zip(batch.histories) {
            let mut weight = 1.0;
            for &item in history.iter().rev().take(self.history) {
                for &(other, similarity) in &self.neighbours[item as usize] {
                    row[other as usize] += weight * similarity;
                }
                weight *= self.decay;
            }
        }
        Ok(Tensor::from_slice(&scores).f_view([batch.histories.len() as i64, n_items as i64])?)
    }
}

/// The different items of each user, sorted.
fn items_by_user(train: &Rows) -> Vec<Vec<u32>> {
    let n_users = (0..train.len()).map(|row| train.user(row) as usize + 1).max().unwrap_or(0);
    let mut by_user = vec![Vec::new(); n_users];
    for row in 0..train.len() {
        by_user[train.user(row) as usize].extend_from_slice(train.items(row));
    }
    for items in &mut by_user {
        items.sort_unstable();
        items.dedup();
    }
    by_user
}

/// The K most similar items of `item`; equal similarities in ascending item order. `together` is all 0 before and after.
fn nearest(
    item: usize,
    by_user: &[Vec<u32>],
    by_item: &[Vec<u32>],
    together: &mut [u32],
    config: &ItemKnnConfig,
) -> Vec<(u32, f32)> {
    for &user in &by_item[item] {
        for &other in &by_user[user as usize] {
            together[other as usize] += 1;
        }
    }
    together[item] = 0;
    let mut found = Vec::new();
    for (other, count) in together.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
        let both = by_item[item].len() as f64 * by_item[other].len() as f64;
        found.push((other as u32, (f64::from(*count) / (both.sqrt() + config.shrinkage)) as f32));
        *count = 0;
    }
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if found.len() > config.neighbours {
        found.select_nth_unstable_by(config.neighbours - 1, order);
        found.truncate(config.neighbours);
    }
    found.sort_unstable_by(order);
    found.shrink_to_fit();
    found
}

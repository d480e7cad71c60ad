//! A fixed set that covers the vectors of all targets: greedy k-centre, the core-set of Sener and Savarese (ICLR 2018).

use anyo_core::{
    Error, Result, SelectionPolicy,
    bundle::choose_rows,
    config::{Check, Problem, Ranges},
    seed::{self, Stream},
};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::{Context, Features, Make, fixed::Fixed};

/// Keys of `k_center`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KCenterConfig {
    /// Targets that count; 0: none.
    pub n: usize,
    /// Draws the first centre and, where there are more targets than `candidates`, the candidates.
    pub seed: u64,
    /// Targets among which the centres are looked for, at least `n`; time is n × candidates × width.
    pub candidates: usize,
}

impl Check for KCenterConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut list = Ranges::default();
        list.at_least("candidates", self.candidates as f64, (self.n as f64).max(1.0));
        list.0
    }
}

impl Make for KCenterConfig {
    /// Chooses once, among the labelled targets; equal configurations choose equal sets, and a larger n contains a
    /// smaller one with the same seed and candidates.
    fn make(&self, context: &Context<'_>) -> Result<Box<dyn SelectionPolicy>> {
        let of_features = context.features.ok_or_else(|| Error::Invalid {
            message: "active=k_center covers vectors of the targets, and the teacher bundle has no item vectors".into(),
            hint: Some("use a bundle with item_embeddings.safetensors, or active=budget".into()),
        })?;
        let places = choose_rows(context.labelled.len(), self.candidates, self.seed);
        let candidates: Vec<u32> = places.iter().map(|&place| context.labelled[place as usize]).collect();
        if candidates.is_empty() || self.n == 0 {
            return Ok(Box::new(Fixed::new(&[], context.n_targets)));
        }
        let features = of_features(&candidates)?;
        features.check(candidates.len())?;
        let first = seed::rng(self.seed, Stream::Labelled, 1, 0).random_range(0..candidates.len());
        let chosen: Vec<u32> = farthest_first(&features, self.n, first).into_iter().map(|i| candidates[i]).collect();
        Ok(Box::new(Fixed::new(&chosen, context.n_targets)))
    }
}

/// Numbers of `n` vectors (all, where there are fewer): `first`, then again and again the one farthest from all chosen so
/// far in Euclidean distance; of equally far ones the first. The order of the choice, so a prefix is the answer for a
/// smaller n. The largest distance to a centre is at most twice the least possible (Gonzalez 1985).
pub fn farthest_first(features: &Features, n: usize, first: usize) -> Vec<usize> {
    let rows: Vec<&[f32]> = features.values.chunks_exact(features.dim.max(1)).collect();
    let mut chosen = Vec::with_capacity(n.min(rows.len()));
    if n == 0 || first >= rows.len() {
        return chosen;
    }
    // squared distance to the nearest centre; -1 for a centre, so that it is never chosen again
    let mut nearest = vec![f32::INFINITY; rows.len()];
    let mut newest = first;
    loop {
        nearest[newest] = -1.0;
        chosen.push(newest);
        if chosen.len() >= n.min(rows.len()) {
            return chosen;
        }
        let (mut best, mut far) = (newest, -1.0);
        for (i, row) in rows.iter().enumerate() {
            if nearest[i] < 0.0 {
                continue;
            }
            nearest[i] = nearest[i].min(squared_distance(row, rows[newest]));
            if nearest[i] > far {
                (best, far) = (i, nearest[i]);
            }
        }
        newest = best;
    }
}

/// In eight lanes, so that it becomes vector instructions; at most the largest finite number.
fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 8];
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| (x - y) * (x - y)).sum();
    for (a, b) in a.zip(b) {
        for ((lane, x), y) in lanes.iter_mut().zip(a).zip(b) {
            *lane += (x - y) * (x - y);
        }
    }
    (rest + lanes.iter().sum::<f32>()).min(f32::MAX)
}

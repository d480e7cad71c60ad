//! Candidate lists and wordings of rows: frozen for validation and test, drawn anew in every epoch of training.

use std::collections::BTreeSet;

use anyo_core::{
    Error, Result,
    data::Rows,
    seed::{Stream, derive, row_rng},
};
use rand::Rng;

use crate::prompt::config::CandidatesConfig;

/// Keeps these draws apart from those of other parts that use the same seed.
const CANDIDATES: u64 = 0x6361_6e64;
const TEMPLATE: u64 = 0x7465_6d70;

/// For which rows something is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Draw {
    /// Validation rows: always the same.
    Valid,
    /// Test rows: always the same.
    Test,
    /// Training rows, by the run's seed and the epoch.
    Train {
        /// The run's seed.
        seed: u64,
        /// The epoch.
        epoch: u64,
    },
}

/// One question: which of the candidates comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChoiceRow {
    /// The row among the data set's rows.
    pub row: usize,
    /// Items before the target, oldest first.
    pub history: Vec<u32>,
    /// The item to name.
    pub target: u32,
    /// The candidates with the target, in the order shown.
    pub candidates: Vec<u32>,
    /// Index of the wording.
    pub template: usize,
}

/// Draws candidate lists and wordings. What a row gets depends on seed, part and row, not on order or batches.
#[derive(Debug, Clone)]
pub struct Candidates {
    n_items: usize,
    n: usize,
    seed: u64,
}

impl Candidates {
    /// For a catalogue of `n_items` items.
    ///
    /// # Errors
    /// When the catalogue has fewer items than a list.
    pub fn new(n_items: usize, config: &CandidatesConfig) -> Result<Self> {
        if n_items < config.n {
            return Err(Error::Invalid {
                message: format!("a candidate list needs {} items, but the catalogue has {n_items}", config.n),
                hint: Some(format!("set candidates.n of the prompts to {n_items} or less")),
            });
        }
        Ok(Self { n_items, n: config.n, seed: config.seed })
    }

    /// Items of a list.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The target and `n − 1` different items that are neither the target nor in `history`, each such set equally
    /// likely, in random order. `key`: the row, in training [`crate::TrainRow::key`].
    ///
    /// A target that is also in the history (data with repeats) is a candidate all the same.
    ///
    /// # Errors
    /// When the catalogue without history and target has fewer than `n − 1` items; names row, wanted and got.
    pub fn list(&self, draw: Draw, key: u64, history: &[u32], target: u32) -> Result<Vec<u32>> {
        let outside: BTreeSet<u32> = history.iter().copied().chain([target]).collect();
        if let Some(&item) = outside.last().filter(|&&item| item as usize >= self.n_items) {
            return Err(Error::invalid(format!(
                "{}: item {item}, but there are {} items",
                name(draw, key),
                self.n_items
            )));
        }
        let (wanted, got) = (self.n - 1, self.n_items - outside.len());
        if got < wanted {
            return Err(Error::Invalid {
                message: format!(
                    "{}: {wanted} candidates beside the target are wanted, but the catalogue of {} items has only {got} \
                     outside of the row's history",
                    name(draw, key),
                    self.n_items
                ),
                hint: Some(format!("set candidates.n of the prompts to {} or less", got + 1)),
            });
        }
        let mut rng = row_rng(self.base(draw, CANDIDATES), key);
        let mut list = sample(&mut rng, got as u64, wanted);
        list.iter_mut().for_each(|rank| *rank = nth_outside(&outside, *rank));
        list.push(target);
        for i in (1..list.len()).rev() {
            list.swap(i, below(&mut rng, i as u64 + 1) as usize);
        }
        Ok(list)
    }

    /// Which of `n_templates` wordings a row gets; `n_templates` is at least 1.
    pub fn template(&self, draw: Draw, key: u64, n_templates: usize) -> usize {
        below(&mut row_rng(self.base(draw, TEMPLATE), key), n_templates as u64) as usize
    }

    /// The frozen questions of validation or test rows with at least `min_history` items of history.
    ///
    /// # Errors
    /// Those of [`Candidates::list`].
    pub fn rows(&self, draw: Draw, rows: &Rows, min_history: usize, n_templates: usize) -> Result<Vec<ChoiceRow>> {
        let asked = (0..rows.len()).filter(|&row| rows.history(row).len() >= min_history);
        asked
            .map(|row| {
                let (history, target, key) = (rows.history(row), rows.target(row), row as u64);
                Ok(ChoiceRow {
                    row,
                    candidates: self.list(draw, key, history, target)?,
                    template: self.template(draw, key, n_templates),
                    history: history.to_vec(),
                    target,
                })
            })
            .collect()
    }

    fn base(&self, draw: Draw, purpose: u64) -> u64 {
        let (seed, part, epoch) = match draw {
            Draw::Valid => (self.seed, 0, 0),
            Draw::Test => (self.seed, 1, 0),
            Draw::Train { seed, epoch } => (seed, 2, epoch),
        };
        derive(derive(seed, Stream::Negatives, purpose, part), Stream::Negatives, epoch, 0)
    }
}

fn name(draw: Draw, key: u64) -> String {
    match draw {
        Draw::Train { .. } => format!("row {}, place {}", key >> 32, key as u32),
        Draw::Valid | Draw::Test => format!("row {key}"),
    }
}

/// The `rank`-th number from 0 that is not in `outside`.
fn nth_outside(outside: &BTreeSet<u32>, rank: u32) -> u32 {
    let mut item = rank;
    for &taken in outside {
        if taken > item {
            break;
        }
        item += 1;
    }
    item
}

/// `n` different numbers below `bound` (Floyd's method: every set equally likely); `n <= bound <= 2^32`.
fn sample(rng: &mut impl Rng, bound: u64, n: usize) -> Vec<u32> {
    let mut chosen: Vec<u32> = Vec::with_capacity(n + 1);
    for top in bound - n as u64..bound {
        let drawn = below(rng, top + 1) as u32;
        chosen.push(if chosen.contains(&drawn) { top as u32 } else { drawn });
    }
    chosen
}

/// A number below `bound`, each equally likely (Lemire's multiply and reject).
fn below(rng: &mut impl Rng, bound: u64) -> u64 {
    let threshold = bound.wrapping_neg() % bound;
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(bound);
        if product as u64 >= threshold {
            return (product >> 64) as u64;
        }
    }
}

#[cfg(test)]
mod tests;

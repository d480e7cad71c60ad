//! What a student's bundle says of the training rows, as the scoring head's soft targets.

use anyo_core::{
    Error, Result,
    bundle::{Bundle, deviation, gap_softmax},
    data::{Dataset, TargetIndex},
};

use super::TrainRow;
use crate::{
    config::SoftConfig,
    head::{Aim, Listed},
};

/// Stands where a training row has no list.
const NONE: u32 = u32::MAX;

/// Soft targets of the training rows of a data set. K items of a list at most.
#[derive(Debug)]
pub struct SoftTargets<'a> {
    index: TargetIndex<'a>,
    share: f64,
    /// List of each target, [`NONE`] without one, `[targets]`.
    entries: Vec<u32>,
    lists: Vec<Listed>,
}

impl<'a> SoftTargets<'a> {
    /// Takes over the lists of `bundle`, which was opened for the training rows of `dataset`: the first K items of each, with
    /// `softmax(-(d - smallest d) / τ)` of their distances.
    ///
    /// # Errors
    /// When its lists are shorter than K, or there is none.
    pub fn new(bundle: &Bundle, dataset: &'a Dataset, config: &SoftConfig) -> Result<Self> {
        let (k, top_n) = (config.top_k, bundle.top_n());
        if k > top_n {
            return Err(Error::Invalid {
                message: format!("soft_targets.top_k: {k}, but the bundle's lists have {top_n} items"),
                hint: Some(format!("write soft_targets.top_k={top_n}, or export the bundle with export.top_n={k}")),
            });
        }
        let index = TargetIndex::new(&dataset.train);
        let (mut entries, mut lists) = (vec![NONE; index.len()], Vec::new());
        for (number, entry) in entries.iter_mut().enumerate() {
            let Some((items, distances)) = bundle.rankings(number).filter(|(items, _)| !items.is_empty()) else {
                continue;
            };
            let n = items.len().min(k);
            let weights = gap_softmax(&distances[..n], config.tau.unwrap_or_else(|| deviation(&distances[..n])));
            *entry = lists.len() as u32;
            lists.push(items.iter().copied().zip(weights).collect());
        }
        if lists.is_empty() {
            return Err(Error::invalid(format!("{}: no training row has a list", bundle.folder().display())));
        }
        Ok(Self { index, share: config.share, entries, lists })
    }

    /// Training rows with a list, and all of them.
    pub fn counts(&self) -> (usize, usize) {
        (self.lists.len(), self.entries.len())
    }

    /// What the losses of these rows aim at.
    pub(super) fn aim(&self, rows: impl Iterator<Item = TrainRow>) -> Aim<'_> {
        let list = |row: TrainRow| -> &[(u32, f32)] {
            let number = self.index.number(row.row as usize, row.place as usize);
            let entry = number.map_or(NONE, |number| self.entries[number]);
            self.lists.get(entry as usize).map_or(&[], Vec::as_slice)
        };
        Aim { share: self.share, lists: rows.map(list).collect() }
    }
}

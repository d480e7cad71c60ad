//! Training rows: one for each target with enough history, and their order in an epoch.

use anyo_core::{
    data::Rows,
    seed::{self, Stream},
};
use rand::{Rng, RngExt};

/// A target of a training sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainRow {
    /// The sequence.
    pub row: u32,
    /// The target's index in it.
    pub place: u32,
}

impl TrainRow {
    /// A number of its own, the same in every run on the same data.
    pub fn key(self) -> u64 {
        u64::from(self.row) << 32 | u64::from(self.place)
    }
}

/// All training rows of a data set.
#[derive(Debug)]
pub struct TrainRows<'a> {
    rows: &'a Rows,
    list: Vec<TrainRow>,
    too_short: usize,
    not_drawn: usize,
}

impl<'a> TrainRows<'a> {
    /// Targets with at least `min_history` items before them; of more than `max_rows` of them (0: no limit) so many, drawn
    /// once.
    pub fn new(rows: &'a Rows, min_history: usize, max_rows: usize, seed: u64) -> Self {
        let (mut list, mut too_short) = (Vec::new(), 0);
        for row in 0..rows.len() {
            for place in rows.first_target(row)..rows.items(row).len() {
                if place < min_history.max(1) {
                    too_short += 1;
                } else {
                    list.push(TrainRow { row: row as u32, place: place as u32 });
                }
            }
        }
        let found = list.len();
        if max_rows > 0 && max_rows < found {
            let mut rng = seed::rng(seed, Stream::Shuffle, u64::MAX, 1);
            for i in 0..max_rows {
                let j = rng.random_range(i..found);
                list.swap(i, j);
            }
            list.truncate(max_rows);
            list.sort_unstable_by_key(|row| row.key());
        }
        Self { rows, not_drawn: found - list.len(), list, too_short }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is nothing to train on.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Targets left out because their history is too short.
    pub fn too_short(&self) -> usize {
        self.too_short
    }

    /// Targets left out by `max_rows`.
    pub fn not_drawn(&self) -> usize {
        self.not_drawn
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> TrainRow {
        self.list[i]
    }

    /// Everything before the target of row `i`, oldest first.
    pub fn history(&self, i: usize) -> &'a [u32] {
        let TrainRow { row, place } = self.list[i];
        &self.rows.items(row as usize)[..place as usize]
    }

    /// The target of row `i`.
    pub fn target(&self, i: usize) -> u32 {
        let TrainRow { row, place } = self.list[i];
        self.rows.items(row as usize)[place as usize]
    }

    /// The micro-batches of an epoch, lists of row numbers: rows are shuffled, sorted by `length` within chunks of
    /// `sort_chunk` micro-batches, cut, and the micro-batches of a chunk shuffled.
    pub(super) fn epoch(
        &self,
        batch_size: usize,
        sort_chunk: usize,
        seed: u64,
        epoch: u64,
        length: impl Fn(usize) -> usize,
    ) -> Vec<Vec<u32>> {
        let mut rng = seed::rng(seed, Stream::Shuffle, epoch, 0);
        let mut order: Vec<u32> = (0..self.list.len() as u32).collect();
        shuffle(&mut order, &mut rng);
        let mut batches = Vec::new();
        for chunk in order.chunks_mut(batch_size.saturating_mul(sort_chunk).max(1)) {
            if sort_chunk > 1 {
                chunk.sort_by_key(|&i| length(i as usize));
            }
            let mut cut: Vec<Vec<u32>> = chunk.chunks(batch_size).map(<[u32]>::to_vec).collect();
            if sort_chunk > 1 {
                shuffle(&mut cut, &mut rng);
            }
            batches.append(&mut cut);
        }
        batches
    }
}

fn shuffle<T>(list: &mut [T], rng: &mut impl Rng) {
    for i in (1..list.len()).rev() {
        list.swap(i, rng.random_range(0..=i));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Rows {
        let mut rows = Rows::new();
        rows.push(0, [5, 6, 7, 8], 1);
        rows.push(1, [1, 2, 3], 2);
        rows.push(2, [9], 0);
        rows
    }

    #[test]
    fn every_target_with_enough_history_is_a_row() {
        let rows = rows();
        let all = TrainRows::new(&rows, 1, 0, 1);
        let list: Vec<(Vec<u32>, u32)> = (0..all.len()).map(|i| (all.history(i).to_vec(), all.target(i))).collect();
        assert_eq!(list, [(vec![5], 6), (vec![5, 6], 7), (vec![5, 6, 7], 8), (vec![1, 2], 3)]);
        assert_eq!((all.too_short(), all.not_drawn()), (1, 0));
        let long = TrainRows::new(&rows, 3, 0, 1);
        assert_eq!((long.len(), long.too_short()), (1, 4));
        let some = TrainRows::new(&rows, 1, 2, 1);
        assert_eq!((some.len(), some.not_drawn()), (2, 2));
        assert!(some.row(0).key() < some.row(1).key());
    }

    #[test]
    fn an_epoch_has_each_row_once_and_like_lengths_together() {
        let mut rows = Rows::new();
        for user in 0..20 {
            rows.push(user, 0..=(user % 7) + 1, 1);
        }
        let all = TrainRows::new(&rows, 1, 0, 1);
        let length = |i: usize| all.history(i).len();
        for sort_chunk in [1, 4, 100] {
            let epoch = all.epoch(4, sort_chunk, 9, 2, length);
            let mut seen: Vec<u32> = epoch.iter().flatten().copied().collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..all.len() as u32).collect::<Vec<_>>());
            assert_eq!(epoch, all.epoch(4, sort_chunk, 9, 2, length));
            assert_ne!(epoch, all.epoch(4, sort_chunk, 9, 3, length));
        }
        let padding = |epoch: Vec<Vec<u32>>| -> usize {
            let lens = epoch.iter().map(|b| b.iter().map(|&i| length(i as usize)).collect::<Vec<_>>());
            lens.map(|l| l.iter().max().unwrap() * l.len() - l.iter().sum::<usize>()).sum()
        };
        assert!(padding(all.epoch(4, 100, 9, 2, length)) * 4 < padding(all.epoch(4, 1, 9, 2, length)));
    }
}

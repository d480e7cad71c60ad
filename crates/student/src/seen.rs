//! Items that a target's sequence already holds, and one learned number for them.
//!
//! A tied head gives the items of the history high scores: the state resembles their vectors. Where nobody consumes an
//! item twice, they stand in the way of those that come next. One number added to the score of every item of the
//! history keeps them down. It is learned, not set, and starts at zero; nothing leaves the ranking.

use anyo_core::{parallel, torch::raw};
use tch::{Kind, Tensor};

/// The number is ten times its parameter: Adam moves a parameter by about the learning rate a step, and scores differ
/// by tens.
pub const SEEN_SCALE: f64 = 10.0;

/// For each row of a score matrix the columns of seen items, without repeats.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Seen {
    columns: Vec<u32>,
    ranges: Vec<(usize, usize)>,
}

impl Seen {
    /// All distinct items of each history.
    pub fn of_histories(histories: &[&[u32]], n_items: usize) -> Self {
        let mut stamps = vec![0u32; n_items];
        let mut seen = Self::default();
        for (row, history) in histories.iter().enumerate() {
            seen.push_sequence(history, [history.len()].into_iter(), &mut stamps, row as u32 + 1);
        }
        seen
    }

    /// Adds a row for each of `places`, ascending: the distinct items among `sequence[..place]`.
    ///
    /// `stamps` has a number for each item, none of them `stamp`, and is kept between calls.
    pub(crate) fn push_sequence(
        &mut self,
        sequence: &[u32],
        places: impl Iterator<Item = usize>,
        stamps: &mut [u32],
        stamp: u32,
    ) {
        let (first, mut done) = (self.columns.len(), 0);
        for place in places {
            for &item in &sequence[done..place] {
                if std::mem::replace(&mut stamps[item as usize], stamp) != stamp {
                    self.columns.push(item);
                }
            }
            done = place;
            self.ranges.push((first, self.columns.len()));
        }
    }

    /// A row with these columns.
    pub(crate) fn push(&mut self, columns: impl Iterator<Item = u32>) {
        let first = self.columns.len();
        self.columns.extend(columns);
        self.ranges.push((first, self.columns.len()));
    }

    /// Columns of one row.
    pub fn row(&self, row: usize) -> &[u32] {
        let (start, end) = self.ranges[row];
        &self.columns[start..end]
    }

    /// These rows, in this order; nothing of nothing.
    pub fn select(&self, rows: &[usize]) -> Self {
        let mut some = Self::default();
        if !self.ranges.is_empty() {
            rows.iter().for_each(|&row| some.push(self.row(row).iter().copied()));
        }
        some
    }

    /// Adds `value` to the seen columns of scores `[rows, columns]`, whose first row is row `start` here.
    pub(crate) fn add(&self, scores: &Tensor, start: usize, value: f32) {
        if let Some(data) = cpu_data(scores) {
            each_row(scores, |row| {
                for &column in self.row(start + row.index) {
                    // SAFETY: rows are disjoint and columns lie inside them.
                    unsafe { *data.at(row.first + column as usize) += value };
                }
            });
        } else {
            let places = self.places(scores, start);
            let values = Tensor::full(places.size(), f64::from(value), (scores.kind(), scores.device()));
            let _ = scores.view(-1).index_add_(0, &places, &values);
        }
    }

    /// Sum of the seen columns of a matrix as [`Seen::add`] takes it, in row order whatever the number of threads.
    pub(crate) fn sum(&self, scores: &Tensor, start: usize) -> f64 {
        let Some(data) = cpu_data(scores) else {
            return scores.view(-1).index_select(0, &self.places(scores, start)).sum(Kind::Double).double_value(&[]);
        };
        let mut sums = vec![0f64; scores.size()[0] as usize];
        let out = parallel::SendPtr(sums.as_mut_ptr());
        each_row(scores, |row| {
            // SAFETY: columns lie inside the row, and each row has its own sum.
            unsafe {
                *out.at(row.index) = self
                    .row(start + row.index)
                    .iter()
                    .map(|&column| f64::from(*data.at(row.first + column as usize)))
                    .sum();
            }
        });
        sums.iter().sum()
    }

    /// Places of the seen columns in the flattened matrix.
    fn places(&self, scores: &Tensor, start: usize) -> Tensor {
        let (rows, width) = scores.size2().unwrap_or_default();
        let flat: Vec<i64> = (0..rows)
            .flat_map(|row| self.row(start + row as usize).iter().map(move |&column| row * width + i64::from(column)))
            .collect();
        Tensor::from_slice(&flat).to_device(scores.device())
    }
}

/// A row of a score matrix: its number and the place of its first score.
struct Row {
    index: usize,
    first: usize,
}

fn cpu_data(scores: &Tensor) -> Option<parallel::SendPtr<f32>> {
    raw::is_plain::<f32>(scores).then(|| raw::f32_ptr(scores))
}

fn each_row(scores: &Tensor, visit: impl Fn(Row) + Sync) {
    const ROWS: usize = 16;
    let (rows, width) = scores.size2().unwrap_or_default();
    let (rows, width) = (rows as usize, width as usize);
    parallel::for_each_part(rows.div_ceil(ROWS), |part| {
        (part * ROWS..((part + 1) * ROWS).min(rows)).for_each(|index| visit(Row { index, first: index * width }));
    });
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn rows_hold_each_item_before_the_place_once() {
        let mut seen = Seen::default();
        let mut stamps = vec![0; 6];
        seen.push_sequence(&[3, 1, 3, 5, 0], [1, 3, 4].into_iter(), &mut stamps, 1);
        seen.push_sequence(&[3, 2], [0, 2].into_iter(), &mut stamps, 2);
        let rows: Vec<&[u32]> = (0..5).map(|row| seen.row(row)).collect();
        assert_eq!(rows, [&[3][..], &[3, 1], &[3, 1, 5], &[], &[3, 2]]);
        assert_eq!(Seen::of_histories(&[&[2, 2, 4]], 6).row(0), [2, 4]);
    }

    #[test]
    fn loops_and_tensor_operations_agree() {
        tch::manual_seed(5);
        let scores = Tensor::randn([40, 7], (Kind::Float, Device::Cpu));
        let histories: Vec<Vec<u32>> = (0..42).map(|i| (0..i % 6).map(|j| (i + j * 2) % 7).collect()).collect();
        let histories: Vec<&[u32]> = histories.iter().map(Vec::as_slice).collect();
        let seen = Seen::of_histories(&histories, 7);
        let doubles = scores.to_kind(Kind::Double);
        assert!((seen.sum(&scores, 2) - seen.sum(&doubles, 2)).abs() < 1e-5);
        seen.add(&scores, 2, -1.5);
        seen.add(&doubles, 2, -1.5);
        assert!(scores.to_kind(Kind::Double).allclose(&doubles, 1e-6, 1e-6, false));
    }
}

//! Ranked lists of some rows, side by side in flat buffers.

/// Ranked lists with their distances: what a batch of a teacher's work comes to.
///
/// A list shorter than K ends in [`NO_ITEM`](crate::eval::NO_ITEM) with an infinite distance.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Lists {
    /// K.
    pub top_n: usize,
    /// Number of each row's target, `[R]`.
    pub rows: Vec<u32>,
    /// Items, best first, `[R · K]`.
    pub items: Vec<u32>,
    /// Their distances, small is good, ascending along a row, `[R · K]`.
    pub distances: Vec<f32>,
    /// 1-based rank of each row's target among all items that the lists may hold; 0 where it is not known, `[R]`.
    pub true_ranks: Vec<u32>,
    /// Distance of each row's target; NaN where it is not known, `[R]`.
    pub true_distances: Vec<f32>,
}

impl Lists {
    /// No rows yet.
    pub fn new(top_n: usize) -> Self {
        Self { top_n, ..Self::default() }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds one row; `items` and `distances` are equally long, at most K. Without `truth` the target's rank is unknown.
    pub fn push(&mut self, row: u32, items: &[u32], distances: &[f32], truth: Option<(u32, f32)>) {
        let pad = self.top_n.saturating_sub(items.len());
        self.rows.push(row);
        self.items.extend_from_slice(items);
        self.items.extend(std::iter::repeat_n(crate::eval::NO_ITEM, pad));
        self.distances.extend_from_slice(distances);
        self.distances.extend(std::iter::repeat_n(f32::INFINITY, pad));
        let (rank, distance) = truth.unwrap_or((0, f32::NAN));
        self.true_ranks.push(rank);
        self.true_distances.push(distance);
    }

    /// Adds all rows of `other`, which has the same K.
    pub fn append(&mut self, other: &Self) {
        self.rows.extend_from_slice(&other.rows);
        self.items.extend_from_slice(&other.items);
        self.distances.extend_from_slice(&other.distances);
        self.true_ranks.extend_from_slice(&other.true_ranks);
        self.true_distances.extend_from_slice(&other.true_distances);
    }

    /// Items and distances of entry `i` with their empty ends.
    pub fn padded(&self, i: usize) -> (&[u32], &[f32]) {
        let range = i * self.top_n..(i + 1) * self.top_n;
        (&self.items[range.clone()], &self.distances[range])
    }
}

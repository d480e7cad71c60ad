//! What ranking gives: one entry per row, in the order of the rows.

/// Rank of the target and the best items for every row; everything else of an evaluation follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ranking {
    /// Whether items of the history left the ranking (the target stays).
    pub exclude_history: bool,
    /// Number of items N.
    pub n_items: usize,
    /// 1-based rank of each row's target, ties ranked worst.
    pub ranks: Vec<u32>,
    /// The same ranks under the other choice of `exclude_history`.
    pub other_ranks: Vec<u32>,
    /// Target of each row.
    pub targets: Vec<u32>,
    /// User of each row.
    pub users: Vec<u32>,
    /// Number of items in each row's history.
    pub history_len: Vec<u32>,
    /// K, the length of each recommended list.
    pub top_k: usize,
    /// The lists one after another, best first, `[rows · K]`; [`NO_ITEM`](super::NO_ITEM) where fewer items are left.
    pub top: Vec<u32>,
}

impl Ranking {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ranks.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.ranks.is_empty()
    }

    /// The recommended list of row `row`, best first, without the empty places.
    pub fn top(&self, row: usize) -> &[u32] {
        let list = &self.top[row * self.top_k..(row + 1) * self.top_k];
        let end = list.iter().position(|&item| item == super::NO_ITEM).unwrap_or(list.len());
        &list[..end]
    }
}

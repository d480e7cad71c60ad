//! Rows of item sequences in one flat buffer: what models train on and are evaluated on.

use rand::{Rng, RngExt};

/// Many item sequences, oldest item first, each with the user it belongs to and the place of its first target.
///
/// A row `[a, b, c, d]` with `first_target` 3 asks for `d` after `a b c` and nothing else (a window); with
/// `first_target` 1 every item after the first is a target (a whole training sequence). In rows for evaluation the
/// last item is the one target and the rest is the history; the history may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rows {
    users: Vec<u32>,
    offsets: Vec<usize>,
    items: Vec<u32>,
    first_target: Vec<u32>,
}

impl Rows {
    /// No rows yet.
    pub fn new() -> Self {
        Self { offsets: vec![0], ..Self::default() }
    }

    /// Adds one row; `first_target < items.len()`.
    pub fn push(&mut self, user: u32, items: impl IntoIterator<Item = u32>, first_target: u32) {
        self.items.extend(items);
        debug_assert!((first_target as usize) < self.items.len() - self.offsets[self.offsets.len() - 1]);
        self.offsets.push(self.items.len());
        self.users.push(user);
        self.first_target.push(first_target);
    }

    /// Adds one evaluation row.
    pub fn push_eval(&mut self, user: u32, history: &[u32], target: u32) {
        self.push(user, history.iter().copied().chain([target]), history.len() as u32);
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The user of row `row`.
    pub fn user(&self, row: usize) -> u32 {
        self.users[row]
    }

    /// All items of row `row`, the target or targets included.
    pub fn items(&self, row: usize) -> &[u32] {
        &self.items[self.offsets[row]..self.offsets[row + 1]]
    }

    /// Index inside the row of its first target.
    pub fn first_target(&self, row: usize) -> usize {
        self.first_target[row] as usize
    }

    /// Everything before the last item.
    pub fn history(&self, row: usize) -> &[u32] {
        let items = self.items(row);
        &items[..items.len() - 1]
    }

    /// The last item.
    pub fn target(&self, row: usize) -> u32 {
        self.items[self.offsets[row + 1] - 1]
    }

    /// Number of targets in all rows.
    pub fn n_targets(&self) -> usize {
        (0..self.len()).map(|row| self.items(row).len() - self.first_target(row)).sum()
    }

    /// How often each of `n_items` items is a target of these rows.
    pub fn target_counts(&self, n_items: usize) -> Vec<u64> {
        let mut counts = vec![0; n_items];
        for row in 0..self.len() {
            for &item in &self.items(row)[self.first_target(row)..] {
                counts[item as usize] += 1;
            }
        }
        counts
    }

    /// `n` rows drawn without replacement, in their order, or all of them for 0.
    pub fn sample(&self, n: usize, rng: &mut impl Rng) -> Self {
        if n == 0 || n >= self.len() {
            return self.clone();
        }
        let mut order: Vec<usize> = (0..self.len()).collect();
        for i in 0..n {
            let j = rng.random_range(i..order.len());
            order.swap(i, j);
        }
        order.truncate(n);
        order.sort_unstable();
        let mut sample = Self::new();
        for row in order {
            sample.push(self.user(row), self.items(row).iter().copied(), self.first_target[row]);
        }
        sample
    }

    /// The four flat parts (users, offsets, items, first targets), for writing.
    pub fn parts(&self) -> (&[u32], &[usize], &[u32], &[u32]) {
        (&self.users, &self.offsets, &self.items, &self.first_target)
    }

    /// Rows from their parts; `None` when they do not fit together.
    pub fn from_parts(users: Vec<u32>, offsets: Vec<usize>, items: Vec<u32>, first_target: Vec<u32>) -> Option<Self> {
        let fits = offsets.len() == users.len() + 1
            && first_target.len() == users.len()
            && offsets.first() == Some(&0)
            && offsets.last() == Some(&items.len())
            && offsets.windows(2).zip(&first_target).all(|(w, &f)| w[0] + (f as usize) < w[1]);
        fits.then_some(Self { users, offsets, items, first_target })
    }
}

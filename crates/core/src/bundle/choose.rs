//! Which rows a teacher labels when it may not label all.

use rand::RngExt;

use crate::seed::{self, Stream};

/// `budget` of `n_rows` row numbers drawn without repetition, ascending; all of them when the budget is larger.
///
/// The draw for a larger budget contains the draw for a smaller one with the same seed, so quality can be drawn against
/// the budget without labelling anything twice.
pub fn choose_rows(n_rows: usize, budget: usize, seed: u64) -> Vec<u32> {
    let mut rows: Vec<u32> = (0..n_rows as u32).collect();
    if budget >= n_rows {
        return rows;
    }
    let mut rng = seed::rng(seed, Stream::Labelled, 0, 0);
    for i in 0..budget {
        rows.swap(i, rng.random_range(i..n_rows));
    }
    rows.truncate(budget);
    rows.sort_unstable();
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_nest_and_repeat() {
        let (small, large) = (choose_rows(1000, 50, 7), choose_rows(1000, 200, 7));
        assert_eq!(small, choose_rows(1000, 50, 7));
        assert_ne!(small, choose_rows(1000, 50, 8));
        assert!(small.iter().all(|row| large.contains(row)));
        assert!(large.windows(2).all(|w| w[0] < w[1]) && large.len() == 200);
        assert_eq!(choose_rows(5, 9, 1), [0, 1, 2, 3, 4]);
    }
}

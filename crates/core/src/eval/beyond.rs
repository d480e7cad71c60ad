//! Beyond accuracy: how much of the catalogue the recommended lists reach, and how evenly.

use super::Ranking;

/// Stands in a recommended list where no item is left.
pub const NO_ITEM: u32 = u32::MAX;

/// Coverage and Gini index of the lists cut after K.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Beyond {
    /// Length of the lists.
    pub k: usize,
    /// Share of the catalogue that stands in at least one list, 0..=1.
    pub coverage: f64,
    /// `Σᵢ (2i − N − 1)·cᵢ / (N·Σ c)` where `c₁ ≤ … ≤ c_N` count how often each of the N items is recommended, items
    /// never recommended included: 0 when all equally often, `1 − 1/N` when always the same item.
    pub gini: f64,
}

impl Beyond {
    /// For the lists of `ranking` cut after `k`; `k` at most `ranking.top_k`.
    pub(crate) fn of(ranking: &Ranking, k: usize) -> Self {
        let mut counts = vec![0u64; ranking.n_items];
        for row in 0..ranking.len() {
            for &item in ranking.top(row).iter().take(k) {
                counts[item as usize] += 1;
            }
        }
        let reached = counts.iter().filter(|&&count| count > 0).count();
        Self { k, coverage: reached as f64 / counts.len().max(1) as f64, gini: gini(counts) }
    }
}

fn gini(mut counts: Vec<u64>) -> f64 {
    counts.sort_unstable();
    let n = counts.len() as f64;
    let total = counts.iter().sum::<u64>() as f64;
    if total == 0.0 {
        return 0.0;
    }
    let weighted: f64 = counts.iter().zip(1..).map(|(&c, i)| (2.0 * f64::from(i) - n - 1.0) * c as f64).sum();
    weighted / (n * total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gini_by_hand() {
        // Σ (2i − 5)·c = 1·1 + 3·3 = 10; 10 / (4·4)
        assert_eq!(gini(vec![3, 0, 1, 0]), 0.625);
        assert_eq!(gini(vec![2, 2, 2, 2]), 0.0);
        assert_eq!(gini(vec![0, 0, 0, 9]), 0.75);
        assert_eq!(gini(vec![0, 0]), 0.0);
    }

    #[test]
    fn coverage_counts_items_once_and_cuts_the_lists() {
        let ranking = Ranking {
            n_items: 5,
            ranks: vec![1, 1],
            top_k: 3,
            top: vec![4, 1, 2, 4, 1, NO_ITEM],
            ..Ranking::default()
        };
        assert_eq!(ranking.top(1), [4, 1]);
        // item 4 alone, twice
        assert_eq!(Beyond::of(&ranking, 1), Beyond { k: 1, coverage: 0.2, gini: 0.8 });
        assert_eq!(Beyond::of(&ranking, 2).coverage, 0.4);
        // counts 0 0 1 2 2: (0·1 + 2·2 + 4·2) / (5·5)
        let all = Beyond::of(&ranking, 3);
        assert_eq!((all.coverage, all.gini), (0.6, 0.48));
    }
}

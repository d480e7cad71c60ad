//! Means of every metric over rows, with standard errors and intervals over users.

use std::collections::HashMap;

use super::{EvalConfig, bootstrap::Sums, metrics::Figure};

/// The mean of one metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// Key such as `ndcg@10`, or `mrr` for the uncut reciprocal rank.
    pub key: String,
    /// Mean over the rows, 0..=1.
    pub value: f64,
    /// Standard error over users; `None` with fewer than two users.
    pub standard_error: Option<f64>,
    /// Percentile bootstrap interval over users, `[low, high]`; `None` where it was not asked for.
    pub interval: Option<[f64; 2]>,
}

/// Every metric over a set of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Number of rows.
    pub n_rows: usize,
    /// Number of different users.
    pub n_users: usize,
    /// The means, ordered by K, then metric; `mrr` last.
    pub estimates: Vec<Estimate>,
}

impl Summary {
    /// From the ranks and users of rows, `[rows]` each. Without rows every mean is 0.
    pub fn new(ranks: &[u32], users: &[u32], config: &EvalConfig, seed: u64, threads: usize) -> Self {
        let figures = Figure::all(&config.ks);
        let sums = sums_by_user(ranks, users, &figures);
        let means = sums.means();
        let errors = sums.standard_errors(&means);
        let intervals = sums.intervals(config.bootstrap, config.confidence, seed, threads);
        let estimate = |(i, figure): (usize, &Figure)| Estimate {
            key: figure.key(),
            value: means[i],
            standard_error: errors.as_ref().map(|errors| errors[i]),
            interval: intervals.as_ref().map(|intervals| intervals[i]),
        };
        Self {
            n_rows: ranks.len(),
            n_users: sums.n_clusters(),
            estimates: figures.iter().enumerate().map(estimate).collect(),
        }
    }

    /// The estimate of `key`, such as `hr@10`.
    pub fn get(&self, key: &str) -> Option<&Estimate> {
        self.estimates.iter().find(|estimate| estimate.key == key)
    }

    /// The mean of `key`, such as `hr@10`.
    pub fn value(&self, key: &str) -> Option<f64> {
        self.get(key).map(|estimate| estimate.value)
    }
}

fn sums_by_user(ranks: &[u32], users: &[u32], figures: &[Figure]) -> Sums {
    let width = figures.len() + 1;
    let mut values = Vec::with_capacity(ranks.len() * width);
    let mut place: HashMap<u32, usize> = HashMap::with_capacity(ranks.len());
    for (&rank, &user) in ranks.iter().zip(users) {
        let next = place.len();
        let start = *place.entry(user).or_insert(next) * width;
        values.resize(values.len().max(start + width), 0.0);
        for (sum, figure) in values[start..].iter_mut().zip(figures) {
            *sum += figure.value(rank);
        }
        values[start + width - 1] += 1.0;
    }
    Sums { width, values }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::eval::config::tests::config;

    #[test]
    fn users_with_many_rows_count_once_as_users() {
        let summary = Summary::new(&[1, 2, 20, 21], &[5, 9, 9, 2], &config(&[1, 20]), 1, 1);
        assert_eq!((summary.n_rows, summary.n_users), (4, 3));
        assert_eq!(summary.value("hr@20"), Some(0.75));
        assert_eq!(summary.value("ndcg@1"), Some(0.25));
        assert!((summary.value("ndcg@20").unwrap() - 0.464650).abs() < 5e-7);
        // (1 + 1/2 + 1/20 + 1/21) / 4
        assert!((summary.value("mrr").unwrap() - 0.399_404_762).abs() < 1e-9);
        assert_eq!(summary.value("hr@7"), None);
        assert!(summary.get("mrr").unwrap().interval.is_none());
    }

    #[test]
    fn no_rows_give_zeros_without_errors() {
        let summary = Summary::new(&[], &[], &EvalConfig { bootstrap: 10, ..config(&[1]) }, 1, 1);
        assert_eq!(summary.value("hr@1"), Some(0.0));
        assert_eq!(summary.get("hr@1").unwrap().standard_error, None);
    }

    proptest! {
        #[test]
        fn metrics_are_bounded_grow_with_k_and_lie_in_their_intervals(
            ranks in prop::collection::vec(1u32..60, 1..80),
            seed in any::<u64>(),
        ) {
            let users: Vec<u32> = (0..ranks.len() as u32).collect();
            let config = EvalConfig { bootstrap: 30, ..config(&[1, 5, 10, 60]) };
            let summary = Summary::new(&ranks, &users, &config, seed, 2);
            for name in ["hr", "recall", "ndcg", "mrr"] {
                let values: Vec<f64> =
                    [1, 5, 10, 60].iter().map(|k| summary.value(&format!("{name}@{k}")).unwrap()).collect();
                prop_assert!(values.windows(2).all(|w| w[0] <= w[1] + 1e-12));
                prop_assert!(values.iter().all(|v| (0.0..=1.0).contains(v)));
            }
            for k in [1, 5, 10, 60] {
                let [hr, ndcg, mrr] = ["hr", "ndcg", "mrr"].map(|m| summary.value(&format!("{m}@{k}")).unwrap());
                prop_assert!(mrr <= ndcg + 1e-12 && ndcg <= hr + 1e-12);
            }
            prop_assert_eq!(summary.value("hr@60"), Some(1.0));
            prop_assert!((summary.value("mrr@60").unwrap() - summary.value("mrr").unwrap()).abs() < 1e-12);
            for estimate in summary.estimates.iter().filter(|e| e.interval.is_some()) {
                let [low, high] = estimate.interval.unwrap();
                prop_assert!(0.0 <= low && low <= high && high <= 1.0 + 1e-12);
            }
        }
    }
}

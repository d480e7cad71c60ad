//! The `eval:` block of a configuration.

use serde::{Deserialize, Serialize};

use crate::config::{Check, Problem};

/// How rows are ranked and what is reported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// The K of every metric at K; each 1..=n_items, ascending.
    pub ks: Vec<usize>,
    /// Whether items of the history leave the ranking; the target stays even when the history has it.
    pub exclude_history: bool,
    /// Whether the other choice of `exclude_history` is reported too, from the same scores.
    pub report_both: bool,
    /// Rows scored at once; fewer are taken where `[B, N]` scores would pass 128 MiB.
    pub batch_size: usize,
    /// Resamples of the users for the intervals; 0 gives none.
    pub bootstrap: usize,
    /// Coverage of the intervals, such as 0.95; between 0 and 1.
    pub confidence: f64,
    /// Whether `metrics/per_user.parquet` is written.
    pub per_user: bool,
    /// Ascending cuts of the cumulative share of training interactions, such as [0.5, 0.8]: the most popular items
    /// that make up the first half are the head, those up to 80 % the middle, the others the tail. Empty: no buckets.
    pub popularity_buckets: Vec<f64>,
    /// Ascending upper bounds of history lengths, such as [10, 50]: 0-10, 11-50, 51+. Empty: no buckets.
    pub length_buckets: Vec<usize>,
}

impl EvalConfig {
    /// The same ranking without intervals, buckets and per-user rows: for choosing a model while training.
    pub fn for_selection(&self) -> Self {
        Self {
            report_both: false,
            bootstrap: 0,
            per_user: false,
            popularity_buckets: Vec::new(),
            length_buckets: Vec::new(),
            ..self.clone()
        }
    }

    /// The K of the headline: 10 where it is asked for, else the largest.
    pub fn headline_k(&self) -> usize {
        if self.ks.contains(&10) { 10 } else { self.ks.iter().copied().max().unwrap_or(1) }
    }

    /// The problems of [`Check`] and those that show only beside the data: a K above `n_items`.
    pub fn problems_for(&self, n_items: usize) -> Vec<Problem> {
        let mut problems = self.problems();
        for &k in self.ks.iter().filter(|&&k| k > n_items) {
            problems.push(Problem {
                key: "ks".to_owned(),
                message: format!("K = {k} is larger than the catalogue of {n_items} items"),
                hint: Some(format!("use K between 1 and {n_items}, or a data set with more items")),
            });
        }
        problems
    }
}

impl Check for EvalConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |bad: bool, key: &str, message: String, hint: &str| {
            if bad {
                problems.push(Problem { key: key.to_owned(), message, hint: Some(hint.to_owned()) });
            }
        };
        let (ks, cuts, lengths) = (&self.ks, &self.popularity_buckets, &self.length_buckets);
        wrong(ks.is_empty(), "ks", "no K given".to_owned(), "write for example [1, 5, 10, 20]");
        wrong(ks.contains(&0), "ks", "K must be at least 1, got 0".to_owned(), "write for example [1, 5, 10, 20]");
        wrong(
            ks.iter().any(|&k| k > u32::MAX as usize),
            "ks",
            format!("K must be at most {}, got {ks:?}", u32::MAX),
            "write for example [1, 5, 10, 20]",
        );
        wrong(!ascending(ks), "ks", format!("must ascend without repeats, got {ks:?}"), "sort them, each once");
        wrong(self.batch_size == 0, "batch_size", "must be at least 1, got 0".to_owned(), "256 is a good start");
        wrong(
            !(self.confidence > 0.0 && self.confidence < 1.0),
            "confidence",
            format!("must lie between 0 and 1, got {}", self.confidence),
            "0.95 gives 95 % intervals",
        );
        wrong(
            !cuts.iter().all(|&c| c > 0.0 && c < 1.0),
            "popularity_buckets",
            format!("cuts must lie between 0 and 1, got {cuts:?}"),
            "write for example [0.5, 0.8]; the last bucket ends at 1 by itself",
        );
        wrong(
            !ascending(cuts),
            "popularity_buckets",
            format!("cuts must ascend, got {cuts:?}"),
            "write for example [0.5, 0.8]",
        );
        wrong(
            !ascending(lengths),
            "length_buckets",
            format!("upper bounds must ascend, got {lengths:?}"),
            "write for example [10, 50, 100]",
        );
        problems
    }
}

fn ascending<T: PartialOrd>(values: &[T]) -> bool {
    values.windows(2).all(|pair| pair[0] < pair[1])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn config(ks: &[usize]) -> EvalConfig {
        EvalConfig {
            ks: ks.to_vec(),
            exclude_history: false,
            report_both: false,
            batch_size: 4,
            bootstrap: 0,
            confidence: 0.95,
            per_user: false,
            popularity_buckets: vec![0.5, 0.8],
            length_buckets: vec![1, 3],
        }
    }

    fn keys(config: &EvalConfig, n_items: usize) -> Vec<String> {
        config.problems_for(n_items).into_iter().map(|p| p.key).collect()
    }

    #[test]
    fn every_range_is_checked_and_all_problems_come_together() {
        let good = config(&[1, 10]);
        assert!(keys(&good, 10).is_empty());
        assert_eq!(good.headline_k(), 10);
        assert_eq!(config(&[1, 5]).headline_k(), 5);
        assert_eq!(keys(&config(&[0]), 10), ["ks"]);
        assert_eq!(keys(&config(&[]), 10), ["ks"]);
        assert_eq!(keys(&config(&[5, 5]), 10), ["ks"]);
        assert_eq!(keys(&config(&[11]), 10), ["ks"]);
        let bad = EvalConfig {
            batch_size: 0,
            confidence: f64::NAN,
            popularity_buckets: vec![0.8, 0.5, 1.5],
            length_buckets: vec![3, 3],
            ..config(&[1])
        };
        let want = ["batch_size", "confidence", "popularity_buckets", "popularity_buckets", "length_buckets"];
        assert_eq!(keys(&bad, 10), want);
        assert!(bad.problems().iter().all(|p| p.hint.is_some()));
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        let mut value = serde_json::to_value(config(&[1])).unwrap();
        value["bootstraps"] = 3.into();
        let error = serde_json::from_value::<EvalConfig>(value).unwrap_err().to_string();
        assert!(error.contains("bootstraps"), "{error}");
    }
}

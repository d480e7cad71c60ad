//! HitRatio, Recall, NDCG and MRR at K from the rank of one relevant item.

/// A measure of one ranked list that has exactly one relevant item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// 1 when the relevant item is among the first K.
    HitRatio,
    /// Share of the relevant items among the first K; with one relevant item it equals [`Metric::HitRatio`].
    Recall,
    /// `1 / log2(rank + 1)` among the first K, else 0; with one relevant item the ideal gain is 1.
    Ndcg,
    /// `1 / rank` among the first K, else 0.
    Mrr,
}

impl Metric {
    /// Every metric, in the order of reports.
    pub const ALL: [Self; 4] = [Self::HitRatio, Self::Recall, Self::Ndcg, Self::Mrr];

    /// The name in keys: `hr`, `recall`, `ndcg`, `mrr`.
    pub fn name(self) -> &'static str {
        match self {
            Self::HitRatio => "hr",
            Self::Recall => "recall",
            Self::Ndcg => "ndcg",
            Self::Mrr => "mrr",
        }
    }

    /// The key in files and tables, such as `ndcg@10`.
    pub fn key(self, k: usize) -> String {
        format!("{}@{k}", self.name())
    }

    /// Value for a relevant item at `rank`, 1-based, when the list is cut after `k` items; in 0..=1.
    ///
    /// A rank of 0 does not exist and counts as a miss.
    pub fn value(self, rank: u32, k: usize) -> f64 {
        if rank == 0 || rank as usize > k {
            return 0.0;
        }
        match self {
            Self::HitRatio | Self::Recall => 1.0,
            Self::Ndcg => 1.0 / (f64::from(rank) + 1.0).log2(),
            Self::Mrr => 1.0 / f64::from(rank),
        }
    }
}

/// Mean of `metric` at `k` over `ranks`; 0 without ranks. For a single figure, such as one to select a model by.
pub fn mean(ranks: &[u32], metric: Metric, k: usize) -> f64 {
    if ranks.is_empty() {
        return 0.0;
    }
    ranks.iter().map(|&rank| metric.value(rank, k)).sum::<f64>() / ranks.len() as f64
}

/// One figure of a report: a metric cut at K, or MRR over the whole ranking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Figure {
    metric: Metric,
    k: Option<usize>,
}

impl Figure {
    /// Every figure for `ks`: each metric at each K, then `mrr` without a cut.
    pub(crate) fn all(ks: &[usize]) -> Vec<Self> {
        let cut = ks.iter().flat_map(|&k| Metric::ALL.map(|metric| Self { metric, k: Some(k) }));
        cut.chain([Self { metric: Metric::Mrr, k: None }]).collect()
    }

    pub(crate) fn key(self) -> String {
        self.k.map_or_else(|| self.metric.name().to_owned(), |k| self.metric.key(k))
    }

    pub(crate) fn value(self, rank: u32) -> f64 {
        self.metric.value(rank, self.k.unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of dllm2rec.md section 13: ranks 1, 2, 20, 21.
    #[test]
    fn hand_values() {
        let ranks = [1, 2, 20, 21];
        assert_eq!(mean(&ranks, Metric::HitRatio, 20), 0.75);
        assert_eq!(mean(&ranks, Metric::Recall, 20), 0.75);
        assert!((mean(&ranks, Metric::Ndcg, 20) - 0.464650).abs() < 5e-7);
        assert_eq!(mean(&ranks, Metric::Ndcg, 1), 0.25);
        // (1 + 1/2 + 1/20) / 4
        assert!((mean(&ranks, Metric::Mrr, 20) - 0.3875).abs() < 1e-12);
        assert_eq!(mean(&[], Metric::Mrr, 20), 0.0);
    }

    #[test]
    fn keys_are_lower_case_and_mrr_has_no_cut_too() {
        let keys: Vec<_> = Figure::all(&[1, 10]).into_iter().map(Figure::key).collect();
        let want = ["hr@1", "recall@1", "ndcg@1", "mrr@1", "hr@10", "recall@10", "ndcg@10", "mrr@10", "mrr"];
        assert_eq!(keys, want);
        assert_eq!(Figure::all(&[1])[4].value(50), 0.02);
        assert_eq!(Metric::HitRatio.value(0, 5), 0.0);
    }
}

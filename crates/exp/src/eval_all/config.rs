//! The configuration of `run-eval-all`; defaults and meanings stand in `conf/run-eval-all.yaml`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use anyo_core::{
    config::{Check, Problem, Ranges},
    data::{DataConfig, DatasetConfig},
    eval::Metric,
    run::RunConfig,
    torch::DeviceChoice,
};
use serde::{Deserialize, Serialize};

/// Name of the method that the runs of run-student-baseline are.
pub(super) const BASELINE: &str = "student baseline";
/// Name of the method that the runs of run-teacher are.
pub(super) const TEACHER: &str = "teacher";

/// Everything that `run-eval-all` reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalAllConfig {
    /// Which data; used when stages are run here.
    pub dataset: DatasetConfig,
    /// Finished runs, named after what they are: folders, sweep folders, `latest`, `latest:APP`.
    pub runs: Vec<String>,
    /// Finished runs by the name of their method.
    pub named: BTreeMap<String, Vec<String>>,
    /// Seeds of the students that are trained here.
    pub seeds: Vec<u64>,
    /// What is trained here where no run is named.
    pub stages: StagesConfig,
    /// The method that every other one is tested against.
    pub reference: String,
    /// Metrics of the tables, such as `ndcg@10`.
    pub metrics: Vec<String>,
    /// The metric of the plots and of the decision; one of `metrics`.
    pub headline: String,
    /// A target that is a training target at most so many times is rare.
    pub rare_max: u64,
    /// Ascending cuts of the cumulative share of training interactions, as `eval.popularity_buckets`.
    pub popularity_buckets: Vec<f64>,
    /// Resamples of the users.
    pub resamples: usize,
    /// Coverage of the intervals.
    pub confidence: f64,
    /// Draws the resamples.
    pub seed: u64,
    /// Test rows whose ranking is timed, one by one; 0 times none.
    pub latency_users: usize,
    /// Where stages compute.
    pub device: DeviceChoice,
    /// CPU threads of each stage and of the latency, 0 for all cores (shared among the stages that run at a time).
    pub threads: usize,
    /// Stages at a time.
    pub jobs: usize,
    /// Where data lies.
    pub data: DataConfig,
    /// Where the comparison writes.
    pub run: RunConfig,
}

/// `stages:`, what each kind of run is told. (Not `teacher:` at the top: that would be the group `conf/teacher/`.)
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StagesConfig {
    /// Overrides of run-teacher; null trains no teacher.
    #[serde(deserialize_with = "Option::deserialize")]
    pub teacher: Option<Vec<String>>,
    /// A finished run with a bundle that teaches instead; in the table where it ranked the test rows.
    #[serde(deserialize_with = "Option::deserialize")]
    pub teacher_run: Option<PathBuf>,
    /// Seed of the one teacher.
    pub teacher_seed: u64,
    /// Overrides of run-student-baseline.
    pub baseline: Vec<String>,
    /// Overrides of run-distill, by the name of the method; null leaves the method out.
    pub distill: BTreeMap<String, Option<Vec<String>>>,
}

/// A metric by its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Measure {
    /// Such as `ndcg@10`, or `mrr` without a cut.
    pub(super) key: String,
    metric: Metric,
    /// The cut; the largest number where there is none.
    pub(super) k: usize,
}

impl Measure {
    /// Reads a key.
    pub(super) fn parse(key: &str) -> Option<Self> {
        let (name, k) = match key.split_once('@') {
            Some((name, k)) => (name, k.parse().ok().filter(|&k: &usize| k > 0 && !key.contains("@+"))?),
            None if key == "mrr" => (key, usize::MAX),
            None => return None,
        };
        let metric = Metric::ALL.into_iter().find(|metric| metric.name() == name)?;
        Some(Self { key: key.to_owned(), metric, k })
    }

    /// Its value for a target at `rank`.
    pub(super) fn value(&self, rank: u32) -> f64 {
        self.metric.value(rank, self.k)
    }

    /// As people write it: `NDCG@10`.
    pub(super) fn label(&self) -> String {
        self.key.to_uppercase()
    }
}

impl StagesConfig {
    /// The distilled methods that were not left out, with their overrides.
    pub(super) fn distilled(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.distill.iter().filter_map(|(name, words)| Some((name.as_str(), words.as_deref()?)))
    }
}

impl EvalAllConfig {
    /// The metrics; keys that are none were refused by [`Check`].
    pub(super) fn measures(&self) -> Vec<Measure> {
        self.metrics.iter().filter_map(|key| Measure::parse(key)).collect()
    }

    /// Place of the headline among the metrics.
    pub(super) fn headline(&self) -> usize {
        self.metrics.iter().position(|key| *key == self.headline).unwrap_or(0)
    }

    /// Whether finished runs were named, so that nothing is trained here.
    pub(super) fn has_runs(&self) -> bool {
        !self.runs.is_empty() || !self.named.is_empty()
    }

    /// Every named run with its method, if that was named.
    pub(super) fn all_runs(&self) -> impl Iterator<Item = (Option<&str>, PathBuf)> {
        let named = self.named.iter().flat_map(|(name, runs)| runs.iter().map(move |run| (Some(name.as_str()), run)));
        self.runs.iter().map(|run| (None, run)).chain(named).map(|(name, run)| (name, PathBuf::from(run)))
    }
}

impl Check for EvalAllConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut list = Ranges::default();
        list.nested("dataset", &self.dataset);
        list.nested("data", &self.data);
        if self.metrics.is_empty() {
            list.push("metrics", "wanted at least one metric, got none".into());
        }
        let metrics = self.metrics.iter().map(|key| ("metrics", key));
        for (key, metric) in metrics.chain([("headline", &self.headline)]) {
            if Measure::parse(metric).is_none() {
                list.0.push(Problem {
                    hint: Some("write for example ndcg@10".into()),
                    ..Problem::new(key, format!("there is no metric `{metric}`: wanted hr, recall, ndcg or mrr at a K"))
                });
            }
        }
        if !self.metrics.contains(&self.headline) {
            list.push("headline", format!("wanted one of metrics {:?}, got {:?}", self.metrics, self.headline));
        }
        if self.metrics.iter().collect::<BTreeSet<_>>().len() < self.metrics.len() {
            list.push("metrics", format!("each metric stands once, got {:?}", self.metrics));
        }
        if !self.has_runs() {
            if self.seeds.is_empty() || self.seeds.iter().collect::<BTreeSet<_>>().len() < self.seeds.len() {
                list.push("seeds", format!("wanted at least one seed, each once, got {:?}", self.seeds));
            }
            for name in self.stages.distill.keys().filter(|name| [BASELINE, TEACHER].contains(&name.as_str())) {
                list.push("stages.distill", format!("`{name}` is the name of another method"));
            }
        }
        let asked = self.stages.teacher.as_ref().is_some_and(|words| !words.is_empty());
        if asked && self.stages.teacher_run.is_some() {
            list.push(
                "stages.teacher_run",
                "a finished teacher needs no `stages.teacher`: wanted one of the two".into(),
            );
        }
        list.at_least("jobs", self.jobs as f64, 1.0);
        if self.stages.distill.keys().chain(self.named.keys()).any(String::is_empty) {
            list.push("named", "a method needs a name".into());
        }
        list.at_least("resamples", self.resamples as f64, 100.0);
        list.at_least("rare_max", self.rare_max as f64, 1.0);
        if !(self.confidence > 0.0 && self.confidence < 1.0) {
            list.push("confidence", format!("wanted a number between 0 and 1, got {}", self.confidence));
        }
        let cuts = &self.popularity_buckets;
        if !cuts.iter().all(|&c| c > 0.0 && c < 1.0) || !cuts.windows(2).all(|w| w[0] < w[1]) {
            list.push("popularity_buckets", format!("wanted ascending cuts between 0 and 1, got {cuts:?}"));
        }
        list.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_metrics() {
        let ndcg = Measure::parse("ndcg@3").unwrap();
        assert_eq!((ndcg.value(3), ndcg.value(4), ndcg.label()), (0.5, 0.0, "NDCG@3".to_owned()));
        assert_eq!(Measure::parse("mrr").unwrap().value(1000), 0.001);
        for wrong in ["ndcg", "ndcg@0", "ndcg@+3", "map@5", "hr@x", "", "hr@-1"] {
            assert!(Measure::parse(wrong).is_none(), "{wrong}");
        }
    }
}

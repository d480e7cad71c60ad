//! The result of an evaluation and the files it becomes.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{
    Beyond, Bucket, EvalConfig, Ranking, Summary,
    buckets::{by_length, by_popularity},
};
use crate::{Error, Result, data::Dataset};

/// What an evaluation must know of a data set beside its rows.
#[derive(Debug, Clone, Copy)]
pub struct Catalogue<'a> {
    /// Number of items N.
    pub n_items: usize,
    /// How often each item occurs in training, `[n_items]`.
    pub train_counts: &'a [u64],
    /// How the data was split and what is asked, in one line.
    pub protocol: &'a str,
}

impl<'a> From<&'a Dataset> for Catalogue<'a> {
    fn from(dataset: &'a Dataset) -> Self {
        Self { n_items: dataset.n_items(), train_counts: &dataset.train_counts, protocol: &dataset.protocol }
    }
}

/// Everything one evaluation found.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// The metrics.
    pub summary: Summary,
    /// The metrics under the other choice of `exclude_history`, where asked for.
    pub other: Option<Summary>,
    /// Coverage and Gini index at each K.
    pub beyond: Vec<Beyond>,
    /// The metrics by popularity of the target; may be empty.
    pub by_popularity: Vec<Bucket>,
    /// The metrics by length of the history; may be empty.
    pub by_history_length: Vec<Bucket>,
    /// Split, candidates, history and tie rule in one line.
    pub protocol: String,
    /// The K of the headline figure.
    pub headline_k: usize,
    /// Coverage of the intervals, such as 0.95.
    pub confidence: f64,
    /// Rank and list of every row.
    pub ranking: Ranking,
}

impl Evaluation {
    /// Everything that follows from the ranks; `threads` are for the resampling.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the catalogue's counts do not have `n_items` entries.
    pub fn new(
        ranking: Ranking,
        catalogue: Catalogue<'_>,
        config: &EvalConfig,
        seed: u64,
        threads: usize,
    ) -> Result<Self> {
        let Catalogue { n_items, train_counts, protocol } = catalogue;
        if train_counts.len() != n_items {
            let message = format!("{} training counts for {n_items} items", train_counts.len());
            return Err(Error::invalid(message));
        }
        let summary = |ranks| Summary::new(ranks, &ranking.users, config, seed, threads);
        let history = if ranking.exclude_history { "removed from" } else { "kept in" };
        Ok(Self {
            summary: summary(&ranking.ranks),
            other: config.report_both.then(|| summary(&ranking.other_ranks)),
            beyond: config.ks.iter().map(|&k| Beyond::of(&ranking, k)).collect(),
            by_popularity: by_popularity(&ranking, train_counts, config, seed, threads),
            by_history_length: by_length(&ranking, config, seed, threads),
            protocol: format!("{protocol}; history {history} the ranking; ties rank worst"),
            headline_k: config.headline_k(),
            confidence: config.confidence,
            ranking,
        })
    }

    /// The value of a metric such as `ndcg@10`, or of `coverage@10` and `gini@10`.
    pub fn value(&self, key: &str) -> Option<f64> {
        self.summary.value(key).or_else(|| {
            let find = |k: &str| self.beyond.iter().find(|beyond| Ok(beyond.k) == k.parse());
            match key.split_once('@')? {
                ("coverage", k) => find(k).map(|beyond| beyond.coverage),
                ("gini", k) => find(k).map(|beyond| beyond.gini),
                _ => None,
            }
        })
    }

    /// The flat object of `metrics/test.json`: metric keys, `<key>_ci` `[low, high]`, `<key>_se`, `coverage@K`,
    /// `gini@K`, `n_users`, `n_rows`, `n_items`, `confidence` and `protocol`. With `report_both` the other choice
    /// stands under the same keys prefixed with `history_kept:` or `history_removed:`.
    pub fn to_json(&self) -> Value {
        let mut object = flat(&self.summary, "");
        for beyond in &self.beyond {
            object.insert(format!("coverage@{}", beyond.k), beyond.coverage.into());
            object.insert(format!("gini@{}", beyond.k), beyond.gini.into());
        }
        if let Some(other) = &self.other {
            let removed = !self.ranking.exclude_history;
            object.append(&mut flat(other, if removed { "history_removed:" } else { "history_kept:" }));
        }
        object.insert("n_users".to_owned(), self.summary.n_users.into());
        object.insert("n_rows".to_owned(), self.summary.n_rows.into());
        object.insert("n_items".to_owned(), self.ranking.n_items.into());
        object.insert("confidence".to_owned(), self.confidence.into());
        object.insert("exclude_history".to_owned(), self.ranking.exclude_history.into());
        object.insert("protocol".to_owned(), self.protocol.as_str().into());
        Value::Object(object)
    }

    /// The metrics by bucket: `{"popularity": [{"name": "head", "n_rows": …, "hr@10": …}, …], "history_length": […]}`;
    /// a bucket without rows has no metrics.
    pub fn buckets_to_json(&self) -> Value {
        let list = |buckets: &[Bucket]| -> Vec<Value> {
            let one = |bucket: &Bucket| {
                let mut object = Map::new();
                object.insert("name".to_owned(), bucket.name.as_str().into());
                object.insert("n_users".to_owned(), bucket.summary.n_users.into());
                object.insert("n_rows".to_owned(), bucket.summary.n_rows.into());
                if bucket.summary.n_rows > 0 {
                    object.append(&mut flat(&bucket.summary, ""));
                }
                Value::Object(object)
            };
            buckets.iter().map(one).collect()
        };
        json!({ "popularity": list(&self.by_popularity), "history_length": list(&self.by_history_length) })
    }
}

fn flat(summary: &Summary, prefix: &str) -> Map<String, Value> {
    let mut object = Map::new();
    for estimate in &summary.estimates {
        let key = format!("{prefix}{}", estimate.key);
        if let Some([low, high]) = estimate.interval {
            object.insert(format!("{key}_ci"), json!([low, high]));
        }
        if let Some(error) = estimate.standard_error {
            object.insert(format!("{key}_se"), error.into());
        }
        object.insert(key, estimate.value.into());
    }
    object
}

/// Writes `<split>.json` for each split and, with all of them, `buckets.json` into the folder `dir`, which is made
/// where missing. Each file is written beside and renamed, so a reader never sees half of one.
///
/// # Errors
/// [`Error::Io`] when the folder cannot be written.
pub fn write_metrics(dir: &Path, splits: &[(&str, &Evaluation)]) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir, "make the folder of the metrics"))?;
    for (split, evaluation) in splits {
        write_json(&dir.join(format!("{split}.json")), &evaluation.to_json())?;
    }
    let buckets: Map<String, Value> =
        splits.iter().map(|(split, evaluation)| ((*split).to_owned(), evaluation.buckets_to_json())).collect();
    write_json(&dir.join("buckets.json"), &Value::Object(buckets))
}

pub(crate) fn write_json(path: &Path, value: &Value) -> Result<()> {
    let beside = path.with_extension("json.part");
    std::fs::write(&beside, format!("{value:#}\n")).map_err(Error::io(path, "write the metrics"))?;
    std::fs::rename(&beside, path).map_err(Error::io(path, "write the metrics"))
}

//! Evaluation: the rank of each row's target in the whole catalogue, and everything that follows from ranks.
//!
//! - [`metrics`](Metric): HitRatio, Recall, NDCG and MRR from ranks; [`Summary`] adds standard errors and intervals.
//! - [`evaluate`] (feature `torch`): the one entry for students, teachers and baselines.
//! - [`Comparison`]: the table with the popularity row beside the model; [`write_metrics`]: the files of a run.
//!
//! The rank of a target is `1 + #greater + #equal`, counting the other items: ties are broken against the model, so a
//! model that gives every item the same score hits nothing. A score that is NaN or infinite is an error.
//!
//! Axis letters: `B` rows of a batch, `N` items, `K` length of the recommended list.

mod beyond;
pub(crate) mod bootstrap;
mod buckets;
mod config;
#[cfg(feature = "torch")]
mod evaluate;
mod evaluation;
mod metrics;
#[cfg(feature = "data")]
mod per_user;
#[cfg(feature = "torch")]
mod ranker;
mod ranking;
#[cfg(any(feature = "torch", test))]
mod scan;
mod summary;
mod table;

pub use beyond::{Beyond, NO_ITEM};
pub use buckets::{Bucket, length_bucket_names, popularity_bucket_names, popularity_bucket_of_items};
pub use config::EvalConfig;
#[cfg(feature = "torch")]
pub use evaluate::{evaluate, evaluate_watched};
pub use evaluation::{Catalogue, Evaluation, write_metrics};
pub use metrics::{Metric, mean};
#[cfg(feature = "data")]
pub use per_user::{write_other_ranks, write_per_user};
#[cfg(feature = "torch")]
pub use ranker::rank_rows;
pub use ranking::Ranking;
#[cfg(all(feature = "data", feature = "torch"))]
pub(crate) use scan::{Scratch, rank_row};
pub use summary::{Estimate, Summary};
pub use table::Comparison;

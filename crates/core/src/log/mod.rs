//! What a run says while it works: console and `run.log`, progress bars, `metrics.jsonl`, TensorBoard.

mod console;
mod metrics;
#[cfg(test)]
mod metrics_tests;
mod progress;
mod tensorboard;

pub(crate) use console::{Console, error_lines, out};
pub(crate) use metrics::Metrics;
pub use progress::Progress;

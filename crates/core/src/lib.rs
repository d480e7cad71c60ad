//! Everything that knows no model: configuration, runs, seeds, logs, data sets, metrics, checkpoints, optimizers.
//!
//! Feature `data` adds polars (reading tables), feature `torch` adds tch (tensors).

#[cfg(all(feature = "data", feature = "torch"))]
pub mod bundle;
pub mod child;
pub mod cli;
pub mod config;
pub mod data;
mod error;
pub mod eval;
mod log;
pub mod memory;
#[cfg(feature = "torch")]
pub mod parallel;
pub mod run;
pub mod seed;
mod signal;
pub mod stats;
mod sweep;
#[cfg(feature = "torch")]
pub mod torch;
#[cfg(feature = "torch")]
mod traits;
pub mod vecmath;

pub use error::{Error, Result};
pub use log::Progress;
#[cfg(feature = "torch")]
pub use traits::{Batch, Needs, Recommender, SelectionPolicy, Signals, StudentSignals, TeacherSignals};

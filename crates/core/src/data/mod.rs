//! Data sets: reading, filtering, indexing, splitting, caching.

mod dataset;
#[cfg(feature = "data")]
mod parquet;
mod rows;

pub use dataset::{Dataset, Item};
#[cfg(feature = "data")]
pub use parquet::{Column, write_parquet};
pub use rows::Rows;

//! Data sets: reading, filtering, indexing, splitting, caching.

mod dataset;
mod rows;

pub use dataset::{Dataset, Item};
pub use rows::Rows;

//! Data sets: reading, filtering, indexing, splitting, caching. The specification is `docs/specification/06_data.md`.

#[cfg(feature = "data")]
mod cache;
mod check;
mod config;
mod dataset;
#[cfg(feature = "data")]
mod filter;
mod find;
#[cfg(feature = "data")]
mod load;
#[cfg(feature = "data")]
pub(crate) mod number_table;
#[cfg(feature = "data")]
mod parquet;
#[cfg(feature = "data")]
mod read;
mod rows;
#[cfg(feature = "data")]
mod sources;
#[cfg(feature = "data")]
mod split;
mod target_index;
#[cfg(feature = "data")]
mod title;
#[cfg(feature = "data")]
mod toy;

#[cfg(test)]
#[cfg(feature = "data")]
mod tests;

pub use config::*;
pub use dataset::{Dataset, Item};
pub use find::Catalogue;
#[cfg(feature = "data")]
pub use load::load;
#[cfg(feature = "data")]
pub use parquet::{Column, parquet_columns, read_parquet, write_parquet};
pub use rows::Rows;
pub use target_index::TargetIndex;

//! Recommenders without a neural network: the rows that every model must beat.

mod item_knn;
mod popularity;

pub use item_knn::{ItemKnn, ItemKnnConfig};
pub use popularity::{Popularity, PopularityConfig, RecentPopularityConfig};

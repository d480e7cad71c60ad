//! What every consumer of data sees: catalogue, rows for training, validation and test, and the hashes that name them.

use super::Rows;

/// One item of the catalogue; its index in [`Dataset::items`] is its id everywhere inside anyo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The id in the source files.
    pub id: String,
    /// The title, or the id where the source has none.
    pub title: String,
    /// Other text (genres, platform); may be empty.
    pub text: String,
}

/// A data set, filtered, indexed and split.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Name of the configuration, such as `movielens-1m`.
    pub name: String,
    /// Items `0..n_items`.
    pub items: Vec<Item>,
    /// Original user ids `0..n_users`.
    pub users: Vec<String>,
    /// Rows to learn from.
    pub train: Rows,
    /// Rows for model selection: one target each.
    pub valid: Rows,
    /// Rows for the final figures: one target each.
    pub test: Rows,
    /// How often each item occurs in the interactions that training may see, `[n_items]`.
    pub train_counts: Vec<u64>,
    /// The item sequence of all interactions that training may see in time order where times are known across users,
    /// otherwise user by user; the newest last. For popularity of late.
    pub train_order: Vec<u32>,
    /// SHA-256 (hex) over the sources' content, the options and the split: equal hashes mean equal rows.
    pub hash: String,
    /// SHA-256 (hex) over the item ids in order.
    pub items_hash: String,
    /// What was done, for `run.yaml`: counts before and after each filter, options, source files with their hashes.
    pub provenance: serde_json::Value,
    /// How it was split and what is asked, in one line, such as `leave_one_out; full ranking over 3416 items`.
    pub protocol: String,
}

impl Dataset {
    /// Number of items.
    pub fn n_items(&self) -> usize {
        self.items.len()
    }

    /// Number of users.
    pub fn n_users(&self) -> usize {
        self.users.len()
    }
}

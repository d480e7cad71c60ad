//! Stands for the selection policies until they are there: every labelled row counts.

use anyo_core::{
    SelectionPolicy,
    config::{Check, Problem},
};
use serde::Serialize;

/// `active:` in the configuration.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum ActiveConfig {
    /// All labelled rows.
    All,
}

anyo_core::tagged!(ActiveConfig, "name", { "all" => All });

impl Check for ActiveConfig {
    fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }
}

/// The policy; `None` weighs nothing.
pub fn build(config: &ActiveConfig) -> Option<Box<dyn SelectionPolicy>> {
    match config {
        ActiveConfig::All => None,
    }
}

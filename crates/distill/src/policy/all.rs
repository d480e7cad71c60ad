//! Every target counts the same: what a distillation without a policy does.

use anyo_core::{
    Needs, Result, SelectionPolicy, Signals,
    config::{Check, Problem},
};
use serde::{Deserialize, Serialize};

use super::{Context, Make};

/// No keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllConfig {}

impl Check for AllConfig {
    fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }
}

impl Make for AllConfig {
    fn make(&self, _: &Context<'_>) -> Result<Box<dyn SelectionPolicy>> {
        Ok(Box::new(All))
    }
}

#[derive(Debug)]
struct All;

impl SelectionPolicy for All {
    fn needs(&self) -> Needs {
        Needs::Nothing
    }

    fn weights(&mut self, signals: &Signals<'_>) -> Vec<f32> {
        vec![1.0; signals.targets.len()]
    }
}

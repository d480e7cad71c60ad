//! Targets on which the student is unsure, by the margin between its two most probable items (Scheffer et al. 2001).

use anyo_core::{
    Needs, Result, SelectionPolicy, Signals,
    config::{Check, Problem, Ranges},
};
use serde::{Deserialize, Serialize};

use super::{Context, Make, share::keep_largest, student_entropy::Keep};

/// Keys of `student_margin`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentMarginConfig {
    /// Share of every batch that counts, 0 to 1.
    pub share: f64,
    /// Which end.
    pub keep: Keep,
}

impl Check for StudentMarginConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut list = Ranges::default();
        list.share("share", self.share);
        list.0
    }
}

impl Make for StudentMarginConfig {
    fn make(&self, _: &Context<'_>) -> Result<Box<dyn SelectionPolicy>> {
        Ok(Box::new(StudentMargin(self.clone())))
    }
}

/// 1 for the `⌈share·N⌉` targets of a batch with the smallest (or largest) `p₁ − p₂`.
#[derive(Debug)]
struct StudentMargin(StudentMarginConfig);

impl SelectionPolicy for StudentMargin {
    fn needs(&self) -> Needs {
        Needs::StudentScores
    }

    fn weights(&mut self, signals: &Signals<'_>) -> Vec<f32> {
        let sign = if self.0.keep == Keep::Unsure { -1.0 } else { 1.0 };
        keep_largest(signals.student.margin.iter().map(|m| sign * m), signals.targets, self.0.share)
    }
}

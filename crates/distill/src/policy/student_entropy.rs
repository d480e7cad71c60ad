//! Targets on which the student is unsure, by the entropy of its distribution over the catalogue (Lewis and Gale 1994;
//! Settles 2009).

use anyo_core::{
    Needs, Result, SelectionPolicy, Signals,
    config::{Check, Problem, Ranges},
};
use serde::{Deserialize, Serialize};

use super::{Context, Make, share::keep_largest};

/// Which end of an ordering is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// Where the student hesitates most.
    Unsure,
    /// Where it hesitates least.
    Sure,
}

/// Keys of `student_entropy`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentEntropyConfig {
    /// Share of every batch that counts, 0 to 1.
    pub share: f64,
    /// Which end.
    pub keep: Keep,
}

impl Check for StudentEntropyConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut list = Ranges::default();
        list.share("share", self.share);
        list.0
    }
}

impl Make for StudentEntropyConfig {
    fn make(&self, _: &Context<'_>) -> Result<Box<dyn SelectionPolicy>> {
        Ok(Box::new(StudentEntropy(self.clone())))
    }
}

/// 1 for the `⌈share·N⌉` targets of a batch with the largest (or smallest) entropy H(softmax(s)), in nats.
#[derive(Debug)]
struct StudentEntropy(StudentEntropyConfig);

impl SelectionPolicy for StudentEntropy {
    fn needs(&self) -> Needs {
        Needs::StudentScores
    }

    fn weights(&mut self, signals: &Signals<'_>) -> Vec<f32> {
        let sign = if self.0.keep == Keep::Unsure { 1.0 } else { -1.0 };
        keep_largest(signals.student.entropy.iter().map(|h| sign * h), signals.targets, self.0.share)
    }
}

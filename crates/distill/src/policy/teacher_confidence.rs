//! Targets whose true item the teacher ranks well: the trust that DLLM2Rec's confidence weight is meant to express
//! (Eq. 7), as a gate on whole rows; FixMatch (Sohn et al. 2020) for hard gates on a teacher.

use anyo_core::{
    Needs, Result, SelectionPolicy, Signals,
    config::{Check, Problem, Ranges},
};
use serde::{Deserialize, Serialize};

use super::{Context, Make};

/// What opens the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfidenceGate {
    /// The true item is among the teacher's first `top_m`.
    Rank,
    /// The true item lies at most `reach` spreads behind the first item.
    Distance,
}

/// Keys of `teacher_confidence`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherConfidenceConfig {
    /// What opens the gate.
    pub gate: ConfidenceGate,
    /// M of `rank`, at least 1.
    pub top_m: u32,
    /// τ of `distance`, from 0.
    pub reach: f32,
}

impl Check for TeacherConfidenceConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut list = Ranges::default();
        list.at_least("top_m", f64::from(self.top_m), 1.0);
        list.not_negative("reach", f64::from(self.reach));
        list.0
    }
}

impl Make for TeacherConfidenceConfig {
    fn make(&self, _: &Context<'_>) -> Result<Box<dyn SelectionPolicy>> {
        Ok(Box::new(TeacherConfidence(self.clone())))
    }
}

/// `rank`: `[1 ≤ r_t ≤ M]`. `distance`: `[d_true − d_first ≤ τ·spread]`, spread = mean distance of the first K items
/// minus the first one's, so that the unit of the distances does not matter. A target whose rank or distance is not
/// known counts 0.
#[derive(Debug)]
struct TeacherConfidence(TeacherConfidenceConfig);

impl SelectionPolicy for TeacherConfidence {
    fn needs(&self) -> Needs {
        Needs::Nothing
    }

    fn weights(&mut self, signals: &Signals<'_>) -> Vec<f32> {
        let teacher = &signals.teacher;
        let open = |at: usize| match self.0.gate {
            ConfidenceGate::Rank => (1..=self.0.top_m).contains(&teacher.true_rank[at]),
            // false where the distance is NaN
            ConfidenceGate::Distance => {
                teacher.true_distance[at] - teacher.first_distance[at] <= self.0.reach * teacher.spread[at]
            }
        };
        (0..signals.targets.len()).map(|at| f32::from(u8::from(open(at)))).collect()
    }
}

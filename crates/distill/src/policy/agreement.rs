//! Targets on which teacher and student name the same items (the consistency of DLLM2Rec on whole rows; Co-teaching, Han
//! et al. 2018, for agreement as a sign of clean labels).

use anyo_core::{
    Needs, Result, SelectionPolicy, Signals,
    config::{Check, Problem, Ranges},
};
use serde::{Deserialize, Serialize};

use super::{Context, Make};

/// How the overlap becomes a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgreementForm {
    /// 1 from `threshold` up, else 0.
    Threshold,
    /// The overlap itself.
    Proportional,
}

/// Keys of `agreement`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgreementConfig {
    /// How the overlap becomes a weight.
    pub form: AgreementForm,
    /// Smallest overlap that counts, 0 to 1; read by `threshold` only.
    pub threshold: f32,
}

impl Check for AgreementConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut list = Ranges::default();
        list.share("threshold", f64::from(self.threshold));
        list.0
    }
}

impl Make for AgreementConfig {
    fn make(&self, _: &Context<'_>) -> Result<Box<dyn SelectionPolicy>> {
        Ok(Box::new(Agreement(self.clone())))
    }
}

/// `o = |teacher's top K ∩ student's top K| / K`; `[o ≥ threshold]` or o.
#[derive(Debug)]
struct Agreement(AgreementConfig);

impl SelectionPolicy for Agreement {
    fn needs(&self) -> Needs {
        Needs::StudentScores
    }

    fn weights(&mut self, signals: &Signals<'_>) -> Vec<f32> {
        let weight = |&overlap: &f32| match self.0.form {
            AgreementForm::Threshold => f32::from(u8::from(overlap >= self.0.threshold)),
            AgreementForm::Proportional => overlap.clamp(0.0, 1.0),
        };
        signals.student.overlap.iter().map(weight).collect()
    }
}

//! A coin for each target and step: the control of every cleverer choice.

use anyo_core::{
    Needs, Result, SelectionPolicy, Signals,
    config::{Check, Problem, Ranges},
    seed,
};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::{Context, Make};

/// Keys of `random`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomConfig {
    /// Probability that a target counts, 0 to 1; 1 is `all`.
    pub p: f64,
}

impl Check for RandomConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut list = Ranges::default();
        list.share("p", self.p);
        list.0
    }
}

impl Make for RandomConfig {
    fn make(&self, _: &Context<'_>) -> Result<Box<dyn SelectionPolicy>> {
        Ok(Box::new(Random { p: self.p }))
    }
}

/// `w ~ Bernoulli(p)`, not divided by p: the expected weight is p.
#[derive(Debug)]
struct Random {
    p: f64,
}

impl SelectionPolicy for Random {
    fn needs(&self) -> Needs {
        Needs::Nothing
    }

    /// A draw depends on the step's seed and the target's number only, not on its neighbours in the batch.
    fn weights(&mut self, signals: &Signals<'_>) -> Vec<f32> {
        let draw = |&target: &u32| {
            let kept = seed::row_rng(signals.seed, u64::from(target)).random::<f64>() < self.p;
            f32::from(u8::from(kept))
        };
        signals.targets.iter().map(draw).collect()
    }
}

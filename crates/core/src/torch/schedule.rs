//! The learning rate over the steps of a run, as a factor of the configured rate.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    config::{Check, Problem},
};

/// Shape of the learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleName {
    /// Stays at the configured rate.
    Constant,
    /// Falls in a straight line to the floor.
    Linear,
    /// Falls along half a cosine to the floor.
    Cosine,
}

/// How the learning rate changes from step to step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Shape after the warm-up.
    pub name: ScheduleName,
    /// Optimizer steps from the floor up to the full rate; 0 starts at the full rate.
    pub warmup_steps: u64,
    /// Optimizer steps until the floor is reached, warm-up included; null: the length of the training.
    #[serde(deserialize_with = "Option::deserialize")]
    pub total_steps: Option<u64>,
    /// Lowest factor, at the first step of the warm-up and at the end; 0 to 1.
    pub floor: f64,
}

impl Check for ScheduleConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !(0.0..=1.0).contains(&self.floor) {
            problems.push(Problem::new("floor", format!("must be 0 to 1, got {}", self.floor)));
        }
        if let Some(total) = self.total_steps {
            if total == 0 {
                problems.push(Problem::new("total_steps", "must be at least 1 or null, got 0"));
            } else if self.name != ScheduleName::Constant && self.warmup_steps >= total {
                let message = format!("must be below total_steps ({total}), got {}", self.warmup_steps);
                problems.push(Problem::new("warmup_steps", message));
            }
        }
        problems
    }
}

/// A schedule whose length is known: a pure function of the step.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    name: ScheduleName,
    warmup: f64,
    total: f64,
    floor: f64,
}

impl Schedule {
    /// The schedule for a training of `training_steps` optimizer steps, which `total_steps` overrides where it is set.
    ///
    /// # Errors
    /// When the warm-up does not end before the last step of a falling schedule.
    pub fn new(config: &ScheduleConfig, training_steps: u64) -> Result<Self> {
        let total = config.total_steps.unwrap_or(training_steps);
        if config.name != ScheduleName::Constant && config.warmup_steps >= total {
            return Err(Error::Invalid {
                message: format!(
                    "schedule.warmup_steps is {}, but the whole schedule has {total} steps",
                    config.warmup_steps
                ),
                hint: Some("lower schedule.warmup_steps, train longer, or set schedule.name=constant".into()),
            });
        }
        Ok(Self { name: config.name, warmup: config.warmup_steps as f64, total: total as f64, floor: config.floor })
    }

    /// Factor of the learning rate for the update after `step` finished updates; the first update has `step` 0.
    ///
    /// Warm-up: `floor + (1 − floor)·s/w`; cosine: `floor + (1 − floor)·½(1 + cos(π(s − w)/(T − w)))`; beyond T the floor.
    pub fn factor(&self, step: u64) -> f64 {
        let s = step as f64;
        let rise = if s < self.warmup {
            s / self.warmup
        } else {
            let done = ((s - self.warmup) / (self.total - self.warmup)).min(1.0);
            match self.name {
                ScheduleName::Constant => 1.0,
                ScheduleName::Linear => 1.0 - done,
                ScheduleName::Cosine => 0.5 * (1.0 + (PI * done).cos()),
            }
        };
        self.floor + (1.0 - self.floor) * rise
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(name: ScheduleName, warmup_steps: u64, total: u64, floor: f64) -> Schedule {
        Schedule::new(&ScheduleConfig { name, warmup_steps, total_steps: None, floor }, total).unwrap()
    }

    fn assert_factor(schedule: &Schedule, step: u64, want: f64) {
        let got = schedule.factor(step);
        assert!((got - want).abs() < 1e-12, "step {step}: wanted {want}, got {got}");
    }

    #[test]
    fn cosine_after_warmup_matches_hand_values() {
        // specs/ilora.md section 9 test 9.
        let cosine = schedule(ScheduleName::Cosine, 10, 200, 0.0);
        for (step, want) in [(0, 0.0), (5, 0.5), (10, 1.0), (105, 0.5), (200, 0.0), (900, 0.0)] {
            assert_factor(&cosine, step, want);
        }
    }

    #[test]
    fn cosine_with_floor_matches_ilora_on_lastfm() {
        // Peak 7e-4, start and end 7e-6, T = 1870, w = 93; the third group runs at 0.3 of each.
        let cosine = schedule(ScheduleName::Cosine, 93, 1870, 0.01);
        for (step, want) in [(0, 7.0e-6), (46, 3.4977e-4), (93, 7.0e-4), (1870, 7.0e-6)] {
            let got = 7e-4 * cosine.factor(step);
            assert!((got - want).abs() < 5e-9, "step {step}: wanted {want}, got {got}");
        }
    }

    #[test]
    fn linear_and_constant_match_hand_values() {
        let linear = schedule(ScheduleName::Linear, 10, 110, 0.2);
        for (step, want) in [(0, 0.2), (5, 0.6), (10, 1.0), (60, 0.6), (110, 0.2), (500, 0.2)] {
            assert_factor(&linear, step, want);
        }
        let constant = schedule(ScheduleName::Constant, 4, 8, 0.0);
        for (step, want) in [(0, 0.0), (1, 0.25), (4, 1.0), (100, 1.0)] {
            assert_factor(&constant, step, want);
        }
        assert_factor(&schedule(ScheduleName::Constant, 0, 0, 0.0), 0, 1.0);
    }

    #[test]
    fn warmup_as_long_as_the_training_is_refused() {
        let config = ScheduleConfig { name: ScheduleName::Cosine, warmup_steps: 10, total_steps: None, floor: 0.0 };
        let error = Schedule::new(&config, 10).unwrap_err();
        assert!(error.to_string().contains("warmup_steps is 10"), "{error}");
        assert!(error.hint().is_some());
        assert!(Schedule::new(&ScheduleConfig { name: ScheduleName::Constant, ..config }, 10).is_ok());
    }

    #[test]
    fn every_value_out_of_range_is_reported() {
        let config = ScheduleConfig { name: ScheduleName::Cosine, warmup_steps: 9, total_steps: Some(9), floor: 1.5 };
        let keys: Vec<_> = config.problems().into_iter().map(|p| p.key).collect();
        assert_eq!(keys, ["floor", "warmup_steps"]);
        assert_eq!(ScheduleConfig { total_steps: Some(0), floor: 0.0, ..config }.problems()[0].key, "total_steps");
    }

    #[test]
    fn all_keys_must_be_given() {
        let error = serde_yaml::from_str::<ScheduleConfig>("{name: cosine, warmup_steps: 1, floor: 0}").unwrap_err();
        assert!(error.to_string().contains("total_steps"), "{error}");
        let config: ScheduleConfig =
            serde_yaml::from_str("{name: cosine, warmup_steps: 1, total_steps: null, floor: 0}").unwrap();
        assert_eq!(config.total_steps, None);
    }
}

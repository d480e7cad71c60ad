//! Easy targets first: a threshold on the student's loss that moves with the epoch (Bengio et al. 2009; self-paced
//! learning, Kumar et al. 2010).

use anyo_core::{
    Needs, Result, SelectionPolicy, Signals,
    config::{Check, Problem, Ranges},
};
use serde::{Deserialize, Serialize};

use super::{Context, Make};

/// Keys of `curriculum`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurriculumConfig {
    /// Threshold of the first epoch, in units of ln(items): 1 is the loss of a guess among all items. From 0.
    pub start: f64,
    /// Threshold at the end of the move, in the same unit; null: no threshold then. From 0.
    #[serde(deserialize_with = "Option::deserialize")]
    pub end: Option<f64>,
    /// Share of the epochs that the move takes, above 0 up to 1.
    pub over: f64,
}

impl Check for CurriculumConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut list = Ranges::default();
        list.not_negative("start", self.start);
        if let Some(end) = self.end {
            list.not_negative("end", end);
        }
        list.positive("over", self.over);
        list.share("over", self.over);
        list.0
    }
}

impl Make for CurriculumConfig {
    fn make(&self, context: &Context<'_>) -> Result<Box<dyn SelectionPolicy>> {
        // a catalogue of one item has no loss at all
        Ok(Box::new(Curriculum { config: self.clone(), unit: (context.n_items.max(2) as f64).ln() }))
    }
}

/// `[loss ≤ θ(e)·ln n_items]`, `θ(e) = start + (end − start)·min(1, e / (over·E))` with e from 0 and E epochs at most; with
/// `end` null, θ stays at `start` until `e ≥ over·E` and everything counts from there on.
#[derive(Debug)]
struct Curriculum {
    config: CurriculumConfig,
    unit: f64,
}

impl Curriculum {
    /// In nats.
    fn threshold(&self, epoch: u64, epochs: u64) -> f64 {
        let moved = (epoch as f64 / (self.config.over * epochs.max(1) as f64)).min(1.0);
        let theta = match self.config.end {
            Some(end) => self.config.start + (end - self.config.start) * moved,
            None if moved < 1.0 => self.config.start,
            None => f64::INFINITY,
        };
        theta * self.unit
    }
}

impl SelectionPolicy for Curriculum {
    fn needs(&self) -> Needs {
        Needs::StudentScores
    }

    fn weights(&mut self, signals: &Signals<'_>) -> Vec<f32> {
        let threshold = self.threshold(signals.epoch, signals.epochs);
        signals.student.loss.iter().map(|&loss| f32::from(u8::from(f64::from(loss) <= threshold))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_moves_and_stays() {
        let at = |end, epoch| {
            let config = CurriculumConfig { start: 1.0, end, over: 0.5 };
            Curriculum { config, unit: 2.0 }.threshold(epoch, 8)
        };
        // over = 4 epochs: 1, 1.25, 1.5, 1.75, 2 … in units of 2 nats
        assert_eq!([0, 1, 2, 3, 4, 7].map(|e| at(Some(2.0), e)), [2.0, 2.5, 3.0, 3.5, 4.0, 4.0]);
        assert_eq!([0, 3].map(|e| at(None, e)), [2.0, 2.0]);
        assert_eq!(at(None, 4), f64::INFINITY);
    }
}

//! More where the teacher ranks the true item better than the student, less where it ranks it worse (LLMD4Rec 2025).

use anyo_core::{
    Needs, Result, SelectionPolicy, Signals,
    config::{Check, Problem},
};
use serde::{Deserialize, Serialize};

use super::{Context, Make};

/// Keys of `rank_gap`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RankGapConfig {
    /// Weight of a target whose rank with the teacher is not known, 0 to 2.
    pub unknown: f32,
}

impl Check for RankGapConfig {
    fn problems(&self) -> Vec<Problem> {
        if (0.0..=2.0).contains(&self.unknown) {
            return Vec::new();
        }
        vec![Problem::new("unknown", format!("wanted 0 to 2, got {}", self.unknown))]
    }
}

impl Make for RankGapConfig {
    fn make(&self, _: &Context<'_>) -> Result<Box<dyn SelectionPolicy>> {
        Ok(Box::new(RankGap { unknown: self.unknown }))
    }
}

#[derive(Debug)]
struct RankGap {
    unknown: f32,
}

/// `clip(1 + (r_s − r_t)/max(r_t, 1), 0, 2)` where the teacher is better, `clip(1 − (r_t − r_s)/max(r_s, 1), 0, 2)`
/// elsewhere: 1 for equal ranks, 2 from twice the teacher's rank up, 0 from twice the student's.
fn weight(student: u32, teacher: u32) -> f32 {
    let (s, t) = (f64::from(student), f64::from(teacher));
    let raw = if s > t { 1.0 + (s - t) / t.max(1.0) } else { 1.0 - (t - s) / s.max(1.0) };
    raw.clamp(0.0, 2.0) as f32
}

impl SelectionPolicy for RankGap {
    fn needs(&self) -> Needs {
        Needs::StudentScores
    }

    fn weights(&mut self, signals: &Signals<'_>) -> Vec<f32> {
        let ranks = signals.student.true_rank.iter().zip(signals.teacher.true_rank);
        ranks.map(|(&s, &t)| if t == 0 { self.unknown } else { weight(s, t) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_computed() {
        let cases = [(50, 5, 2.0), (5, 8, 0.4), (7, 7, 1.0), (6, 4, 1.5), (1, 2, 0.0), (1, 1, 1.0), (3, 500, 0.0)];
        for (student, teacher, want) in cases {
            assert!(
                (weight(student, teacher) - want).abs() < 1e-7,
                "{student} {teacher}: {}",
                weight(student, teacher)
            );
        }
    }
}

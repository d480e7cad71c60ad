//! What a micro-batch is: candidates or none, item vectors or text alone, and which template each row gets.

use anyo_core::seed::{self, Stream};
use rand::RngExt;

use crate::{config::Curriculum, tokens::PromptMode};

/// Probability that a micro-batch of step `s` (counted from 1) of `total` carries item vectors.
///
/// Differs: the released code counts steps in each data worker and starts again every epoch, so that it stays at or below
/// 1/epochs; here the global optimizer step counts and the last step is always hybrid.
pub fn hybrid_probability(curriculum: Curriculum, s: u64, total: u64) -> f64 {
    match curriculum {
        Curriculum::AlwaysHybrid => 1.0,
        Curriculum::AlwaysText => 0.0,
        Curriculum::Linear => (s as f64 / total.max(1) as f64).min(1.0),
    }
}

/// Tells these draws from the order of the rows, which has the same stream.
const PROMPTS: u64 = 0x7072_6f6d_7074;

/// The draws of one micro-batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Drawn {
    /// Whether prompts list candidates.
    pub(super) choice: bool,
    /// Whether prompts carry item vectors.
    pub(super) mode: PromptMode,
    /// Template of each row.
    pub(super) templates: Vec<usize>,
}

impl Drawn {
    /// Micro-batch `micro` of `epoch` with `rows` rows; every number has its own draw, whatever the others come to.
    pub(super) fn new(
        seed: u64,
        (epoch, micro): (u64, u64),
        rows: usize,
        choice_share: f64,
        hybrid: f64,
        n_templates: usize,
    ) -> Self {
        let mut rng = seed::rng(seed ^ PROMPTS, Stream::Shuffle, epoch, micro);
        let (choice, u): (f64, f64) = (rng.random(), rng.random());
        let templates = (0..rows).map(|_| rng.random_range(0..n_templates.max(1))).collect();
        let mode = if u < hybrid { PromptMode::Hybrid } else { PromptMode::TextOnly };
        Self { choice: choice < choice_share, mode, templates }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// specs/ilora.md section 9, test 17.
    #[test]
    fn expected_hybrid_steps() {
        let sum: f64 = (1..=10).map(|s| hybrid_probability(Curriculum::Linear, s, 10)).sum();
        assert!((sum - 5.5).abs() < 1e-12);
        assert_eq!(hybrid_probability(Curriculum::Linear, 10, 10), 1.0);
        // The released counter: max_step over 5 epochs, the step starts again in each, so tau reaches 1/5.
        let (epochs, n) = (5u64, 200u64);
        let total: f64 =
            (0..epochs).flat_map(|_| (1..=n).map(|s| hybrid_probability(Curriculum::Linear, s, n * epochs))).sum();
        assert!((total / (epochs * n) as f64 - 0.1).abs() < 1e-3);
    }

    #[test]
    fn realised_shares_come_near_and_repeat() {
        let draw = |micro| Drawn::new(3, (1, micro), 4, 0.25, 0.4, 3);
        let all: Vec<Drawn> = (0..4000).map(draw).collect();
        let share = |test: &dyn Fn(&Drawn) -> bool| all.iter().filter(|d| test(d)).count() as f64 / 4000.0;
        assert!((share(&|d| d.choice) - 0.25).abs() < 0.02);
        assert!((share(&|d| d.mode == PromptMode::Hybrid) - 0.4).abs() < 0.02);
        assert!((share(&|d| d.templates[2] == 1) - 1.0 / 3.0).abs() < 0.02);
        assert_eq!(all[7], draw(7));
        assert!((0..100).all(|m| Drawn::new(3, (0, m), 1, 1.0, 1.0, 1).mode == PromptMode::Hybrid));
        assert!((0..100).all(|m| Drawn::new(3, (0, m), 1, 0.0, 0.0, 1).mode == PromptMode::TextOnly));
    }
}

//! What the ranking term needs of the targets of one batch, and what multiplies each of them.

use std::sync::atomic::{AtomicU64, Ordering};

use anyo_core::{
    SelectionPolicy, Signals, StudentSignals, TeacherSignals,
    seed::{self, Stream},
};
use anyo_student::Step;

use crate::{
    config::{DistillConfig, RankingLoss},
    lists::{List, RowInfo, TeacherLists},
    look::Said,
    weights::{entropy, mix},
};

/// What the loss of one batch needs of its N targets.
pub(crate) struct Batch<'a> {
    /// The teacher's list of each target, `[N]`.
    pub(crate) lists: Vec<Option<List<'a>>>,
    /// Bits of the candidates that are in the student's top K, `[N]`.
    pub(crate) both: Vec<AtomicU64>,
    /// λ, gate and policy, `[N]`.
    pub(crate) factors: Vec<f32>,
}

impl<'a> Batch<'a> {
    /// The lists of these targets; nothing is known of the student yet.
    pub(crate) fn new(lists: &'a TeacherLists, numbers: &[u32]) -> Self {
        Self {
            lists: numbers.iter().map(|&number| lists.get(number)).collect(),
            both: numbers.iter().map(|_| AtomicU64::new(0)).collect(),
            factors: Vec::new(),
        }
    }

    /// Weights of a target's candidates with everything that multiplies the row.
    pub(crate) fn weights(&self, config: &DistillConfig, at: usize, out: &mut [f32]) {
        let Some(list) = &self.lists[at] else { return };
        let both = self.both[at].load(Ordering::Relaxed);
        match config.loss {
            RankingLoss::Bce => mix(list.fixed, both, config.weights.consistency as f32, config.weights.form, out),
            RankingLoss::Listwise => out.copy_from_slice(list.fixed),
        }
        out.iter_mut().for_each(|w| *w *= self.factors[at]);
    }

    /// Sum of the entropies of the teacher's distributions with what multiplies each row: what a cross-entropy exceeds the
    /// divergence by.
    pub(crate) fn entropies(&self) -> f64 {
        let of = |(list, &factor): (&Option<List<'_>>, &f32)| {
            list.map_or(0.0, |list| f64::from(factor * entropy(list.fixed)))
        };
        self.lists.iter().zip(&self.factors).map(of).sum()
    }
}

/// Mean weight of each place over the labelled targets, `[K]`: what the released code's broadcast comes to.
pub(crate) fn mean_weights(config: &DistillConfig, batch: &Batch<'_>, k: usize) -> Vec<f32> {
    let (mut sums, mut n) = (vec![0f64; k], 0.0);
    let mut weights = vec![0f32; k];
    for (at, list) in batch.lists.iter().enumerate() {
        let Some(list) = list else { continue };
        let len = list.items.len();
        batch.weights(config, at, &mut weights[..len]);
        sums.iter_mut().zip(&weights[..len]).for_each(|(sum, &w)| *sum += f64::from(w));
        n += 1.0;
    }
    sums.iter().map(|sum| (sum / f64::max(n, 1.0)) as f32).collect()
}

/// Share of a list's items (the first 64) that are in the student's too.
pub(crate) fn share(both: &AtomicU64, list: &List<'_>) -> f64 {
    f64::from(both.load(Ordering::Relaxed).count_ones()) / list.items.len().clamp(1, 64) as f64
}

/// λ times gate times policy of each target; 0 without a list.
pub(crate) fn factors(
    policy: Option<&mut (dyn SelectionPolicy + 'static)>,
    config: &DistillConfig,
    step: &Step<'_>,
    batch: &Batch<'_>,
    said: &[Said],
) -> Vec<f32> {
    let lambda = config.lambda_d as f32;
    let mut factors: Vec<f32> =
        batch.lists.iter().map(|list| list.map_or(0.0, |list| lambda * list.info.gate)).collect();
    let Some(policy) = policy else { return factors };
    let labelled: Vec<usize> = (0..factors.len()).filter(|&at| batch.lists[at].is_some()).collect();
    let infos: Vec<_> = labelled.iter().filter_map(|&at| Some(batch.lists[at]?.info)).collect();
    let numbers: Vec<u32> = labelled.iter().map(|&at| step.numbers[at]).collect();
    let said: Vec<Said> = labelled.iter().filter_map(|&at| said.get(at).copied()).collect();
    let overlap: Vec<f32> = match said.is_empty() {
        true => Vec::new(),
        false => labelled.iter().filter_map(|&at| Some(share(&batch.both[at], &batch.lists[at]?) as f32)).collect(),
    };
    let (entropy, margin, loss): (Vec<f32>, Vec<f32>, Vec<f32>) = (
        said.iter().map(|s| s.entropy).collect(),
        said.iter().map(|s| s.margin).collect(),
        said.iter().map(|s| s.loss).collect(),
    );
    let rank: Vec<u32> = said.iter().map(|s| s.true_rank).collect();
    let true_rank: Vec<u32> = infos.iter().map(|info| info.true_rank).collect();
    let of = |pick: fn(&RowInfo) -> f32| infos.iter().map(pick).collect::<Vec<f32>>();
    let (distance, first, spread) = (of(|i| i.true_distance), of(|i| i.first_distance), of(|i| i.spread));
    let weights = policy.weights(&Signals {
        epoch: step.epoch,
        epochs: step.epochs,
        seed: seed::derive(step.seed, Stream::Distill, step.epoch, step.batch + 1),
        targets: &numbers,
        student: StudentSignals {
            entropy: &entropy,
            margin: &margin,
            true_rank: &rank,
            loss: &loss,
            overlap: &overlap,
        },
        teacher: TeacherSignals {
            true_rank: &true_rank,
            true_distance: &distance,
            first_distance: &first,
            spread: &spread,
        },
    });
    for (&at, weight) in labelled.iter().zip(weights) {
        factors[at] *= weight;
    }
    factors
}

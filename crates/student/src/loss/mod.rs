//! Losses over the targets of a batch, with gradients written down rather than recorded.
//!
//! A loss gets the states of all targets and the scoring head, and returns the gradients of both at once. Nothing of
//! size targets × catalogue is ever kept: the full-catalogue forms go through a fixed block of scores, so memory stays
//! flat with the catalogue and no pass over the scores is made twice.

mod catalogue;
mod kernel;
mod pairwise;
mod sampled;

use tch::{Kind, Tensor};

use crate::{
    batch::Negatives,
    config::{LossConfig, LossName},
};

pub(crate) use kernel::{axpy, best_of_machine, dot};

/// The scoring head: `score_i = state · weight_i + bias_i`.
#[derive(Debug)]
pub struct Head {
    /// `[n_items, D]`.
    pub weight: Tensor,
    /// `[n_items]`.
    pub bias: Option<Tensor>,
}

impl Head {
    /// Scores of all items for states `[B, D]`, `[B, n_items]`.
    pub fn scores(&self, states: &Tensor) -> Tensor {
        states.linear(&self.weight, self.bias.as_ref())
    }
}

/// Sum of a loss over the targets and its gradients, each multiplied by the scale that was asked for.
#[derive(Debug)]
pub struct LossGrad {
    /// Sum over the targets, not scaled.
    pub sum: f64,
    /// By the states `[N, D]`.
    pub states: Tensor,
    /// By the head's weight `[n_items, D]`.
    pub weight: Tensor,
    /// By the head's bias `[n_items]`, where there is one.
    pub bias: Option<Tensor>,
}

impl LossGrad {
    fn zeros(states: &Tensor, head: &Head) -> Self {
        Self {
            sum: 0.0,
            states: states.zeros_like(),
            weight: head.weight.zeros_like(),
            bias: head.bias.as_ref().map(Tensor::zeros_like),
        }
    }

    fn add(&mut self, other: Self) {
        self.sum += other.sum;
        self.states += other.states;
        self.weight += other.weight;
        if let (Some(mine), Some(theirs)) = (self.bias.as_mut(), other.bias) {
            *mine += theirs;
        }
    }

    /// A scalar whose backward pass puts these gradients into the graph of `states` and into the head.
    pub fn surrogate(&self, states: &Tensor, head: &Head) -> Tensor {
        let mut total = (states * &self.states).sum(Kind::Float) + (&head.weight * &self.weight).sum(Kind::Float);
        if let (Some(bias), Some(grad)) = (&head.bias, &self.bias) {
            total += (bias * grad).sum(Kind::Float);
        }
        total
    }
}

/// Constants of a loss that do not change from step to step.
#[derive(Debug)]
pub struct Loss {
    config: LossConfig,
    /// DROS's propensities `[n_items]`; empty without that term.
    propensity: Vec<f32>,
    /// Probability of each item as a negative `[n_items]`.
    proposal: Vec<f32>,
}

impl Loss {
    /// A loss for a catalogue whose items are training targets `counts[i]` times.
    pub fn new(config: &LossConfig, counts: &[u64]) -> Self {
        let propensity = if config.dros_alpha > 0.0 { propensities(counts) } else { Vec::new() };
        Self { config: config.clone(), propensity, proposal: crate::batch::proposal(config.negatives, counts) }
    }

    /// Loss and gradients over N targets.
    ///
    /// states `[N, D]` without a graph, `positives` `[N]`, `negatives` as the form needs them; the gradients are those
    /// of `scale` times the sum.
    pub fn grad(&self, states: &Tensor, head: &Head, positives: &[i32], negatives: &Negatives, scale: f64) -> LossGrad {
        let _guard = tch::no_grad_guard();
        let c = &self.config;
        let inv_temperature = 1.0 / c.temperature;
        let mut total = match c.name {
            LossName::Bce => pairwise::grad(states, head, positives, negatives, pairwise::Form::Bce, scale),
            LossName::Gbce => {
                let form =
                    pairwise::Form::Gbce { beta: gbce_beta(c.gbce_t, c.n_negatives, head.weight.size()[0] as usize) };
                pairwise::grad(states, head, positives, negatives, form, scale)
            }
            LossName::Ce => catalogue::cross_entropy(states, head, positives, inv_temperature, scale),
            LossName::SampledSoftmax => {
                sampled::grad(states, head, positives, negatives, (c.logq, &self.proposal), inv_temperature, scale)
            }
        };
        if c.dros_alpha > 0.0 {
            let mut dros =
                catalogue::dros(states, head, positives, &self.propensity, c.dros_beta, scale * c.dros_alpha);
            dros.sum *= c.dros_alpha;
            total.add(dros);
        }
        total
    }
}

/// β of gBCE: `α ((1 - 1/α) t + 1/α)` with sampling rate `α = k / (n_items - 1)` (gSASRec, Eq. 13).
fn gbce_beta(t: f64, n_negatives: usize, n_items: usize) -> f64 {
    let alpha = n_negatives as f64 / (n_items as f64 - 1.0).max(1.0);
    alpha * ((1.0 - 1.0 / alpha) * t + 1.0 / alpha)
}

/// `((count_j + 1) / Σ (count + 1))^0.05`, the propensities of DROS.
fn propensities(counts: &[u64]) -> Vec<f32> {
    let total: f64 = counts.iter().map(|&c| c as f64 + 1.0).sum();
    counts.iter().map(|&c| ((c as f64 + 1.0) / total).powf(0.05) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn propensities_match_the_hand_values() {
        // specs/dllm2rec.md section 13, item 8.
        for (got, want) in propensities(&[3, 1, 0]).iter().zip([0.972_407, 0.939_283, 0.907_288]) {
            assert!((got - want).abs() < 1e-6);
        }
    }
}

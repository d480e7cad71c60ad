//! Losses over the targets of a batch, with gradients written down rather than recorded.
//!
//! A loss gets the states of all targets and the scoring head, and returns the gradients of both at once. Nothing of
//! size targets × catalogue is ever kept: the full-catalogue forms go through a fixed block of scores, so memory stays
//! flat with the catalogue and no pass over the scores is made twice.

mod catalogue;
mod kernel;
mod over;
mod pairwise;
mod sampled;

use tch::{Kind, Tensor};

use crate::{
    batch::Negatives,
    config::{LossConfig, LossName},
    seen::{SEEN_SCALE, Seen},
};

pub use catalogue::scan;
pub use kernel::{axpy, dot};
pub use over::{Fill, Look, OverCatalogue, Slots};

/// The scoring head: `score_i = state · weight_i + bias_i`.
#[derive(Debug)]
pub struct Head {
    /// `[n_items, D]`.
    pub weight: Tensor,
    /// `[n_items]`.
    pub bias: Option<Tensor>,
    /// `[1]`; ten times this is added to the scores of items that the history holds.
    pub seen_bias: Option<Tensor>,
}

impl Head {
    /// Scores of all items for states `[B, D]`, `[B, n_items]`.
    pub fn scores(&self, states: &Tensor) -> Tensor {
        states.linear(&self.weight, self.bias.as_ref())
    }

    /// Another handle of the same tensors.
    pub fn shallow_clone(&self) -> Self {
        Self {
            weight: self.weight.shallow_clone(),
            bias: self.bias.as_ref().map(Tensor::shallow_clone),
            seen_bias: self.seen_bias.as_ref().map(Tensor::shallow_clone),
        }
    }

    /// What is added to the score of a seen item; `None` without such a number.
    pub fn seen_value(&self) -> Option<f32> {
        self.seen_bias.as_ref().map(|b| (b.double_value(&[0]) * SEEN_SCALE) as f32)
    }
}

/// The targets of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Targets<'a> {
    /// Target items `[N]`.
    pub positives: &'a [i32],
    /// What each target's sequence holds before it; read only where the head has a [`Head::seen_bias`].
    pub seen: &'a Seen,
}

/// Some targets of a batch, for a pass over the catalogue that leaves the others out. M of N targets.
#[derive(Debug)]
pub struct Subset {
    /// Places of the targets in the batch `[M]`, on the states' device.
    pub places: Tensor,
    /// Their states `[M, D]`.
    pub states: Tensor,
    positives: Vec<i32>,
    seen: Seen,
}

impl Subset {
    /// The targets at `rows` of a batch with states `[N, D]`.
    pub fn new(states: &Tensor, targets: Targets<'_>, rows: &[usize]) -> Self {
        let places: Vec<i64> = rows.iter().map(|&at| at as i64).collect();
        let places = Tensor::from_slice(&places).to_device(states.device());
        Self {
            states: states.index_select(0, &places),
            places,
            positives: rows.iter().map(|&at| targets.positives[at]).collect(),
            seen: targets.seen.select(rows),
        }
    }

    /// The chosen targets.
    pub fn targets(&self) -> Targets<'_> {
        Targets { positives: &self.positives, seen: &self.seen }
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
    /// By [`Head::seen_bias`] `[1]`, where there is one.
    pub seen_bias: Option<f64>,
}

impl LossGrad {
    /// No loss and no gradients, in the shapes of these.
    pub fn zeros(states: &Tensor, head: &Head) -> Self {
        Self {
            sum: 0.0,
            states: states.zeros_like(),
            weight: head.weight.zeros_like(),
            bias: head.bias.as_ref().map(Tensor::zeros_like),
            seen_bias: head.seen_bias.as_ref().map(|_| 0.0),
        }
    }

    /// Without gradients at all.
    fn nothing() -> Self {
        Self { sum: 0.0, states: Tensor::new(), weight: Tensor::new(), bias: None, seen_bias: None }
    }

    /// Adds another loss on the same states and head.
    pub fn add(&mut self, other: Self) {
        self.sum += other.sum;
        self.states += other.states;
        self.weight += other.weight;
        if let (Some(mine), Some(theirs)) = (self.bias.as_mut(), other.bias) {
            *mine += theirs;
        }
        if let (Some(mine), Some(theirs)) = (self.seen_bias.as_mut(), other.seen_bias) {
            *mine += theirs;
        }
    }

    /// A scalar whose backward pass puts these gradients into the graph of `states` and into the head.
    pub fn surrogate(&self, states: &Tensor, head: &Head) -> Tensor {
        // An inner product keeps no product for the backward pass.
        let inner = |x: &Tensor, grad: &Tensor| x.reshape(-1).dot(&grad.reshape(-1));
        let mut total = inner(states, &self.states) + inner(&head.weight, &self.weight);
        if let (Some(bias), Some(grad)) = (&head.bias, &self.bias) {
            total += inner(bias, grad);
        }
        if let (Some(bias), Some(grad)) = (&head.seen_bias, self.seen_bias) {
            total += bias.sum(Kind::Float) * grad;
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

    /// The weight of DROS's term, 0 without it.
    pub fn dros_alpha(&self) -> f64 {
        self.config.dros_alpha
    }

    /// Whether the loss scores the whole catalogue for every target, so that a guest's look costs no pass of its own.
    pub fn passes_catalogue(&self) -> bool {
        self.config.name == LossName::Ce || self.config.dros_alpha > 0.0
    }

    /// Loss and gradients over N targets.
    ///
    /// states `[N, D]` without a graph, `negatives` as the form needs them; the gradients are those of `scale` times
    /// the sum.
    pub fn grad(
        &self,
        states: &Tensor,
        head: &Head,
        targets: Targets<'_>,
        negatives: &Negatives,
        scale: f64,
    ) -> LossGrad {
        self.grad_with(states, head, targets, negatives, scale, &OverCatalogue::default())
    }

    /// [`Loss::grad`] with a guest in the pass over the catalogue: `over.look` has seen every target's scores once this
    /// returns, if need be in a pass of its own.
    ///
    /// The sum is that of the loss alone; the guest's slots are in the gradients and in what it was told.
    pub fn grad_with(
        &self,
        states: &Tensor,
        head: &Head,
        targets: Targets<'_>,
        negatives: &Negatives,
        scale: f64,
        over: &OverCatalogue<'_>,
    ) -> LossGrad {
        let positives = targets.positives;
        let _guard = tch::no_grad_guard();
        let c = &self.config;
        let inv_temperature = 1.0 / c.temperature;
        let (has_ce, has_dros) = (c.name == LossName::Ce || over.slots == Slots::CrossEntropy, c.dros_alpha > 0.0);
        // Who looks, looks at the first pass; slots go where they belong.
        let (in_ce, in_dros) = (over.only(true, Slots::CrossEntropy), over.only(!has_ce, Slots::Dros));
        if !has_ce && !has_dros {
            scan(states, head, targets, over);
        }
        let mut total = match c.name {
            LossName::Bce => pairwise::grad(states, head, positives, negatives, pairwise::Form::Bce, scale),
            LossName::Gbce => {
                let form =
                    pairwise::Form::Gbce { beta: gbce_beta(c.gbce_t, c.n_negatives, head.weight.size()[0] as usize) };
                pairwise::grad(states, head, positives, negatives, form, scale)
            }
            LossName::Ce => catalogue::cross_entropy(states, head, targets, (inv_temperature, true), scale, &in_ce),
            LossName::SampledSoftmax => {
                sampled::grad(states, head, targets, negatives, (c.logq, &self.proposal), inv_temperature, scale)
            }
        };
        if has_ce && c.name != LossName::Ce {
            total.add(catalogue::slots_alone(states, head, targets, inv_temperature, scale, &in_ce));
        }
        if has_dros {
            let scale = scale * c.dros_alpha;
            let mut dros = catalogue::dros(states, head, targets, (&self.propensity, c.dros_beta), scale, &in_dros);
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
    use tch::Device;

    use super::*;
    use crate::config::{LogQ, Negatives as Distribution};

    #[test]
    fn seen_bias_agrees_with_autograd() {
        tch::manual_seed(11);
        let leaf = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let (states, weight, theta) = (leaf(&[5, 4]), leaf(&[7, 4]), leaf(&[1]));
        let positives = [0, 3, 6, 3, 1];
        // Row 3's target is a repeat.
        let histories: [&[u32]; 5] = [&[1, 2], &[], &[0, 1, 2, 3], &[3, 5, 3], &[4]];
        let (shared, counts) = (vec![2, 3, 2, 5, 0, 1], [1u64; 7]);
        let seen = Seen::of_histories(&histories, 7);
        for (name, dros_alpha) in [(LossName::Ce, 0.0), (LossName::Ce, 0.5), (LossName::SampledSoftmax, 0.0)] {
            let config = LossConfig {
                name,
                n_negatives: 6,
                negatives: Distribution::Uniform,
                logq: LogQ::None,
                gbce_t: 0.75,
                temperature: 2.0,
                dros_alpha,
                dros_beta: 1.0,
            };
            let loss = Loss::new(&config, &counts);
            let head = Head { weight: weight.shallow_clone(), bias: None, seen_bias: Some(theta.shallow_clone()) };
            let negatives = match name {
                LossName::Ce => Negatives::None,
                _ => Negatives::Shared { items: shared.clone() },
            };
            let targets = Targets { positives: &positives, seen: &seen };
            let found = loss.grad(&states.detach(), &head, targets, &negatives, 0.25);

            let marks = Tensor::zeros([5, 7], (Kind::Float, Device::Cpu));
            seen.add(&marks, 0, SEEN_SCALE as f32);
            let scores = states.matmul(&weight.transpose(0, 1)) + &theta * marks;
            let target = Tensor::from_slice(&positives).to_kind(Kind::Int64);
            let mut total = match name {
                LossName::Ce => {
                    (&scores / 2.0).cross_entropy_loss::<&Tensor>(&target, None, tch::Reduction::Sum, -100, 0.0)
                }
                _ => {
                    let ids = Tensor::from_slice(&shared).to_kind(Kind::Int64);
                    let own = target.unsqueeze(1);
                    let rest = scores.index_select(1, &ids).masked_fill(&ids.unsqueeze(0).eq_tensor(&own), -1e30);
                    let all = Tensor::cat(&[scores.gather(1, &own, false), rest], 1) / 2.0;
                    -all.log_softmax(1, Kind::Float).select(1, 0).sum(Kind::Float)
                }
            };
            if dros_alpha > 0.0 {
                let p = Tensor::from_slice(&propensities(&counts));
                let one_hot = target.one_hot(7).to_kind(Kind::Float);
                total += ((&scores - one_hot).square() * p).logsumexp([-1i64], false).sum(Kind::Float) * dros_alpha;
            }
            assert!((found.sum - total.double_value(&[])).abs() < 1e-4, "{name:?}: {} against {total}", found.sum);
            let inputs = [&states, &weight, &theta];
            let wanted = Tensor::run_backward(&[total * 0.25], &inputs, false, false);
            let got = Tensor::run_backward(&[found.surrogate(&states, &head)], &inputs, false, false);
            for (got, wanted) in got.iter().zip(&wanted) {
                assert!(got.allclose(wanted, 1e-4, 1e-5, false), "{name:?}: {got} against {wanted}");
            }
        }
    }

    #[test]
    fn slots_of_some_targets_agree_with_autograd() {
        tch::manual_seed(12);
        let leaf = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let (states, weight, theta) = (leaf(&[5, 4]), leaf(&[7, 4]), leaf(&[1]));
        let seen = Seen::of_histories(&[&[1, 2], &[], &[0, 1, 2, 3], &[3, 5, 3], &[4]], 7);
        let config = LossConfig {
            name: LossName::SampledSoftmax,
            n_negatives: 6,
            negatives: Distribution::Uniform,
            logq: LogQ::None,
            gbce_t: 0.75,
            temperature: 2.0,
            dros_alpha: 0.0,
            dros_beta: 1.0,
        };
        let loss = Loss::new(&config, &[1; 7]);
        let head = Head { weight: weight.shallow_clone(), bias: None, seen_bias: Some(theta.shallow_clone()) };
        let targets = Targets { positives: &[0, 3, 6, 3, 1], seen: &seen };
        let negatives = Negatives::Shared { items: vec![2, 3, 2, 5, 0, 1] };
        let alone = loss.grad(&states.detach(), &head, targets, &negatives, 0.25);
        let slots = [vec![], vec![(2, 0.5f32), (6, 0.25)], vec![], vec![(0, 2.0)], vec![]];
        for few in [true, false] {
            let of = |at: usize| if few { slots[at].clone() } else { vec![(at as u32, 1.0)] };
            let told: Vec<std::sync::atomic::AtomicU64> = (0..5).map(|_| Default::default()).collect();
            let fill = |at: usize, out: &mut Vec<(u32, f32)>| out.extend(of(at));
            let hear = |at: usize, loss: f64| told[at].store(loss.to_bits(), std::sync::atomic::Ordering::Relaxed);
            let over = OverCatalogue {
                slots: Slots::CrossEntropy,
                fill: Some(&fill),
                told: Some(&hear),
                ..OverCatalogue::default()
            };
            let found = loss.grad_with(&states.detach(), &head, targets, &negatives, 0.25, &over);

            let marks = Tensor::zeros([5, 7], (Kind::Float, Device::Cpu));
            seen.add(&marks, 0, SEEN_SCALE as f32);
            let log_p = ((states.matmul(&weight.transpose(0, 1)) + &theta * marks) / 2.0).log_softmax(-1, Kind::Float);
            let mut total = Tensor::zeros([1], (Kind::Float, Device::Cpu));
            for (at, told) in told.iter().enumerate() {
                let terms =
                    of(at).into_iter().map(|(item, w)| -log_p.get(at as i64).get(i64::from(item)) * f64::from(w));
                let sum = terms.fold(Tensor::zeros([1], (Kind::Float, Device::Cpu)), |sum, term| sum + term);
                let heard = f64::from_bits(told.load(std::sync::atomic::Ordering::Relaxed));
                assert!((heard - sum.double_value(&[0])).abs() < 1e-5, "target {at}: {heard} against {sum}");
                total += sum;
            }
            assert_eq!(found.sum, alone.sum, "the sum is that of the loss alone");
            let inputs = [&states, &weight, &theta];
            let wanted = Tensor::run_backward(&[total * 0.25], &inputs, false, false);
            let surrogate = found.surrogate(&states, &head) - alone.surrogate(&states, &head);
            let got = Tensor::run_backward(&[surrogate], &inputs, false, false);
            for (got, wanted) in got.iter().zip(&wanted) {
                assert!(got.allclose(wanted, 1e-4, 1e-5, false), "few {few}: {got} against {wanted}");
            }
        }
    }

    #[test]
    fn propensities_match_the_hand_values() {
        // specs/dllm2rec.md section 13, item 8.
        for (got, want) in propensities(&[3, 1, 0]).iter().zip([0.972_407, 0.939_283, 0.907_288]) {
            assert!((got - want).abs() < 1e-6);
        }
    }
}

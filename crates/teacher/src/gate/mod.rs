//! Gates: from the sequence encoder's state of a row to the weights of its experts.
//!
//! One gate serves all adapted linears and is computed once for each sequence (iLoRA, Kong et al., 2024; the released code
//! does the same under the name of a shared router). Softmax and weights are f32 whatever the language model computes in.
//!
//! Differs: the paper's linear gate is the default, the released ResNet an option; `topk` scales the kept probabilities to
//! sum 1 where the released code takes a second softmax of them; noise is added in training only.

mod resnet;
mod stats;

use anyo_core::{
    Error, Result,
    seed::row_rng,
    torch::{Init, Params, dims},
};
use rand::RngExt;
use tch::{Device, Kind, Tensor, no_grad};

use crate::config::{GateConfig, GateName};
use resnet::Resnet1d;
pub use stats::GateStats;

/// Whether a gate is computed for training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateMode {
    /// No noise, saved statistics.
    Eval,
    /// Noise drawn from this seed and the row's key; batch statistics, which also move the saved ones.
    Train(u64),
}

/// A gate whose weights live in a [`Params`] under names that begin with `gate.`.
#[derive(Debug)]
pub struct Gate {
    config: GateConfig,
    width: i64,
    device: Device,
    seed: u64,
    net: Net,
}

#[derive(Debug)]
enum Net {
    None,
    /// `[E,d]`
    Linear(Tensor),
    /// `[hidden,d]`, `[hidden]`, `[E,hidden]`, `[E]`
    Mlp([Tensor; 4]),
    Resnet(Resnet1d),
}

/// A number for each history, the same wherever it is met: the key of its row's random numbers.
pub fn row_key(history: &[u32]) -> u64 {
    // FNV-1a over the ids.
    history
        .iter()
        .flat_map(|item| item.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

impl Gate {
    /// A gate over states of width `d` with PyTorch's initial weights; `seed` also draws the `random` gate's weights.
    ///
    /// # Errors
    /// When a parameter cannot be made, or `resnet1d` gets states too short for its strides.
    pub fn new(config: &GateConfig, d: i64, params: &mut Params, seed: u64) -> Result<Self> {
        let e = config.experts;
        let net = match config.name {
            GateName::Uniform | GateName::Random => Net::None,
            GateName::Linear | GateName::Topk | GateName::Noisy | GateName::Top1 => {
                Net::Linear(params.create("gate.weight", &[e, d], Init::KaimingUniform, seed)?)
            }
            GateName::Mlp => {
                let h = config.hidden;
                Net::Mlp([
                    params.create("gate.w1.weight", &[h, d], Init::KaimingUniform, seed)?,
                    params.create("gate.w1.bias", &[h], Init::bias(d), seed)?,
                    params.create("gate.w2.weight", &[e, h], Init::KaimingUniform, seed)?,
                    params.create("gate.w2.bias", &[e], Init::bias(h), seed)?,
                ])
            }
            GateName::Resnet1d => Net::Resnet(Resnet1d::new(d, e, config.norm, params, seed)?),
        };
        Ok(Self { config: config.clone(), width: d, device: params.device(), seed, net })
    }

    /// Number of experts E.
    pub fn experts(&self) -> i64 {
        self.config.experts
    }

    /// Weights `[B,E]` in f32 that sum to 1 in each row, for states `[B,d]` and the [`row_key`] of each.
    ///
    /// # Errors
    /// When the width differs, there is not one key for each row, or libtorch fails.
    pub fn forward(&self, states: &Tensor, keys: &[u64], mode: GateMode) -> Result<Tensor> {
        let [b, d] = dims("gate input", states, ["B", "d"])?;
        if d != self.width || keys.len() as i64 != b {
            let (want, n) = (self.width, keys.len());
            return Err(Error::invalid(format!(
                "the gate takes states [B,{want}] and a key for each row, got [{b},{d}] and {n} keys"
            )));
        }
        let states = states.f_detach()?.f_to_device(self.device)?.f_to_kind(Kind::Float)?;
        let e = self.config.experts;
        let logits = match &self.net {
            Net::None if self.config.name == GateName::Uniform => {
                return Ok(Tensor::f_full([b, e], 1.0 / e as f64, (Kind::Float, self.device))?);
            }
            Net::None => return self.drawn(keys),
            Net::Linear(weight) => states.f_linear(weight, None::<&Tensor>)?,
            Net::Mlp([w1, b1, w2, b2]) => states.f_linear(w1, Some(b1))?.f_gelu("none")?.f_linear(w2, Some(b2))?,
            Net::Resnet(net) => net.forward(&states, mode != GateMode::Eval)?,
        };
        let logits = match (self.config.name, mode) {
            (GateName::Noisy, GateMode::Train(seed)) if self.config.noise > 0.0 => {
                logits.f_add(&self.noise(seed, keys)?)?
            }
            _ => logits,
        };
        let p = logits.f_softmax(-1, Kind::Float)?;
        match self.config.name {
            GateName::Topk => top_k(&p, self.config.top_k, self.config.legacy_softmax),
            GateName::Top1 => {
                let best = no_grad(|| p.f_argmax(-1, false)?.f_one_hot(e)?.f_to_kind(Kind::Float))?;
                // Forward exactly the one-hot row, backward the softmax (straight through).
                Ok(best.f_add(&p.f_sub(&p.f_detach()?)?)?)
            }
            _ => Ok(p),
        }
    }

    /// Weights uniform on the simplex, one draw for each key.
    fn drawn(&self, keys: &[u64]) -> Result<Tensor> {
        let mut all = Vec::with_capacity(keys.len() * self.config.experts as usize);
        for &key in keys {
            let mut rng = row_rng(self.seed, key);
            let draws: Vec<f64> =
                (0..self.config.experts).map(|_| -(1.0 - rng.random::<f64>()).ln() + f64::MIN_POSITIVE).collect();
            let sum: f64 = draws.iter().sum();
            all.extend(draws.iter().map(|x| (x / sum) as f32));
        }
        Ok(Tensor::f_from_slice(&all)?.f_view([keys.len() as i64, self.config.experts])?.f_to_device(self.device)?)
    }

    /// Normal numbers `[B,E]` of the configured deviation (Box and Muller).
    fn noise(&self, seed: u64, keys: &[u64]) -> Result<Tensor> {
        let mut all = Vec::with_capacity(keys.len() * self.config.experts as usize);
        for &key in keys {
            let mut rng = row_rng(seed, key);
            all.extend((0..self.config.experts).map(|_| {
                let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
                (self.config.noise * radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()) as f32
            }));
        }
        Ok(Tensor::f_from_slice(&all)?.f_view([keys.len() as i64, self.config.experts])?.f_to_device(self.device)?)
    }

    /// The load-balance term of Switch Transformers (Fedus et al., 2021) for gates `[B,E]`: `E · Σ_e f_e P_e`, f_e the
    /// share of rows whose largest weight is e's and P_e its mean weight. At least 1; 1 when all experts share equally.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn load_balance(gates: &Tensor) -> Result<Tensor> {
        let [_, e] = dims("gates", gates, ["B", "E"])?;
        let share = no_grad(|| {
            gates.f_argmax(-1, false)?.f_one_hot(e)?.f_to_kind(Kind::Float)?.f_mean_dim(0, false, Kind::Float)
        })?;
        let mean = gates.f_mean_dim(0, false, Kind::Float)?;
        Ok(share.f_dot(&mean)?.f_mul_scalar(e as f64)?)
    }

    /// The configured weight of [`Gate::load_balance`].
    pub fn balance_weight(&self) -> f64 {
        self.config.load_balance
    }
}

/// The `k` largest of each row of `p` `[B,E]`, scaled to sum 1; with `legacy` softmax of the kept values instead.
fn top_k(p: &Tensor, k: i64, legacy: bool) -> Result<Tensor> {
    let kept = no_grad(|| {
        let (_, best) = p.f_topk(k, -1, true, false)?;
        p.f_zeros_like()?.f_scatter_value(1, &best, 1.0)
    })?;
    if legacy {
        let dropped = no_grad(|| kept.f_eq(0.0))?;
        return Ok(p.f_masked_fill(&dropped, f64::NEG_INFINITY)?.f_softmax(-1, Kind::Float)?);
    }
    let kept = p.f_mul(&kept)?;
    Ok(kept.f_div(&kept.f_sum_dim_intlist(-1, true, Kind::Float)?)?)
}

#[cfg(test)]
mod tests;

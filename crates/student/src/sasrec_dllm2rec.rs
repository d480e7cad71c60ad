//! The one-block SASRec that iLoRA, LLaRA and DLLM2Rec use: windows of ten, untied head with bias.
//!
//! Tensor names and layouts are those of the released weights, so they load as they are.
//!
//! Differs: pads are known by their place, where the released code looks whether a vector sums to zero.

use anyo_core::{
    Result,
    torch::{Init, Params},
};
use tch::Tensor;

use crate::{
    batch::Input,
    config::WindowConfig,
    dropout::Mode,
    layers::{LayerNorm, Linear, causal_attention},
    loss::Head,
    network::Network,
    sasrec::zero_empty,
};

const NORM_EPS: f64 = 1e-5;

/// The network. Axes: B rows, T places, D `d_model`, L `max_len`.
#[derive(Debug)]
pub struct SasrecDllm2rec {
    dropout: f64,
    n_items: i64,
    item_embeddings: Tensor,       // [n_items + 1, D]; the last row is the pad
    positional_embeddings: Tensor, // [L, D]; row 0 belongs to the oldest item of the window
    ln_1: LayerNorm,
    linear_q: Linear,
    linear_k: Linear,
    linear_v: Linear,
    ln_2: LayerNorm,
    w_1: Linear,
    w_2: Linear,
    ln_ffn: LayerNorm,
    ln_3: LayerNorm,
    s_fc: Head,
}

impl SasrecDllm2rec {
    /// A network with new weights: items N(0, 0.01²), places N(0, 1), the rest as PyTorch does.
    ///
    /// # Errors
    /// When a parameter cannot be made (no memory).
    pub fn new(config: &WindowConfig, n_items: usize, params: &mut Params, seed: u64) -> Result<Self> {
        let (d, n) = (config.d_model, n_items as i64);
        let mut make = PytorchDefaults { params, seed };
        Ok(Self {
            dropout: config.dropout,
            n_items: n,
            item_embeddings: make.normal("item_embeddings.weight", &[n + 1, d], 0.01)?,
            positional_embeddings: make.normal("positional_embeddings.weight", &[config.max_len as i64, d], 1.0)?,
            ln_1: make.norm("ln_1", d)?,
            linear_q: make.linear("mh_attn.linear_q", &[d, d])?,
            linear_k: make.linear("mh_attn.linear_k", &[d, d])?,
            linear_v: make.linear("mh_attn.linear_v", &[d, d])?,
            ln_2: make.norm("ln_2", d)?,
            w_1: make.linear("feed_forward.w_1", &[d, d, 1])?,
            w_2: make.linear("feed_forward.w_2", &[d, d, 1])?,
            ln_ffn: make.norm("feed_forward.layer_norm", d)?,
            ln_3: make.norm("ln_3", d)?,
            s_fc: make.head("s_fc", n, d)?,
        })
    }
}

impl Network for SasrecDllm2rec {
    fn pad(&self) -> i64 {
        self.n_items
    }

    fn items(&self) -> &Tensor {
        &self.item_embeddings
    }

    fn states_from(&self, items: &Tensor, input: &Input, mode: &Mode) -> Tensor {
        let p = self.dropout;
        let items = Tensor::embedding(items, &input.ids, -1, false, false); // [B,T,D]
        let x = mode.dropout(&(items + self.positional_embeddings.narrow(0, 0, input.width as i64)), p);
        let queries = self.ln_1.forward(&x);
        // Keys and values see x without its norm, and the residual carries the queries' norm: as released.
        let attended = causal_attention(
            &self.linear_q.forward(&queries),
            &self.linear_k.forward(&x),
            &self.linear_v.forward(&x),
            1,
            p,
            mode,
        );
        let z = self.ln_2.forward(&(attended + queries));
        let conv = |layer: &Linear, x: &Tensor| x.linear(&layer.weight.squeeze_dim(2), layer.bias.as_ref());
        let inner = conv(&self.w_2, &conv(&self.w_1, &z).relu());
        let out = self.ln_ffn.forward(&(z + mode.dropout(&inner, p)));
        self.ln_3.forward(&out)
    }

    fn newest(&self, input: &Input) -> Tensor {
        pick_newest(&self.states(input, &Mode::Eval), input)
    }

    fn head(&self) -> Head {
        self.s_fc.shallow_clone()
    }
}

/// The state of each row's newest place, `[B,T,D]` → `[B,D]`; zeros for an empty row.
pub(crate) fn pick_newest(states: &Tensor, input: &Input) -> Tensor {
    let d = states.size()[2];
    zero_empty(states.reshape([-1, d]).index_select(0, &input.newest()), input)
}

/// Adds parameters with PyTorch's own initial values, which tch's layers do not use.
pub(crate) struct PytorchDefaults<'a> {
    pub(crate) params: &'a mut Params,
    pub(crate) seed: u64,
}

impl PytorchDefaults<'_> {
    pub(crate) fn tensor(&mut self, name: &str, size: &[i64], init: Init) -> Result<Tensor> {
        self.params.create(name, size, init, self.seed)
    }

    pub(crate) fn normal(&mut self, name: &str, size: &[i64], std: f64) -> Result<Tensor> {
        self.tensor(name, size, Init::Normal { std })
    }

    /// Weight `[out, in, ..]` and bias, both U(±1/√fan_in).
    pub(crate) fn linear(&mut self, name: &str, size: &[i64]) -> Result<Linear> {
        let weight = self.tensor(&format!("{name}.weight"), size, Init::KaimingUniform)?;
        let bias = self.tensor(&format!("{name}.bias"), &size[..1], Init::bias(size[1..].iter().product()))?;
        Ok(Linear { weight, bias: Some(bias) })
    }

    pub(crate) fn norm(&mut self, name: &str, d: i64) -> Result<LayerNorm> {
        let weight = self.tensor(&format!("{name}.weight"), &[d], Init::Ones)?;
        Ok(LayerNorm { weight, bias: self.tensor(&format!("{name}.bias"), &[d], Init::Zeros)?, eps: NORM_EPS })
    }

    pub(crate) fn head(&mut self, name: &str, n_items: i64, d: i64) -> Result<Head> {
        let Linear { weight, bias } = self.linear(name, &[n_items, d])?;
        Ok(Head { weight, bias, seen_bias: None })
    }
}

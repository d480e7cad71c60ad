//! The few layers the students share; parameters are tensors that [`anyo_core::torch::Params`] owns too.

use tch::{Kind, Tensor};

use crate::dropout::Mode;

/// `x W^T + b`.
#[derive(Debug)]
pub(crate) struct Linear {
    /// `[out, in]`.
    pub(crate) weight: Tensor,
    /// `[out]`.
    pub(crate) bias: Option<Tensor>,
}

impl Linear {
    /// x `[.., in]` → `[.., out]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, self.bias.as_ref())
    }

    /// The part of the layer that makes outputs `start..start + len`.
    pub(crate) fn rows(&self, start: i64, len: i64) -> Self {
        Self { weight: self.weight.narrow(0, start, len), bias: self.bias.as_ref().map(|b| b.narrow(0, start, len)) }
    }
}

/// Layer norm over the last axis with learned scale and shift.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    pub(crate) eps: f64,
}

impl LayerNorm {
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.eps, false)
    }
}

/// Causal attention. q, k, v `[B,T,D]`, split into `n_heads` along D; a place sees itself and what came before it.
///
/// Rows are padded at the end, so no real place ever sees a pad and no key mask is needed.
pub(crate) fn causal_attention(q: &Tensor, k: &Tensor, v: &Tensor, n_heads: i64, dropout: f64, mode: &Mode) -> Tensor {
    let (b, t, d) = q.size3().unwrap_or_default();
    let heads = |x: &Tensor| x.view([b, t, n_heads, d / n_heads]).transpose(1, 2); // [B,H,T,D/H]
    let (q, k, v) = (heads(q), heads(k), heads(v));
    let out = if dropout > 0.0 && matches!(mode, Mode::Train(_)) {
        // libtorch's fused attention on the CPU takes no dropout.
        let scores = (q / ((d / n_heads) as f64).sqrt()).matmul(&k.transpose(2, 3)); // [B,H,T,T]
        let future = Tensor::full([t, t], f64::NEG_INFINITY, (Kind::Float, scores.device())).triu(1);
        let weights = (scores + future).softmax(-1, Kind::Float);
        mode.dropout(&weights, dropout).matmul(&v)
    } else {
        Tensor::scaled_dot_product_attention::<&Tensor>(&q, &k, &v, None, 0.0, true, None, false)
    };
    out.transpose(1, 2).reshape([b, t, d])
}

/// Attention of one query a row over the first `lens[b]` keys. q `[B,1,D]`, k and v `[B,T,D]` → `[B,1,D]`.
pub(crate) fn newest_attention(q: &Tensor, k: &Tensor, v: &Tensor, n_heads: i64, lens: &[usize]) -> Tensor {
    let (b, t, d) = k.size3().unwrap_or_default();
    let heads = |x: &Tensor, t: i64| x.view([b, t, n_heads, d / n_heads]).transpose(1, 2);
    let (q, k, v) = (heads(q, 1), heads(k, t), heads(v, t));
    let mut scores = (q / ((d / n_heads) as f64).sqrt()).matmul(&k.transpose(2, 3)); // [B,H,1,T]
    if lens.iter().any(|&len| (len as i64) < t) {
        let lens: Vec<i64> = lens.iter().map(|&len| len.max(1) as i64).collect();
        let lens = Tensor::from_slice(&lens).to_device(scores.device()).view([b, 1, 1, 1]);
        let pad = Tensor::arange(t, (Kind::Int64, scores.device())).greater_equal_tensor(&lens);
        scores = scores.masked_fill(&pad, f64::NEG_INFINITY);
    }
    scores.softmax(-1, Kind::Float).matmul(&v).transpose(1, 2).reshape([b, 1, d])
}

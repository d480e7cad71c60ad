//! One decoder layer: norm, attention, norm, SwiGLU.

use anyo_core::Result;
use tch::{Kind, Tensor};

use crate::{
    attention::{Visible, attend},
    cache::KvCache,
    linear::Linear,
    pass::Pass,
    rope::Rotation,
    single_place, single_query,
};

/// RMSNorm: x / √(mean x² + ε) in f32, back to the type of x, times the weight.
#[derive(Debug)]
pub(super) struct Norm {
    pub(super) name: String,
    pub(super) weight: Tensor,
    pub(super) eps: f64,
}

impl Norm {
    /// x `[..,D]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if let Some(normed) = single_place::rms_norm(x, &self.weight, self.eps) {
            return Ok(normed);
        }
        let d = self.weight.size();
        if x.kind() == Kind::Float && self.weight.kind() == Kind::Float {
            return Ok(x.f_rms_norm(&d, Some(&self.weight), self.eps)?);
        }
        let normed = x.f_to_kind(Kind::Float)?.f_rms_norm(&d, None::<&Tensor>, self.eps)?;
        Ok(normed.f_to_kind(x.kind())?.f_mul(&self.weight)?)
    }

    pub(super) fn named(&self) -> (String, Tensor) {
        (self.name.clone(), self.weight.shallow_clone())
    }
}

/// The projections in front of the attention.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one per layer of a model; a box would only add a step")]
pub(super) enum Qkv {
    Split(Linear, Linear, Linear),
    /// Queries, keys and values below each other.
    Fused(Linear),
}

/// The projections in front of the activation.
#[derive(Debug)]
pub(super) enum GateUp {
    Split(Linear, Linear),
    /// Gate above up.
    Fused(Linear),
}

/// What all layers of one pass share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) rotation: Rotation,
    /// For layers without a window; absent where every layer has one.
    pub(super) full: Option<Visible>,
    /// For layers with one.
    pub(super) windowed: Option<Visible>,
}

#[derive(Debug)]
pub(super) struct Layer {
    pub(super) input_norm: Norm,
    pub(super) qkv: Qkv,
    pub(super) o: Linear,
    pub(super) post_norm: Norm,
    pub(super) gate_up: GateUp,
    pub(super) down: Linear,
    /// Query heads, key heads, width of a head.
    pub(super) heads: [i64; 3],
    pub(super) windowed: bool,
}

impl Layer {
    /// x `[B,S,D]` → `[B,S,D]`; `cache` comes with the number of this layer.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        shared: &Shared,
        cache: Option<(&mut KvCache, usize)>,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        let x = self.attention(x, &self.input_norm.forward(x)?, shared, cache, pass)?;
        self.mlp(x, pass)
    }

    /// x `[B,S,D]` plus what the MLP makes of it.
    pub(super) fn mlp(&self, x: Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let inside = self.post_norm.forward(&x)?;
        let (gate, up) = match &self.gate_up {
            GateUp::Split(gate, up) => Linear::forward_each([gate, up], &inside, pass).into(),
            GateUp::Fused(both) => {
                let both = both.forward(&inside, pass);
                let f = both.size().last().copied().unwrap_or(0) / 2;
                (both.f_narrow(-1, 0, f)?, both.f_narrow(-1, f, f)?)
            }
        };
        let inside = match single_place::silu_mul(&gate, &up) {
            Some(inside) => inside,
            None => gate.f_silu()?.f_mul(&up)?,
        };
        self.down.forward_onto(&x, &inside, pass)
    }

    /// `residual` plus the attention over x, both `[B,S,D]`.
    fn attention(
        &self,
        residual: &Tensor,
        x: &Tensor,
        shared: &Shared,
        cache: Option<(&mut KvCache, usize)>,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        let [h, n_kv, width] = self.heads;
        let (b, s, _) = x.size3()?;
        // [B,S,H·Dh] → [B,H,S,Dh]
        let split = |x: &Tensor, n: i64| x.f_reshape([b, s, n, width])?.f_transpose(1, 2);
        let (q, k, v) = match &self.qkv {
            Qkv::Split(q, k, v) => Linear::forward_each([q, k, v], x, pass).into(),
            Qkv::Fused(all) => {
                let all = all.forward(x, pass);
                let (q, kv) = (h * width, n_kv * width);
                (all.f_narrow(-1, 0, q)?, all.f_narrow(-1, q, kv)?, all.f_narrow(-1, q + kv, kv)?)
            }
        };
        let visible = if self.windowed { &shared.windowed } else { &shared.full };
        let Some(visible) = visible else {
            return Err(anyo_core::Error::invalid("no mask for this layer"));
        };
        let mut cache = cache;
        if let Some((cache, layer)) = &mut cache {
            let qkv = [&q, &k, &v];
            let out = single_query::attend(qkv, self.heads, &shared.rotation, visible, cache, *layer)?;
            if let Some(out) = out {
                return self.o.forward_onto(residual, &out, pass);
            }
        }
        let (q, k, v) = (split(&q, h)?, split(&k, n_kv)?, split(&v, n_kv)?);
        let (q, k) = (shared.rotation.apply(&q)?, shared.rotation.apply(&k)?);
        let out = match cache {
            None => attend(&q, &k, &v, visible)?,
            Some((cache, layer)) => {
                let first = cache.is_empty();
                let (keys, values) = cache.append(layer, &k, &v)?;
                // The first tokens are better read from where they were just computed.
                if first { attend(&q, &k, &v, visible)? } else { attend(&q, &keys, &values, visible)? }
            }
        };
        self.o.forward_onto(residual, &out, pass)
    }

    pub(super) fn linears(&self) -> Vec<&Linear> {
        let mut list = match &self.qkv {
            Qkv::Split(q, k, v) => vec![q, k, v],
            Qkv::Fused(all) => vec![all],
        };
        list.push(&self.o);
        match &self.gate_up {
            GateUp::Split(gate, up) => list.extend([gate, up]),
            GateUp::Fused(both) => list.push(both),
        }
        list.push(&self.down);
        list
    }

    pub(super) fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let mut list = match &mut self.qkv {
            Qkv::Split(q, k, v) => vec![q, k, v],
            Qkv::Fused(all) => vec![all],
        };
        list.push(&mut self.o);
        match &mut self.gate_up {
            GateUp::Split(gate, up) => list.extend([gate, up]),
            GateUp::Fused(both) => list.push(both),
        }
        list.push(&mut self.down);
        list
    }

    /// Appends names and handles in the order of [`crate::LmConfig::tensors`].
    pub(super) fn named_tensors(&self, list: &mut Vec<(String, Tensor)>) {
        list.push(self.input_norm.named());
        let linears = self.linears();
        let attention = if matches!(self.qkv, Qkv::Fused(_)) { 2 } else { 4 };
        linears[..attention].iter().for_each(|linear| named(linear, list));
        list.push(self.post_norm.named());
        linears[attention..].iter().for_each(|linear| named(linear, list));
    }
}

/// Appends weight and bias of a linear layer; a quantised weight is no tensor of the checkpoint.
pub(super) fn named(linear: &Linear, list: &mut Vec<(String, Tensor)>) {
    if let Some(weight) = linear.weight() {
        list.push((format!("{}.weight", linear.name()), weight.shallow_clone()));
    }
    if let Some(bias) = linear.bias() {
        list.push((format!("{}.bias", linear.name()), bias.shallow_clone()));
    }
}

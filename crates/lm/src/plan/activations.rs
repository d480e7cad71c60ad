//! What autograd keeps of a forward pass, layer by layer.
//!
//! For T = B·S tokens, widths D (residual), Q = H·Dh, K = Hkv·Dh and F (inside the MLP), one layer keeps:
//!
//! - each of the two norms its input in f32 (in f32 computing that is the residual itself), in training of the norm's
//!   gain also the normed values, and what it hands on (the input of the linears) where a weight or adapter learns there;
//! - attention its queries, keys, values and output, and one f32 for each head and token. On the CPU keys and values are
//!   first repeated for all query heads. The rotation keeps nothing: its tables do not learn;
//! - the MLP gate, up, silu(gate), and their product where `down_proj` learns.

use tch::Device;

use super::Trained;
use crate::config::LmConfig;

/// Widths and token counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Bytes of a number.
    e: u64,
    /// T.
    tokens: u64,
    batch: u64,
    seq_len: u64,
    layers: u64,
    heads: u64,
    d: u64,
    q: u64,
    k: u64,
    f: u64,
}

impl Shape {
    pub(super) fn new(config: &LmConfig, e: u64, batch: u64, seq_len: u64) -> Self {
        Self {
            e,
            tokens: batch * seq_len,
            batch,
            seq_len,
            layers: config.n_layers as u64,
            heads: config.n_heads as u64,
            d: config.hidden_size as u64,
            q: (config.n_heads * config.head_dim) as u64,
            k: (config.n_kv_heads * config.head_dim) as u64,
            f: config.intermediate_size as u64,
        }
    }

    /// The largest set that one layer holds without autograd: in the MLP the layer's input, attention's part, their sum,
    /// the normed input, gate, up, silu and product; in attention input, normed input, the projections, their rotated
    /// forms, the repeated keys and values, and the output.
    pub(super) fn inference(&self) -> u64 {
        let mlp = 4 * self.d + 4 * self.f;
        let attention = 2 * self.d + 2 * (self.q + self.k) + self.k + 3 * self.q;
        self.tokens * self.e * mlp.max(attention)
    }
}

/// Bytes of a training pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Activations {
    /// Alive when the backward pass begins; with checkpointing, when it is inside a layer.
    pub(super) kept: u64,
    /// Gradients that the backward pass holds at once.
    pub(super) passing: u64,
    /// What one layer keeps.
    pub(super) layer: u64,
}

impl Activations {
    pub(super) fn new(s: &Shape, trained: &Trained, checkpointing: bool, packed: bool, device: Device) -> Self {
        let Shape { e, tokens: t, d, q, k, f, .. } = *s;
        let (all, targets, dropout) = match trained {
            Trained::All => (true, &[][..], false),
            Trained::Lora { targets, dropout, .. } => (false, targets.as_slice(), *dropout),
        };
        let learns = |names: &[&str]| all || names.iter().any(|name| targets.iter().any(|t| t == name));
        let n_of = |names: &[&str]| names.iter().filter(|name| targets.iter().any(|t| t == *name)).count() as u64;
        let (before, gates) = (["q_proj", "k_proj", "v_proj", "qkv_proj"], ["gate_proj", "up_proj", "gate_up_proj"]);

        // Input in f32, normed values for the gain's gradient, and the output.
        let norm = |used: bool| d * 4 + if all { d * e } else { 0 } + if used { d * e } else { 0 };
        let keys = if device == Device::Cpu && k < q { q } else { k };
        let attention = (2 * q + 2 * keys) * e + 4 * s.heads;
        let mlp = (3 * f + if learns(&["down_proj"]) { f } else { 0 }) * e;
        // Dropout keeps its mask as numbers and, for A's gradient, what it let through, for each adapter.
        let dropped = match dropout {
            true => 2 * e * ((n_of(&before) + n_of(&gates)) * d + n_of(&["o_proj"]) * q + n_of(&["down_proj"]) * f),
            false => 0,
        };
        let layer = t * (norm(learns(&before)) + norm(learns(&gates)) + attention + mlp + dropped);

        let mask = if packed { 2 * s.batch * s.seq_len * s.seq_len * e } else { 0 };
        // Final norm, the states, their gradient and what the surrogate hands back.
        let head = t * (norm(true) + 3 * d * e);
        let kept = match checkpointing {
            true => (s.layers + 1) * t * d * e + layer,
            false => s.layers * layer,
        };
        // In the MLP: gradients of product, silu, up and gate beside that of the residual; in attention those of
        // output, queries, keys and values.
        let passing = t * e * (2 * d + (3 * f).max(2 * q + 2 * keys));
        Self { kept: kept + head + mask, passing, layer }
    }
}

//! What autograd keeps of a forward pass, layer by layer.
//!
//! For T = B·S tokens, widths D (residual), Q = H·Dh, K = Hkv·Dh and F (inside the MLP), one layer keeps:
//!
//! - each of the two norms its input in f32 (in f32 computing that is the residual itself), in training of the norm's
//!   gain also the normed values, and what it hands on (the input of the linears) where a weight or adapter learns there;
//! - attention its queries, keys, values and output, and one f32 for each head and token. On the CPU keys and values are
//!   first repeated for all query heads. The rotation keeps nothing: its tables do not learn;
//! - the MLP gate, up, silu(gate), and their product where `down_proj` learns;
//! - each adapter its inner numbers in f32, and of its input: nothing more where that is kept anyway, a copy in f32 under
//!   bf16, or with dropout the mask and what it let through. A frozen linear keeps only its weight.
//!
//! Tensors that are not kept leave holes between those that are. glibc cuts each aligned block out of a larger one and
//! gives the rest to small objects, so a hole does not take a tensor of the size that it had: the heap grows by what each
//! half of a layer holds at its fullest beside the kept tensors (seen with an allocator that counts: the live bytes are
//! those above, the resident ones exceed them by this).

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
    /// LLM.int8 rounds the input of each linear: the widths of all inputs of a layer but that of `down_proj`, which is F.
    rounded: Option<u64>,
}

impl Shape {
    pub(super) fn new(config: &LmConfig, e: u64, batch: u64, seq_len: u64, int8: bool) -> Self {
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
            rounded: int8.then(|| {
                let inside = |name: &str| name.starts_with("model.layers.0.") && !name.contains("down_proj");
                let tensors = config.tensors().into_iter().filter(|(name, _)| inside(name));
                tensors.filter_map(|(_, shape)| (shape.len() == 2).then(|| shape[1] as u64)).sum()
            }),
        }
    }

    /// The largest set that one layer holds without autograd. In the MLP the layer's input, attention's part, their sum,
    /// the normed input, gate, up, silu and product (with LLM.int8 silu makes room for the product rounded); in attention
    /// input, normed input, the projections, their rotated forms, the repeated keys and values, and the output.
    pub(super) fn inference(&self) -> u64 {
        let attention = self.e * (2 * self.d + 2 * (self.q + self.k) + self.k + 3 * self.q);
        let mlp = self.e * (4 * self.d + 4 * self.f);
        // The MLP's tensors are wider than the holes that attention's leave. A rounded input leaves one in front of its
        // linear's output, which the next rounded input of that size misses by the bytes of its alignment.
        let holes = if self.f > self.q { self.attention_holes() } else { 0 } + self.rounded.unwrap_or(0);
        let holes = self.e * holes;
        self.tokens * (mlp + holes).max(attention)
    }

    /// Numbers for each token that attention makes and drops: queries, keys and values before the rotation, two more of the
    /// queries in it, two of the keys, and one that is repeated.
    fn attention_holes(&self) -> u64 {
        3 * self.q + 4 * self.k
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
    /// Holes that the forward pass leaves in the heap.
    pub(super) holes: u64,
}

impl Activations {
    pub(super) fn new(s: &Shape, trained: &Trained, checkpointing: bool, packed: bool, device: Device) -> Self {
        let Shape { e, tokens: t, d, q, k, f, .. } = *s;
        let (all, targets, dropout, inner) = match trained {
            Trained::All => (true, &[][..], false, 0),
            Trained::Lora { targets, dropout, rank, gated } => {
                (false, targets.as_slice(), *dropout, 4 * *rank as u64 * if *gated { 3 } else { 1 })
            }
        };
        // A's gradient needs its input: the tensor itself, unless that is of another type or went through dropout.
        let itself = !dropout && e == 4;
        let learns = |names: &[&str]| all || itself && names.iter().any(|name| targets.iter().any(|t| t == name));
        let n_of = |names: &[&str]| names.iter().filter(|name| targets.iter().any(|t| t == *name)).count() as u64;
        let (before, gates) = (["q_proj", "k_proj", "v_proj", "qkv_proj"], ["gate_proj", "up_proj", "gate_up_proj"]);

        // Input in f32, normed values for the gain's gradient, and the output.
        let norm = |used: bool| d * 4 + if all { d * e } else { 0 } + if used { d * e } else { 0 };
        let keys = if device == Device::Cpu && k < q { q } else { k };
        let attention = (2 * q + 2 * keys) * e + 4 * s.heads;
        let mlp = (3 * f + if learns(&["down_proj"]) { f } else { 0 }) * e;
        // In f32: dropout's mask and what it let through, or a copy of the input.
        let copies = if dropout { 2 } else { u64::from(!all && e < 4) };
        let inputs = (n_of(&before) + n_of(&gates)) * d + n_of(&["o_proj"]) * q + n_of(&["down_proj"]) * f;
        let n_adapters = n_of(&before) + n_of(&gates) + n_of(&["o_proj", "down_proj"]);
        let adapters = 4 * copies * inputs + n_adapters * inner;
        let layer = t * (norm(learns(&before)) + norm(learns(&gates)) + attention + mlp + adapters);
        // The MLP's half: what comes out of the norm, the product and the output of `down_proj`.
        let unkept = |names: &[&str], width: u64| if learns(names) { 0 } else { width };
        let half = s.attention_holes() + unkept(&gates, d) + unkept(&["down_proj"], f) + d;
        // LLM.int8: what rounding changes, and the sum with the input.
        let half = half + s.rounded.map_or(0, |others| 2 * (f + others));

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
        let holes = match checkpointing {
            // Those of one layer, behind those of the forward pass, which keeps nothing of its layers.
            true => t * e * half + s.inference(),
            false => t * e * half * s.layers,
        };
        Self { kept: kept + head + mask, passing, layer, holes }
    }
}

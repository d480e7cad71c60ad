//! SASRec with a tied head (Kang and McAuley, ICDM 2018; the form of SASRec.pytorch by default), up to the modern
//! pre-norm SwiGLU block.
//!
//! Differs from SASRec.pytorch: pads are at the end and are never attended to; there they stand in front, carry the
//! attention's biases as keys and values, and take a share of every softmax.

use anyo_core::{
    Result,
    torch::{Init, Params},
};
use tch::Tensor;

use crate::{
    batch::Input,
    config::{Ffn, InitKind, Norm, SasrecConfig},
    dropout::Mode,
    layers::{LayerNorm, Linear, causal_attention, newest_attention},
    loss::Head,
    network::Network,
};

/// The network. Axes: B rows, T places, D `d_model`, L `max_len`.
#[derive(Debug)]
pub struct Sasrec {
    config: SasrecConfig,
    item_emb: Tensor, // [n_items, D]
    pos_emb: Tensor,  // [L, D]; row L-1 belongs to the newest item
    blocks: Vec<Block>,
    ln_last: LayerNorm,
    seen_bias: Option<Tensor>, // [1]
}

#[derive(Debug)]
struct Block {
    ln1: LayerNorm,
    in_proj: Linear, // [3D, D]: queries, keys, values
    out_proj: Linear,
    ln2: LayerNorm,
    ffn: FeedForward,
}

#[derive(Debug)]
enum FeedForward {
    TwoLayers { first: Linear, second: Linear, gelu: bool },
    Gated { gate: Linear, up: Linear, down: Linear },
}

impl Sasrec {
    /// A network with new weights drawn from `seed`, its parameters added to `params`.
    ///
    /// # Errors
    /// When a parameter cannot be made (no memory).
    pub fn new(config: &SasrecConfig, n_items: usize, params: &mut Params, seed: u64) -> Result<Self> {
        let d = config.d_model;
        let inner = ((d as f64 * config.ffn_ratio).round() as i64).max(1);
        let mut make = Maker { params, seed, init: config.init, eps: config.norm_eps };
        let item_emb = make.matrix("item_emb.weight", [n_items as i64, d])?;
        let pos_emb = make.matrix("pos_emb.weight", [config.max_len as i64, d])?;
        let blocks = (0..config.n_blocks).map(|i| make.block(i, d, inner, config.ffn)).collect::<Result<_>>()?;
        let ln_last = make.norm("ln_last", d)?;
        let seen_bias = config.seen_bias.then(|| make.vector("seen_bias", 1, Init::Zeros)).transpose()?;
        Ok(Self { config: config.clone(), item_emb, pos_emb, blocks, ln_last, seen_bias })
    }

    fn embed(&self, items: &Tensor, input: &Input, mode: &Mode) -> Tensor {
        let mut x = Tensor::embedding(items, &input.ids, -1, false, false); // [B,T,D]
        if self.config.scale_embeddings {
            x *= (self.config.d_model as f64).sqrt();
        }
        let places = input.right_aligned(self.config.max_len);
        mode.dropout(&(x + Tensor::embedding(&self.pos_emb, &places, -1, false, false)), self.config.dropout)
    }

    /// `residual` plus the position-wise part of `x`.
    fn feed_forward(&self, ffn: &FeedForward, x: &Tensor, residual: &Tensor, mode: &Mode) -> Tensor {
        let p = self.config.dropout;
        let out = match ffn {
            FeedForward::TwoLayers { first, second, gelu } => {
                let hidden = first.forward(x);
                let hidden = if *gelu { hidden.gelu("none") } else { hidden.relu() };
                second.forward(&mode.dropout(&hidden, p))
            }
            FeedForward::Gated { gate, up, down } => {
                let hidden = gate.forward(x).silu() * up.forward(x);
                down.forward(&mode.dropout(&hidden, p))
            }
        };
        mode.add_dropped(residual, &out, p)
    }

    /// One block. `x` `[B,T,D]` gives keys and values; `newest` `[B,1,D]`, where given, is the only place that asks.
    fn block(&self, block: &Block, x: &Tensor, newest: Option<(&Tensor, &[usize])>, mode: &Mode) -> Tensor {
        let (d, c) = (self.config.d_model, &self.config);
        let asking = newest.map_or(x, |(newest, _)| newest);
        let (asking_normed, seen) = match c.norm {
            Norm::Query => (block.ln1.forward(asking), x.shallow_clone()),
            Norm::Pre if newest.is_none() => {
                let normed = block.ln1.forward(x);
                (normed.shallow_clone(), normed)
            }
            Norm::Pre => (block.ln1.forward(asking), block.ln1.forward(x)),
        };
        let [q, k, v] = if newest.is_none() && c.norm == Norm::Pre {
            let qkv = block.in_proj.forward(&seen); // [B,T,3D]
            split(&qkv, d)
        } else {
            let q = block.in_proj.rows(0, d).forward(&asking_normed);
            let kv = block.in_proj.rows(d, 2 * d).forward(&seen); // [B,T,2D]
            let [k, v] = split(&kv, d);
            [q, k, v]
        };
        let attended = match newest {
            Some((_, lens)) => newest_attention(&q, &k, &v, c.n_heads, lens),
            None => causal_attention(&q, &k, &v, c.n_heads, c.attention_dropout, mode),
        };
        let attended = block.out_proj.forward(&attended);
        match c.norm {
            Norm::Query => {
                let x = block.ln2.forward(&(asking_normed + attended));
                self.feed_forward(&block.ffn, &x, &x, mode)
            }
            Norm::Pre => {
                let x = mode.add_dropped(asking, &attended, c.dropout);
                let normed = block.ln2.forward(&x);
                self.feed_forward(&block.ffn, &normed, &x, mode)
            }
        }
    }
}

impl Network for Sasrec {
    fn pad(&self) -> i64 {
        // Any item will do: what stands at a pad is never read.
        0
    }

    fn items(&self) -> &Tensor {
        &self.item_emb
    }

    fn states_from(&self, items: &Tensor, input: &Input, mode: &Mode) -> Tensor {
        let mut x = self.embed(items, input, mode);
        for block in &self.blocks {
            x = self.block(block, &x, None, mode);
        }
        self.ln_last.forward(&x)
    }

    /// The last block answers for the newest place only: half of its work falls away. An empty row gives zeros.
    fn newest(&self, input: &Input) -> Tensor {
        let mode = Mode::Eval;
        let mut x = self.embed(&self.item_emb, input, &mode);
        for (i, block) in self.blocks.iter().enumerate() {
            let last = i + 1 == self.blocks.len();
            let newest = last.then(|| {
                let (b, _, d) = x.size3().unwrap_or_default();
                x.view([-1, d]).index_select(0, &input.newest()).view([b, 1, d])
            });
            x = self.block(block, &x, newest.as_ref().map(|n| (n, input.lens.as_slice())), &mode);
        }
        zero_empty(self.ln_last.forward(&x).squeeze_dim(1), input)
    }

    fn head(&self) -> Head {
        let seen_bias = self.seen_bias.as_ref().map(Tensor::shallow_clone);
        Head { weight: self.item_emb.shallow_clone(), bias: None, seen_bias }
    }
}

/// The parts of width `d` along the last axis. Backward joins their gradients with one copy; `narrow` would fill a zero
/// tensor of the whole width for each part and add them up.
fn split<const N: usize>(x: &Tensor, d: i64) -> [Tensor; N] {
    x.split(d, -1).try_into().unwrap_or_else(|parts: Vec<_>| unreachable!("{} parts of width {d}", parts.len()))
}

/// Zeroes the state of rows without any item: nothing is known of them.
pub(crate) fn zero_empty(states: Tensor, input: &Input) -> Tensor {
    if input.lens.iter().all(|&len| len > 0) {
        return states;
    }
    let mask: Vec<f32> = input.lens.iter().map(|&len| f32::from(u8::from(len > 0))).collect();
    states * Tensor::from_slice(&mask).to_device(input.ids.device()).unsqueeze(1)
}

/// Adds parameters with the initial values that the configuration names.
struct Maker<'a> {
    params: &'a mut Params,
    seed: u64,
    init: InitKind,
    eps: f64,
}

impl Maker<'_> {
    fn block(&mut self, i: usize, d: i64, inner: i64, ffn: Ffn) -> Result<Block> {
        let name = |part: &str| format!("blocks.{i}.{part}");
        Ok(Block {
            ln1: self.norm(&name("ln1"), d)?,
            in_proj: Linear {
                weight: self.matrix(&name("attn.in_proj.weight"), [3 * d, d])?,
                bias: Some(self.vector(&name("attn.in_proj.bias"), 3 * d, Init::Zeros)?),
            },
            out_proj: Linear {
                weight: self.matrix(&name("attn.out_proj.weight"), [d, d])?,
                bias: Some(self.vector(&name("attn.out_proj.bias"), d, Init::Zeros)?),
            },
            ln2: self.norm(&name("ln2"), d)?,
            ffn: match ffn {
                Ffn::Relu | Ffn::Gelu => FeedForward::TwoLayers {
                    first: self.linear(&name("ffn.conv1"), inner, d)?,
                    second: self.linear(&name("ffn.conv2"), d, inner)?,
                    gelu: ffn == Ffn::Gelu,
                },
                Ffn::Swiglu => FeedForward::Gated {
                    gate: self.without_bias(&name("ffn.w_gate"), inner, d)?,
                    up: self.without_bias(&name("ffn.w_up"), inner, d)?,
                    down: self.without_bias(&name("ffn.w_down"), d, inner)?,
                },
            },
        })
    }

    fn matrix(&mut self, name: &str, size: [i64; 2]) -> Result<Tensor> {
        let init = match self.init {
            InitKind::XavierNormal => Init::XavierNormal,
            InitKind::Normal002 => Init::Normal { std: 0.02 },
        };
        self.params.create(name, &size, init, self.seed)
    }

    fn vector(&mut self, name: &str, len: i64, init: Init) -> Result<Tensor> {
        self.params.create(name, &[len], init, self.seed)
    }

    fn without_bias(&mut self, name: &str, out: i64, input: i64) -> Result<Linear> {
        Ok(Linear { weight: self.matrix(&format!("{name}.weight"), [out, input])?, bias: None })
    }

    /// A layer with a bias: zero with `normal002`, PyTorch's default otherwise.
    fn linear(&mut self, name: &str, out: i64, input: i64) -> Result<Linear> {
        let weight = self.matrix(&format!("{name}.weight"), [out, input])?;
        let init = match self.init {
            InitKind::XavierNormal => Init::bias(input),
            InitKind::Normal002 => Init::Zeros,
        };
        Ok(Linear { weight, bias: Some(self.vector(&format!("{name}.bias"), out, init)?) })
    }

    fn norm(&mut self, name: &str, d: i64) -> Result<LayerNorm> {
        let weight = self.vector(&format!("{name}.weight"), d, Init::Ones)?;
        Ok(LayerNorm { weight, bias: self.vector(&format!("{name}.bias"), d, Init::Zeros)?, eps: self.eps })
    }
}

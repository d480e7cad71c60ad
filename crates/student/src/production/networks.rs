//! The four networks in a form that can be traced: the state after the newest item, by operations whose arguments do not
//! depend on the input's sizes. The tests compare them with [`crate::Network::newest`].
//!
//! Axes: B rows, L `max_len`, D `d_model`, H heads.

use std::collections::BTreeMap;

use anyo_core::{Error, Result};
use tch::{Kind, Tensor};

use super::window::Window;
use crate::config::{Ffn, Norm, SasrecConfig, StudentConfig, WindowConfig};

/// Weights by name, without gradients.
pub(super) struct Weights(pub(super) BTreeMap<String, Tensor>);

impl Weights {
    fn get(&self, name: &str) -> Result<&Tensor> {
        self.0.get(name).ok_or_else(|| Error::invalid(format!("the student has no weight `{name}`")))
    }

    /// x `[.., in]` → `[.., out]`; the bias where there is one.
    fn linear(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let bias = self.0.get(&format!("{name}.bias"));
        let weight = self.get(&format!("{name}.weight"))?;
        // the 1x1 convolutions of the released weights are linear layers
        let weight = if weight.dim() == 3 { weight.squeeze_dim(2) } else { weight.shallow_clone() };
        Ok(x.linear(&weight, bias))
    }

    fn norm(&self, name: &str, x: &Tensor, eps: f64) -> Result<Tensor> {
        let (weight, bias) = (self.get(&format!("{name}.weight"))?, self.get(&format!("{name}.bias"))?);
        Ok(x.layer_norm(weight.size(), Some(weight), Some(bias), eps, false))
    }

    fn embed(&self, name: &str, ids: &Tensor) -> Result<Tensor> {
        Ok(Tensor::embedding(self.get(name)?, ids, -1, false, false))
    }
}

/// What stands at empty places, so that an embedding has a row for it.
///
/// # Errors
/// For a recommender without weights.
pub(super) fn pad_of(config: &StudentConfig, n_items: i64) -> Result<i64> {
    match config {
        StudentConfig::Sasrec(_) => Ok(0),
        StudentConfig::SasrecDllm2rec(_) | StudentConfig::Gru4rec(_) | StudentConfig::Caser(_) => Ok(n_items),
        other => Err(no_weights(other)),
    }
}

/// The error for a recommender without weights.
pub(super) fn no_weights(config: &StudentConfig) -> Error {
    Error::Invalid {
        message: format!("`{}` has no weights to export", config.name()),
        hint: Some("export a run of sasrec, sasrec_dllm2rec, gru4rec or caser".into()),
    }
}

/// State after the newest item of each row, `[B, D]`; zeros for an empty row.
///
/// # Errors
/// For a recommender without weights, and for weights that are not there.
pub(super) fn newest(config: &StudentConfig, w: &Weights, window: &Window) -> Result<Tensor> {
    let states = match config {
        StudentConfig::Sasrec(c) => sasrec(c, w, window),
        StudentConfig::SasrecDllm2rec(c) => sasrec_dllm2rec(c, w, window),
        StudentConfig::Gru4rec(c) => gru4rec(c, w, window),
        StudentConfig::Caser(c) => caser(c, w, window),
        other => Err(no_weights(other)),
    }?;
    Ok(window.zero_empty(&states))
}

fn sasrec(c: &SasrecConfig, w: &Weights, window: &Window) -> Result<Tensor> {
    let (d, max_len) = (c.d_model, c.max_len as i64);
    let items = w.embed("item_emb.weight", &window.ids)?; // [B,L,D]
    let items = if c.scale_embeddings { items * (d as f64).sqrt() } else { items };
    let from_right = (&window.places - (&window.lens - max_len).unsqueeze(1)).clamp_max(max_len - 1);
    let mut x = items + w.embed("pos_emb.weight", &from_right)?;
    for i in 0..c.n_blocks {
        let name = |part: &str| format!("blocks.{i}.{part}");
        // the last block answers for the newest place only
        let last = i + 1 == c.n_blocks;
        let asking = if last { window.newest(&x, d) } else { x.shallow_clone() };
        let asking_normed = w.norm(&name("ln1"), &asking, c.norm_eps)?;
        let seen = if c.norm == Norm::Pre { w.norm(&name("ln1"), &x, c.norm_eps)? } else { x.shallow_clone() };
        let (weight, bias) = (w.get(&name("attn.in_proj.weight"))?, w.get(&name("attn.in_proj.bias"))?);
        let part = |x: &Tensor, at: i64| x.linear(&weight.narrow(0, at * d, d), Some(&bias.narrow(0, at * d, d)));
        let (q, k, v) = (part(&asking_normed, 0), part(&seen, 1), part(&seen, 2));
        let hidden = if last { after_newest(window) } else { future(window) };
        let attended = w.linear(&name("attn.out_proj"), &attention(&q, &k, &v, c.n_heads, d, &hidden))?;
        x = match c.norm {
            Norm::Query => {
                let x = w.norm(&name("ln2"), &(asking_normed + attended), c.norm_eps)?;
                let out = feed_forward(c.ffn, w, &name("ffn"), &x)?;
                x + out
            }
            Norm::Pre => {
                let x = asking + attended;
                let out = feed_forward(c.ffn, w, &name("ffn"), &w.norm(&name("ln2"), &x, c.norm_eps)?)?;
                x + out
            }
        };
    }
    Ok(w.norm("ln_last", &x, c.norm_eps)?.squeeze_dim(1))
}

fn feed_forward(ffn: Ffn, w: &Weights, name: &str, x: &Tensor) -> Result<Tensor> {
    let part = |part: &str, x: &Tensor| w.linear(&format!("{name}.{part}"), x);
    match ffn {
        Ffn::Relu => part("conv2", &part("conv1", x)?.relu()),
        Ffn::Gelu => part("conv2", &part("conv1", x)?.gelu("none")),
        Ffn::Swiglu => part("w_down", &(part("w_gate", x)?.silu() * part("w_up", x)?)),
    }
}

/// Keys that a place must not see because they come later, `[1,1,L,L]`.
fn future(window: &Window) -> Tensor {
    let line = window.places.select(0, 0); // [L]
    line.unsqueeze(0).greater_tensor(&line.unsqueeze(1)).unsqueeze(0).unsqueeze(0)
}

/// Keys behind each row's newest item, `[B,1,1,L]`; an empty row sees its first place, and its state is zeroed later.
fn after_newest(window: &Window) -> Tensor {
    window.places.greater_equal_tensor(&window.lens.clamp_min(1).unsqueeze(1)).unsqueeze(1).unsqueeze(1)
}

/// q `[B,Q,D]`, k and v `[B,L,D]`, hidden keys broadcast to `[B,H,Q,L]` → `[B,Q,D]`.
fn attention(q: &Tensor, k: &Tensor, v: &Tensor, n_heads: i64, d: i64, hidden: &Tensor) -> Tensor {
    let width = d / n_heads;
    // the length of an axis is known here (L or 1), the number of rows is not
    let heads = |x: &Tensor| x.view([-1, x.size()[1], n_heads, width]).transpose(1, 2); // [B,H,.,D/H]
    let (q, k, v) = (heads(q), heads(k), heads(v));
    let scores = (q / (width as f64).sqrt()).matmul(&k.transpose(2, 3)).masked_fill(hidden, f64::NEG_INFINITY);
    let out = scores.softmax(-1, Kind::Float).matmul(&v).transpose(1, 2); // [B,Q,H,D/H]
    out.flatten(2, 3)
}

fn sasrec_dllm2rec(c: &WindowConfig, w: &Weights, window: &Window) -> Result<Tensor> {
    const EPS: f64 = 1e-5;
    let x = w.embed("item_embeddings.weight", &window.ids)? + w.get("positional_embeddings.weight")?; // [B,L,D]
    let asking = w.norm("ln_1", &window.newest(&x, c.d_model), EPS)?; // [B,1,D]
    let (q, k, v) =
        (w.linear("mh_attn.linear_q", &asking)?, w.linear("mh_attn.linear_k", &x)?, w.linear("mh_attn.linear_v", &x)?);
    let attended = attention(&q, &k, &v, 1, c.d_model, &after_newest(window));
    let z = w.norm("ln_2", &(attended + asking), EPS)?;
    let inner = w.linear("feed_forward.w_2", &w.linear("feed_forward.w_1", &z)?.relu())?;
    let out = w.norm("feed_forward.layer_norm", &(z + inner), EPS)?;
    Ok(w.norm("ln_3", &out, EPS)?.squeeze_dim(1))
}

fn gru4rec(c: &WindowConfig, w: &Weights, window: &Window) -> Result<Tensor> {
    let x = w.embed("item_embeddings.weight", &window.ids)?; // [B,L,D]
    let start = x.select(1, 0).zeros_like().unsqueeze(0); // [1,B,D]
    let gru = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"];
    let gru = gru.iter().map(|part| w.get(&format!("gru.{part}"))).collect::<Result<Vec<_>>>()?;
    let (states, _) = x.gru(&start, &gru, true, 1, 0.0, false, false, true); // [B,L,D]
    Ok(window.newest(&states, c.d_model).squeeze_dim(1))
}

fn caser(c: &WindowConfig, w: &Weights, window: &Window) -> Result<Tensor> {
    let items = w.embed("item_embeddings.weight", &window.ids)?; // [B,L,D]
    let real = window.empty.logical_not().to_kind(Kind::Float).unsqueeze(-1);
    let image = (items * real).unsqueeze(1); // [B,1,L,D]; pads are zero
    let conv = |name: &str| -> Result<Tensor> {
        let (weight, bias) = (w.get(&format!("{name}.weight"))?, w.get(&format!("{name}.bias"))?);
        Ok(image.conv2d(weight, Some(bias), [1, 1], [0, 0], [1, 1], 1).relu())
    };
    let mut parts = Vec::new();
    for i in 0.. {
        let name = format!("horizontal_cnn.{i}");
        if !w.0.contains_key(&format!("{name}.weight")) {
            break;
        }
        parts.push(conv(&name)?.squeeze_dim(3).amax([2i64], false)); // [B,16]
    }
    parts.push(conv("vertical_cnn")?.view([-1, c.d_model]));
    Ok(Tensor::cat(&parts, 1))
}

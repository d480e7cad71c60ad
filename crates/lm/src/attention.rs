//! Which tokens see which, and the attention itself.

use anyo_core::Result;
use tch::{Kind, Tensor, no_grad};

/// Who sees whom in the layers that share a window.
#[derive(Debug)]
pub(crate) struct Visible {
    mask: Mask,
    /// Only the last so many keys are seen by anyone, so only they are read.
    last: Option<i64>,
}

#[derive(Debug)]
enum Mask {
    /// Every query sees every key.
    All,
    /// Query i sees the keys up to i.
    Causal,
    /// 0 for a visible key and −∞ for a hidden one, `[B or 1,1,S,K]`.
    Added(Tensor),
}

/// What decides on visibility; all tensors lie on the model's device.
#[derive(Debug)]
pub(crate) struct Layout<'a> {
    /// Keys of earlier passes.
    pub(crate) past: i64,
    /// Queries.
    pub(crate) s: i64,
    /// `[B, past + S]`, not 0 for a token.
    pub(crate) tokens: Option<&'a Tensor>,
    /// `[B,S]`.
    pub(crate) documents: Option<&'a Tensor>,
}

impl Visible {
    /// Visibility under `window` (`None`: none); masks come out in `kind`.
    ///
    /// A pad, which sees no token, sees itself: its state is finite and nobody reads it.
    pub(crate) fn new(layout: &Layout<'_>, window: Option<usize>, kind: Kind, like: &Tensor) -> Result<Self> {
        let Layout { past, s, tokens, documents } = *layout;
        let total = past + s;
        let window = window.map(|w| w as i64).filter(|&w| w < total);
        if s == 1 && documents.is_none() {
            let seen = window.unwrap_or(total);
            let mask = match tokens {
                None => Mask::All,
                Some(tokens) => no_grad(|| -> Result<Mask> {
                    let hidden = tokens.f_narrow(1, total - seen, seen)?.f_eq(0)?;
                    // The query sees itself even where it is a pad, so that no row is empty.
                    let _ = hidden.f_narrow(1, seen - 1, 1)?.f_fill_(0)?;
                    Ok(Mask::Added(added(&hidden.f_unsqueeze(1)?.f_unsqueeze(1)?, kind)?))
                })?,
            };
            return Ok(Self { mask, last: window });
        }
        if tokens.is_none() && documents.is_none() && window.is_none() && past == 0 {
            return Ok(Self { mask: Mask::Causal, last: None });
        }
        no_grad(|| {
            let options = (Kind::Int64, like.device());
            let queries = Tensor::f_arange_start(past, total, options)?.f_unsqueeze(1)?;
            let keys = Tensor::f_arange(total, options)?.f_unsqueeze(0)?;
            let ahead = keys.f_sub(&queries)?;
            let mut hidden = ahead.f_gt(0)?;
            if let Some(window) = window {
                hidden = hidden.f_logical_or(&ahead.f_le(-window)?)?;
            }
            let mut hidden = hidden.f_unsqueeze(0)?.f_unsqueeze(0)?;
            if let Some(tokens) = tokens {
                let pads = tokens.f_eq(0)?.f_unsqueeze(1)?.f_unsqueeze(1)?;
                hidden = hidden.f_logical_or(&pads.f_logical_and(&ahead.f_ne(0)?)?)?;
            }
            if let Some(documents) = documents {
                let (rows, columns) = (documents.f_unsqueeze(-1)?, documents.f_unsqueeze(1)?);
                hidden = hidden.f_logical_or(&rows.f_ne_tensor(&columns)?.f_unsqueeze(1)?)?;
            }
            Ok(Self { mask: Mask::Added(added(&hidden, kind)?), last: None })
        })
    }
}

impl Visible {
    /// The keys up to each query's own place: `positions` `[B,1,W,1]` of queries to `s` keys.
    pub(crate) fn up_to(positions: &Tensor, s: i64, kind: Kind) -> Result<Self> {
        let keys = Tensor::f_arange(s, (Kind::Int64, positions.device()))?;
        let hidden = keys.f_gt_tensor(positions)?; // [B,1,W,S]
        Ok(Self { mask: Mask::Added(added(&hidden, kind)?), last: None })
    }

    /// What a single query adds to its scores, and how many of the last keys it sees; `None` where queries differ.
    pub(crate) fn added_only(&self) -> Option<(Option<&Tensor>, Option<i64>)> {
        match &self.mask {
            Mask::All => Some((None, self.last)),
            Mask::Added(mask) => Some((Some(mask), self.last)),
            Mask::Causal => None,
        }
    }
}

fn added(hidden: &Tensor, kind: Kind) -> Result<Tensor> {
    let zeros = Tensor::f_zeros(hidden.size(), (kind, hidden.device()))?;
    Ok(zeros.f_masked_fill(hidden, f64::NEG_INFINITY)?)
}

/// Attention of queries `[B,H,S,Dh]` to keys and values `[B,Hkv,K,Dh]`; gives `[B,S,H·Dh]`.
pub(crate) fn attend(q: &Tensor, k: &Tensor, v: &Tensor, visible: &Visible) -> Result<Tensor> {
    let (b, h, s, width) = q.size4()?;
    let (n_kv, n_keys) = (k.size()[1], k.size()[2]);
    let group = h / n_kv;
    let recent = |x: &Tensor| match visible.last {
        Some(last) if last < n_keys => x.f_narrow(2, n_keys - last, last),
        _ => Ok(x.shallow_clone()),
    };
    let (k, v) = (recent(k)?, recent(v)?);
    let (mask, causal) = match &visible.mask {
        Mask::All => (None, false),
        Mask::Causal => (None, s > 1),
        Mask::Added(mask) => (Some(mask.f_to_kind(q.kind())?), false),
    };
    let sdpa = |q: &Tensor, k: &Tensor, v: &Tensor, shared: bool| {
        Tensor::f_scaled_dot_product_attention(q, k, v, mask.as_ref(), 0.0, causal, None, shared)
    };
    let out = if group == 1 {
        sdpa(q, &k, &v, false)?
    } else if s == 1 {
        // One query: the heads of a group take the place of positions, and no key is copied.
        sdpa(&q.f_reshape([b, n_kv, group, width])?, &k, &v, false)?.f_reshape([b, h, s, width])?
    } else if q.device().is_cuda() && mask.is_none() {
        sdpa(q, &k, &v, true)?
    } else {
        // On the CPU the fast kernel wants as many key heads as query heads.
        let repeat = |x: &Tensor| -> Result<Tensor> {
            let n_keys = x.size()[2];
            let wide = x.f_unsqueeze(2)?.f_expand([b, n_kv, group, n_keys, width], false)?;
            Ok(wide.f_reshape([b, h, n_keys, width])?)
        };
        sdpa(q, &repeat(&k)?, &repeat(&v)?, false)?
    };
    Ok(out.f_transpose(1, 2)?.f_reshape([b, s, h * width])?)
}

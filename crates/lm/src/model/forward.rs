//! The forward pass: checks, positions, masks, layers.

use anyo_core::{Error, Result, torch::dims};
use tch::{Device, Kind, Tensor, no_grad};

use super::{CausalLm, layer::Shared};
use crate::{
    attention::{Layout, Visible},
    cache::KvCache,
    causal::{Causal, LmInput},
    dense,
    gated::check_gate,
    pass::Pass,
};

impl CausalLm {
    /// Vectors of token ids `[B,S]`, `[B,S,D]`.
    ///
    /// Ids on the CPU are always checked. On a GPU the check waits for the device, so single new tokens, which the model
    /// itself chose, are not checked there.
    ///
    /// # Errors
    /// When an id lies outside the vocabulary.
    pub fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        let single = ids.size().last() == Some(&1);
        if ids.numel() > 0 && (ids.device() == Device::Cpu || !single) {
            let (low, high) = (ids.f_min()?.f_int64_value(&[])?, ids.f_max()?.f_int64_value(&[])?);
            let bad = if low < 0 { low } else { high };
            if low < 0 || high >= self.config.vocab_size as i64 {
                return Err(Error::Invalid {
                    message: format!("token id {bad} is outside the vocabulary of {}", self.config.vocab_size),
                    hint: Some(
                        "the tokenizer must belong to the model; after adding tokens, resize the vocabulary".into(),
                    ),
                });
            }
        }
        Ok(Tensor::f_embedding(&self.embedding, &ids.f_to_device(self.device)?, -1, false, false)?)
    }

    /// What layers rely on and cannot report themselves.
    pub(super) fn check_pass(&self, input: &LmInput, pass: &Pass<'_>) -> Result<()> {
        check_gate(self.linears(), pass, input.ids.size().first().copied().unwrap_or_default())
    }

    /// As [`Causal::logits`], with adapters on the output layer as `pass` says.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn logits_in(&self, hidden: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let got = hidden.size();
        if got.last() != Some(&(self.config.hidden_size as i64)) {
            let message = format!("states must end in the model's width {}, got {got:?}", self.config.hidden_size);
            return Err(Error::invalid(message));
        }
        match &self.head {
            Some(head) => Ok(head.forward(hidden, pass)),
            None => {
                if dense::single_place(&got)
                    && let Some([scores]) = dense::few(hidden, [Some(&self.embedding)], [None], None)
                {
                    return Ok(scores);
                }
                let mut shape = got;
                let flat = hidden.f_reshape([-1, self.config.hidden_size as i64])?;
                let scores = dense::linear(&flat, &self.embedding, None);
                if let Some(last) = shape.last_mut() {
                    *last = self.config.vocab_size as i64;
                }
                Ok(scores.f_view(shape.as_slice())?)
            }
        }
    }

    /// Checks the input and gives B and S.
    fn check(&self, input: &LmInput, past: usize, rows: Option<usize>) -> Result<(i64, i64)> {
        if input.ids.kind() != Kind::Int64 {
            return Err(Error::invalid(format!("token ids must be i64, got {:?}", input.ids.kind())));
        }
        let [b, s] = dims("ids", &input.ids, ["B", "S"])?;
        if b == 0 || s == 0 {
            return Err(Error::invalid(format!("at least one token is needed, got ids of shape [{b}, {s}]")));
        }
        if let Some(rows) = rows.filter(|&rows| rows as i64 != b) {
            return Err(Error::invalid(format!("{b} rows of tokens for a cache of {rows} rows")));
        }
        let total = past as i64 + s;
        if total > self.config.max_positions as i64 {
            return Err(Error::Invalid {
                message: format!("{total} tokens are more than the model's context of {}", self.config.max_positions),
                hint: Some("shorten the prompt or generate fewer tokens".into()),
            });
        }
        let shape = |name: &str, tensor: Option<&Tensor>, wanted: &[i64]| match tensor {
            Some(t) if t.size() != wanted => {
                Err(Error::invalid(format!("`{name}` has shape {:?}, wanted {wanted:?}", t.size())))
            }
            _ => Ok(()),
        };
        shape("mask", input.mask.as_ref(), &[b, total])?;
        shape("documents", input.documents.as_ref(), &[b, s])?;
        shape("embeddings", input.embeddings.as_ref(), &[b, s, self.config.hidden_size as i64])?;
        if input.documents.is_some() && input.mask.is_some() {
            return Err(Error::invalid("packed documents do not go with a mask"));
        }
        Ok((b, s))
    }

    /// The embedded input and what all layers share.
    pub(super) fn prepare(&self, input: &LmInput, past: usize) -> Result<(Tensor, Shared)> {
        let (_, s) = self.check(input, past, None)?;
        let x = match &input.embeddings {
            Some(given) => given.f_to_device(self.device)?.f_to_kind(self.kind)?,
            None => self.embed(&input.ids)?,
        };
        let shared = self.shared(input, past as i64, s)?;
        Ok((x, shared))
    }

    fn shared(&self, input: &LmInput, past: i64, s: i64) -> Result<Shared> {
        let total = (past + s) as usize;
        let on_device = |t: &Option<Tensor>| t.as_ref().map(|t| t.f_to_device(self.device)).transpose();
        let (tokens, documents) = (on_device(&input.mask)?, on_device(&input.documents)?);
        let rotation = match (&tokens, &documents) {
            (None, None) => self.rope.range(past as usize, s as usize, self.rope.is_long(total))?,
            (Some(tokens), _) => {
                // The width decides between short and long frequencies, as in transformers, not the row's own length.
                let positions = no_grad(|| {
                    let counted = tokens.f_ne(0)?.f_cumsum(1, Kind::Int64)?.f_sub_scalar(1)?.f_clamp_min(0)?;
                    counted.f_narrow(1, past, s)
                })?;
                self.rope.at(&positions, total, self.rope.is_long(total))?
            }
            (None, Some(documents)) => {
                let positions = no_grad(|| document_positions(documents))?;
                // The longest document decides; asking the device for it waits, so only where it matters.
                let long = self.rope.has_two() && self.rope.is_long(total) && {
                    let longest = no_grad(|| positions.f_max())?.f_int64_value(&[])? + 1;
                    self.rope.is_long(longest as usize)
                };
                self.rope.at(&positions, total, long)?
            }
        };
        let layout = Layout { past, s, tokens: tokens.as_ref(), documents: documents.as_ref() };
        let any = |windowed: bool| self.layers.iter().any(|layer| layer.windowed == windowed);
        let visible = |window: Option<usize>| Visible::new(&layout, window, self.kind, &self.embedding);
        Ok(Shared {
            rotation,
            full: if any(false) { Some(visible(None)?) } else { None },
            windowed: if any(true) { Some(visible(self.config.sliding_window)?) } else { None },
        })
    }

    /// All layers and the final norm.
    fn run(&self, mut x: Tensor, shared: &Shared, mut cache: Option<&mut KvCache>, pass: &Pass<'_>) -> Result<Tensor> {
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, shared, cache.as_deref_mut().map(|cache| (cache, i)), pass)?;
        }
        self.norm.forward(&x)
    }

    /// The pass in which a LongRoPE model's context crosses the original length: all inputs so far, `x` `[B,P,D]`, are
    /// computed again. Gives the states of the last `s`.
    fn start_over(&self, x: Tensor, s: i64, input: &LmInput, cache: &mut KvCache, pass: &Pass<'_>) -> Result<Tensor> {
        let total = x.size()[1];
        let mask = input.mask.as_ref().map(Tensor::shallow_clone);
        let shared = self.shared(&LmInput { mask, ..LmInput::default() }, 0, total)?;
        let before = cache.len();
        cache.truncate(0);
        let out = self.run(x, &shared, Some(cache), pass)?;
        cache.advance(before + s as usize);
        Ok(out.f_narrow(1, total - s, s)?)
    }
}

/// Positions `[B,S]` that start again at 0 where the document number changes.
fn document_positions(documents: &Tensor) -> Result<Tensor> {
    let (_, s) = documents.size2()?;
    let places = Tensor::f_arange(s, (Kind::Int64, documents.device()))?.f_expand_as(documents)?;
    if s == 1 {
        return Ok(places.f_contiguous()?);
    }
    let changed = documents.f_narrow(1, 1, s - 1)?.f_ne_tensor(&documents.f_narrow(1, 0, s - 1)?)?;
    let starts = places.f_narrow(1, 1, s - 1)?.f_mul(&changed.f_to_kind(Kind::Int64)?)?;
    let first = places.f_narrow(1, 0, 1)?;
    let (starts, _) = Tensor::f_cat(&[first, starts], 1)?.f_cummax(1)?;
    Ok(places.f_sub(&starts)?)
}

impl Causal for CausalLm {
    type Cache = KvCache;

    fn new_cache(&self, rows: usize) -> KvCache {
        KvCache::new(rows, self.layers.len(), self.config.max_positions)
    }

    fn select_rows(&self, cache: &KvCache, rows: &[i64]) -> Result<KvCache> {
        cache.select(rows)
    }

    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        CausalLm::embed(self, ids)
    }

    /// States after the final norm. [`Pass::checkpointing`] cannot be followed here, because libtorch's autograd takes no
    /// function of ours: a trainer calls [`CausalLm::backward_checkpointed`].
    fn hidden(&self, input: &LmInput, cache: Option<&mut KvCache>, pass: &Pass<'_>) -> Result<Tensor> {
        self.check_pass(input, pass)?;
        let Some(cache) = cache else {
            let (x, shared) = self.prepare(input, 0)?;
            return self.run(x, &shared, None, pass);
        };
        let past = cache.len();
        let (_, s) = self.check(input, past, Some(cache.rows()))?;
        if input.documents.is_some() {
            return Err(Error::invalid("packed documents do not go with a cache"));
        }
        cache.reserve(s as usize, [self.config.n_kv_heads, self.config.head_dim], (self.kind, self.device))?;
        let (x, shared) = self.prepare(input, past)?;
        if self.rope.has_two() {
            let long = self.rope.is_long(past + s as usize);
            let all = cache.append_inputs(&x)?;
            let crossed = past > 0 && long != cache.long;
            cache.long = long;
            if crossed {
                return self.start_over(all, s, input, cache, pass);
            }
        }
        let out = self.run(x, &shared, Some(cache), pass)?;
        cache.advance(s as usize);
        Ok(out)
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.logits_in(hidden, &Pass::default())
    }

    fn max_positions(&self) -> usize {
        self.config.max_positions
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn device(&self) -> Device {
        self.device
    }
}

//! How likely a model finds given continuations of a prompt.

use anyo_core::{Error, Result};
use tch::{Kind, Tensor};

use super::{check_ids, tensor_of};
use crate::{Causal, LmInput, Pass, Tokenizer};

/// Logits that are held at once, in numbers: 64 MiB in f32.
const LOGITS: usize = 16 << 20;

/// Log-likelihood of one continuation, in nats.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// ln p of each token given the prompt and the tokens before it.
    pub log_probs: Vec<f32>,
}

impl Score {
    /// ln p of the whole continuation.
    pub fn sum(&self) -> f64 {
        self.log_probs.iter().map(|&p| f64::from(p)).sum()
    }

    /// Mean ln p per token, which compares continuations of different lengths.
    pub fn mean(&self) -> f64 {
        self.sum() / self.log_probs.len() as f64
    }
}

/// Scores continuations of one prompt. The prompt is computed once, and its cache serves all continuations, `rows` of
/// them at a time, padded on the right; those of similar length share a pass.
///
/// Token ids decide where the prompt ends. A tokenizer may join the end of a prompt and the start of a continuation into
/// one token; then the ids of both do not spell the text as the model would have seen it in training.
/// `pass.gate` `[1,E]` holds for all rows.
///
/// # Errors
/// When the prompt or a continuation is empty, holds ids outside the vocabulary, or both together exceed the context;
/// when `rows` is 0; when a score is not finite.
pub fn score<M: Causal>(
    model: &M,
    prompt: &[u32],
    continuations: &[Vec<u32>],
    rows: usize,
    pass: &Pass<'_>,
) -> Result<Vec<Score>> {
    if rows == 0 {
        return Err(Error::invalid("cannot score 0 continuations at a time; give at least 1"));
    }
    check_ids(model, "the prompt", prompt)?;
    for (i, continuation) in continuations.iter().enumerate() {
        check_ids(model, &format!("continuation {i}"), continuation)?;
        let (len, context) = (prompt.len() + continuation.len(), model.max_positions());
        if len > context {
            return Err(Error::Invalid {
                message: format!(
                    "the prompt of {} tokens and continuation {i} of {} need {len} positions, but the model's context has \
                     {context}",
                    prompt.len(),
                    continuation.len()
                ),
                hint: Some("shorten the prompt".into()),
            });
        }
    }
    if continuations.is_empty() {
        return Ok(Vec::new());
    }
    tch::no_grad(|| Scorer::new(model, prompt, pass)?.run(continuations, rows))
}

/// [`score`] for texts: prompt and continuations are tokenised apart, the prompt with special tokens in front of it, a
/// continuation without. A leading blank belongs to the continuation. SentencePiece-style tokenizers put a blank in
/// front of every text, so there a continuation cannot start inside a word.
///
/// # Errors
/// As [`score`], and when a text cannot be tokenised.
pub fn score_text<M: Causal>(
    model: &M,
    tokenizer: &Tokenizer,
    prompt: &str,
    continuations: &[&str],
    rows: usize,
    pass: &Pass<'_>,
) -> Result<Vec<Score>> {
    let prompt = tokenizer.encode(prompt, true)?;
    let ids = continuations.iter().map(|text| tokenizer.encode(text, false)).collect::<Result<Vec<_>>>()?;
    score(model, &prompt, &ids, rows, pass)
}

struct Scorer<'a, M: Causal> {
    model: &'a M,
    pass: &'a Pass<'a>,
    cache: M::Cache,
    /// State after the prompt, `[1,D]`: it scores every continuation's first token.
    last: Tensor,
}

impl<'a, M: Causal> Scorer<'a, M> {
    fn new(model: &'a M, prompt: &[u32], pass: &'a Pass<'a>) -> Result<Self> {
        let ids: Vec<i64> = prompt.iter().map(|&id| i64::from(id)).collect();
        let ids = tensor_of(&ids, &[1, ids.len() as i64], model.device())?;
        let mut cache = model.new_cache(1);
        let input = LmInput { ids, ..LmInput::default() };
        let hidden = model.hidden(&input, Some(&mut cache), &still(pass, pass.gate))?; // [1,S,D]
        let last = hidden.f_select(1, prompt.len() as i64 - 1)?;
        Ok(Self { model, pass, cache, last })
    }

    fn run(&self, continuations: &[Vec<u32>], rows: usize) -> Result<Vec<Score>> {
        let mut order: Vec<usize> = (0..continuations.len()).collect();
        order.sort_by_key(|&i| continuations[i].len());
        let mut scores = vec![Score { log_probs: Vec::new() }; continuations.len()];
        for chunk in order.chunks(rows) {
            let group: Vec<&[u32]> = chunk.iter().map(|&i| continuations[i].as_slice()).collect();
            for (&i, log_probs) in chunk.iter().zip(self.group(&group)?) {
                if let Some(at) = log_probs.iter().position(|p| !p.is_finite()) {
                    return Err(Error::Run {
                        message: format!("token {at} of continuation {i} has a log-probability of {}", log_probs[at]),
                        hint: Some("check the weights for NaN; in half precision try bf16 or f32".into()),
                    });
                }
                scores[i].log_probs = log_probs;
            }
        }
        Ok(scores)
    }

    /// Scores continuations in one pass behind copies of the prompt's cache.
    fn group(&self, group: &[&[u32]]) -> Result<Vec<Vec<f32>>> {
        let firsts: Vec<i64> = group.iter().map(|ids| i64::from(ids[0])).collect();
        let log_z = self.model.logits(&self.last)?.f_to_kind(Kind::Float)?; // [1,V]
        let log_p = log_z.f_log_softmax(-1, Kind::Float)?.f_view([-1])?;
        let at = tensor_of(&firsts, &[firsts.len() as i64], log_p.device())?;
        let mut scores: Vec<Vec<f32>> =
            Vec::<f32>::try_from(log_p.f_index_select(0, &at)?)?.into_iter().map(|p| vec![p]).collect();
        // the last token of a continuation is never read, only scored
        let len = group.iter().map(|ids| ids.len() - 1).max().unwrap_or(0);
        if len > 0 {
            let rest = self.behind_first(group, len)?;
            let mut rest = rest.into_iter();
            for (score, ids) in scores.iter_mut().zip(group) {
                score.extend(rest.by_ref().take(ids.len() - 1));
            }
        }
        Ok(scores)
    }

    /// ln p of every token behind the first, row by row.
    fn behind_first(&self, group: &[&[u32]], len: usize) -> Result<Vec<f32>> {
        let (n_rows, device) = (group.len() as i64, self.model.device());
        let mut ids = Vec::with_capacity(group.len() * len);
        let (mut places, mut targets) = (Vec::new(), Vec::new());
        for (row, continuation) in group.iter().enumerate() {
            let n = continuation.len() - 1;
            ids.extend(continuation[..n].iter().map(|&id| i64::from(id)));
            // a pad behind the text is seen by no token of it
            ids.resize((row + 1) * len, 0);
            places.extend((0..n).map(|at| (row * len + at) as i64));
            targets.extend(continuation[1..].iter().map(|&id| i64::from(id)));
        }
        let mut cache = self.model.select_rows(&self.cache, &vec![0; group.len()])?;
        let gate = self.pass.gate.map(|gate| gate.f_expand([n_rows, -1], false)).transpose()?;
        let input = LmInput { ids: tensor_of(&ids, &[n_rows, len as i64], device)?, ..LmInput::default() };
        let hidden = self.model.hidden(&input, Some(&mut cache), &still(self.pass, gate.as_ref()))?; // [B,S,D]
        let width = hidden.size().last().copied().unwrap_or(0);
        let hidden = hidden.f_reshape([-1, width])?; // [B*S,D]
        let at_once = (LOGITS / self.model.vocab_size().max(1)).max(1);
        let mut scores = Vec::with_capacity(targets.len());
        for (places, targets) in places.chunks(at_once).zip(targets.chunks(at_once)) {
            let n = places.len() as i64;
            let states = hidden.f_index_select(0, &tensor_of(places, &[n], device)?)?; // [N,D]
            let logits = self.model.logits(&states)?.f_to_kind(Kind::Float)?; // [N,V]
            let target = logits.f_gather(1, &tensor_of(targets, &[n, 1], device)?, false)?;
            let log_p = target.f_sub(&logits.f_logsumexp([1i64], true)?)?.f_view([-1])?;
            scores.extend(Vec::<f32>::try_from(log_p)?);
        }
        Ok(scores)
    }
}

/// The caller's pass without dropout and with another gate.
fn still<'b>(pass: &Pass<'_>, gate: Option<&'b Tensor>) -> Pass<'b> {
    Pass { gate, base_only: pass.base_only, ..Pass::default() }
}

//! How likely a model finds given continuations of a prompt.

use anyo_core::{Error, Result};
use tch::{Kind, Tensor};

use super::{
    Prompt, check_gate_rows, check_ids, check_prompt,
    prompt::{mask, pad},
    tensor_of,
};
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

/// Scores continuations of one prompt: [`score_lists`] for a single list.
///
/// `pass.gate` `[1,E]` holds for all rows.
///
/// # Errors
/// As [`score_lists`].
pub fn score<M: Causal>(
    model: &M,
    prompt: &[u32],
    continuations: &[Vec<u32>],
    rows: usize,
    pass: &Pass<'_>,
) -> Result<Vec<Score>> {
    let prompt = Prompt::new(prompt.to_vec());
    let mut scores = score_lists(model, std::slice::from_ref(&prompt), &[continuations], rows, pass)?;
    Ok(scores.pop().unwrap_or_default())
}

/// Scores a list of continuations for each prompt: titles of each user's candidates. Result `[p][i]` belongs to
/// `lists[p][i]`; one list for all prompts is the same slice in every place.
///
/// `rows` prompts of similar length are read together, padded on the left, and their cache serves all their
/// continuations, `rows` of these at a time, padded on the right, whatever prompt they belong to; those of similar length
/// share a pass. So at most `2·rows` rows of cache exist. `pass.gate` `[P,E]` has one row for each prompt and goes with
/// its continuations. A score does not depend on the rows beside it, up to the rounding of products of another size (a
/// LongRoPE model takes its long frequencies when the padded width needs them, as `transformers` does).
///
/// Token ids decide where the prompt ends. A tokenizer may join the end of a prompt and the start of a continuation into
/// one token; then the ids of both do not spell the text as the model would have seen it in training.
///
/// # Errors
/// When there is not one list for each prompt, a prompt or a continuation is empty, holds ids outside the vocabulary, or
/// both together exceed the context; when injected vectors or the gate do not fit; when `rows` is 0; when a score is not
/// finite.
pub fn score_lists<M: Causal>(
    model: &M,
    prompts: &[Prompt],
    lists: &[&[Vec<u32>]],
    rows: usize,
    pass: &Pass<'_>,
) -> Result<Vec<Vec<Score>>> {
    if rows == 0 {
        return Err(Error::invalid("cannot score 0 continuations at a time; give at least 1"));
    }
    if prompts.len() != lists.len() {
        return Err(Error::invalid(format!("{} lists of continuations for {} prompts", lists.len(), prompts.len())));
    }
    check_gate_rows(pass, prompts.len())?;
    let names = Names { several: prompts.len() > 1 };
    for (p, (prompt, list)) in prompts.iter().zip(lists).enumerate() {
        check_prompt(model, &names.prompt(p), prompt)?;
        for (i, continuation) in list.iter().enumerate() {
            check_ids(model, &names.continuation(p, i), continuation)?;
            let (len, context) = (prompt.ids.len() + continuation.len(), model.max_positions());
            if len > context {
                return Err(Error::Invalid {
                    message: format!(
                        "{} of {} tokens and {} of {} need {len} positions, but the model's context has {context}",
                        names.prompt(p),
                        prompt.ids.len(),
                        names.continuation(p, i),
                        continuation.len()
                    ),
                    hint: Some("shorten the prompt".into()),
                });
            }
        }
    }
    let scorer = Scorer { model, prompts, lists, rows, pass, names };
    tch::no_grad(|| scorer.run())
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

/// How messages call the parts of a request.
struct Names {
    several: bool,
}

impl Names {
    fn prompt(&self, p: usize) -> String {
        if self.several { format!("prompt {p}") } else { "the prompt".to_owned() }
    }

    fn continuation(&self, p: usize, i: usize) -> String {
        let of = if self.several { format!(" of prompt {p}") } else { String::new() };
        format!("continuation {i}{of}")
    }
}

struct Scorer<'a, M: Causal> {
    model: &'a M,
    prompts: &'a [Prompt],
    lists: &'a [&'a [Vec<u32>]],
    rows: usize,
    pass: &'a Pass<'a>,
    names: Names,
}

/// Prompts that were read together.
struct Read<C> {
    cache: C,
    gate: Option<Tensor>, // [B,E]
    /// ln p of every token behind each prompt, `[B,V]`: it scores every continuation's first token.
    first: Tensor,
    /// Pads in front of each prompt.
    pads: Vec<usize>,
    /// Columns of the cache.
    columns: usize,
}

/// One continuation of a prompt that was read.
struct Pair<'a> {
    /// Row of the prompt among those read together.
    row: usize,
    /// Number of the prompt, and of the continuation in its list.
    at: (usize, usize),
    ids: &'a [u32],
}

impl<'a, M: Causal> Scorer<'a, M> {
    fn run(&self) -> Result<Vec<Vec<Score>>> {
        let empty = |list: &&[Vec<u32>]| vec![Score { log_probs: Vec::new() }; list.len()];
        let mut scores: Vec<Vec<Score>> = self.lists.iter().map(empty).collect();
        for chunk in self.chunks() {
            let read = self.read(&chunk)?;
            let mut pairs: Vec<Pair<'a>> = Vec::new();
            for (row, &p) in chunk.iter().enumerate() {
                pairs.extend(self.lists[p].iter().enumerate().map(|(i, ids)| Pair { row, at: (p, i), ids }));
            }
            pairs.sort_by_key(|pair| pair.ids.len());
            for group in pairs.chunks(self.rows) {
                for (&Pair { at: (p, i), .. }, log_probs) in group.iter().zip(self.group(&read, group)?) {
                    if let Some(at) = log_probs.iter().position(|p| !p.is_finite()) {
                        return Err(Error::Run {
                            message: format!(
                                "token {at} of {} has a log-probability of {}",
                                self.names.continuation(p, i),
                                log_probs[at]
                            ),
                            hint: Some("check the weights for NaN; in half precision try bf16 or f32".into()),
                        });
                    }
                    scores[p][i].log_probs = log_probs;
                }
            }
        }
        Ok(scores)
    }

    /// Prompts with something to score in groups of similar length, such that the longest prompt of a group and its
    /// longest continuation have room in the context together.
    fn chunks(&self) -> Vec<Vec<usize>> {
        let longest = |p: usize| self.lists[p].iter().map(Vec::len).max().unwrap_or(0);
        let mut order: Vec<usize> = (0..self.prompts.len()).filter(|&p| longest(p) > 0).collect();
        order.sort_by_key(|&p| self.prompts[p].ids.len());
        let (mut chunks, mut behind) = (Vec::<Vec<usize>>::new(), 0);
        for p in order {
            let (len, wanted) = (self.prompts[p].ids.len(), longest(p));
            match chunks.last_mut() {
                Some(chunk) if chunk.len() < self.rows && len + wanted.max(behind) <= self.model.max_positions() => {
                    chunk.push(p);
                    behind = behind.max(wanted);
                }
                _ => {
                    chunks.push(vec![p]);
                    behind = wanted;
                }
            }
        }
        chunks
    }

    fn read(&self, chunk: &[usize]) -> Result<Read<M::Cache>> {
        let device = self.model.device();
        let prompts: Vec<_> = chunk.iter().map(|&p| (p, &self.prompts[p], &[][..])).collect();
        let padded = pad(self.model, &prompts)?;
        let columns = padded.len;
        let pads: Vec<usize> = chunk.iter().map(|&p| columns - self.prompts[p].ids.len()).collect();
        let gate = self.pass.gate.filter(|_| !self.pass.base_only);
        let gate = gate.map(|gate| pick(gate, chunk.iter().copied())).transpose()?;
        let mask = mask(&pads, columns, device)?;
        let input = LmInput { ids: padded.ids, embeddings: padded.embeddings, mask, ..LmInput::default() };
        let mut cache = self.model.new_cache(chunk.len());
        let hidden = self.model.hidden(&input, Some(&mut cache), &still(self.pass, gate.as_ref()))?; // [B,S,D]
        let last = hidden.f_select(1, columns as i64 - 1)?; // [B,D]
        let first = self.model.logits(&last)?.f_to_kind(Kind::Float)?.f_log_softmax(-1, Kind::Float)?; // [B,V]
        Ok(Read { cache, gate, first, pads, columns })
    }

    /// Scores continuations in one pass behind copies of their prompts' caches.
    fn group(&self, read: &Read<M::Cache>, group: &[Pair<'_>]) -> Result<Vec<Vec<f32>>> {
        let vocab = read.first.size()[1];
        let firsts: Vec<i64> = group.iter().map(|pair| pair.row as i64 * vocab + i64::from(pair.ids[0])).collect();
        let at = tensor_of(&firsts, &[firsts.len() as i64], read.first.device())?;
        let firsts = Vec::<f32>::try_from(read.first.f_reshape([-1])?.f_index_select(0, &at)?)?;
        let mut scores: Vec<Vec<f32>> = firsts.into_iter().map(|p| vec![p]).collect();
        // the last token of a continuation is never read, only scored
        let len = group.iter().map(|pair| pair.ids.len() - 1).max().unwrap_or(0);
        if len > 0 {
            let mut rest = self.behind_first(read, group, len)?.into_iter();
            for (score, pair) in scores.iter_mut().zip(group) {
                score.extend(rest.by_ref().take(pair.ids.len() - 1));
            }
        }
        Ok(scores)
    }

    /// ln p of every token behind the first, row by row.
    fn behind_first(&self, read: &Read<M::Cache>, group: &[Pair<'_>], len: usize) -> Result<Vec<f32>> {
        let (n_rows, device) = (group.len() as i64, self.model.device());
        let mut ids = Vec::with_capacity(group.len() * len);
        let (mut places, mut targets) = (Vec::new(), Vec::new());
        for (row, pair) in group.iter().enumerate() {
            let n = pair.ids.len() - 1;
            ids.extend(pair.ids[..n].iter().map(|&id| i64::from(id)));
            // a pad behind the text is seen by no token of it
            ids.resize((row + 1) * len, 0);
            places.extend((0..n).map(|at| (row * len + at) as i64));
            targets.extend(pair.ids[1..].iter().map(|&id| i64::from(id)));
        }
        let rows = || group.iter().map(|pair| pair.row);
        let mut cache = self.model.select_rows(&read.cache, &rows().map(|row| row as i64).collect::<Vec<_>>())?;
        let gate = read.gate.as_ref().map(|gate| pick(gate, rows())).transpose()?;
        let pads: Vec<usize> = rows().map(|row| read.pads[row]).collect();
        let input = LmInput {
            ids: tensor_of(&ids, &[n_rows, len as i64], device)?,
            mask: mask(&pads, read.columns + len, device)?,
            ..LmInput::default()
        };
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

/// Rows of a gate `[B,E]`.
fn pick(gate: &Tensor, rows: impl Iterator<Item = usize>) -> Result<Tensor> {
    let rows: Vec<i64> = rows.map(|row| row as i64).collect();
    let at = tensor_of(&rows, &[rows.len() as i64], gate.device())?;
    Ok(gate.f_index_select(0, &at)?)
}

/// The caller's pass without dropout and with another gate.
fn still<'b>(pass: &Pass<'_>, gate: Option<&'b Tensor>) -> Pass<'b> {
    Pass { gate, base_only: pass.base_only, ..Pass::default() }
}

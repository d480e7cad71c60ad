//! The loop of a generation: one batch, padded on the left, that shrinks as rows end.

use std::collections::{BTreeSet, HashSet};

use anyo_core::{Error, Result};
use tch::{Kind, Tensor};

use super::{
    Finish, Generated, OnText, Prompt, SamplingConfig,
    prompt::{mask, pad},
    sampler,
    sampler::Sampler,
    stop::StopMatcher,
    stream::TextStream,
    tensor_of,
};
use crate::{Causal, LmInput, Pass, Tokenizer};

/// One prompt and what came after it.
struct Row<'a> {
    prompt: &'a Prompt,
    seed: u64,
    ids: Vec<u32>,
    text: String,
    stream: Option<TextStream<'a>>,
    stops: StopMatcher,
    /// Prompt and new ids, each once; empty where no penalty needs them.
    seen: Vec<u32>,
    seen_set: HashSet<u32>,
    finish: Option<Finish>,
    n_new: usize,
}

/// A batch of prompts under way.
pub(super) struct Batch<'a, M: Causal> {
    model: &'a M,
    config: &'a SamplingConfig,
    base_only: bool,
    gate: Option<Tensor>, // [alive, E]
    sampler: Sampler,
    /// Banned ids of the vocabulary, for the argmax; `None` without any.
    banned: Option<Tensor>,
    rows: Vec<Row<'a>>,
    /// Rows still computed, in the order of the cache.
    alive: Vec<usize>,
    cache: M::Cache,
    /// Columns of the cache.
    past: usize,
    buffer: Vec<f32>,
}

impl<'a, M: Causal> Batch<'a, M> {
    pub(super) fn start(
        model: &'a M,
        tokenizer: &'a Tokenizer,
        prompts: &'a [Prompt],
        config: &'a SamplingConfig,
        pass: &Pass<'_>,
    ) -> Result<Self> {
        let sampler = Sampler::new(config);
        let row = |prompt: &'a Prompt| -> Result<Row<'a>> {
            let mut row = Row {
                prompt,
                seed: prompt.seed.unwrap_or(config.seed),
                ids: Vec::new(),
                text: String::new(),
                stream: Some(TextStream::new(tokenizer, true).behind(if prompt.continues {
                    &prompt.ids
                } else {
                    &[]
                })?),
                stops: StopMatcher::new(&config.stop_strings),
                seen: Vec::new(),
                seen_set: HashSet::new(),
                finish: None,
                n_new: 0,
            };
            if sampler.penalises() {
                prompt.ids.iter().for_each(|&id| row.note(id));
            }
            Ok(row)
        };
        Ok(Self {
            model,
            config,
            base_only: pass.base_only,
            gate: pass.gate.filter(|_| !pass.base_only).map(Tensor::shallow_clone),
            rows: prompts.iter().map(row).collect::<Result<_>>()?,
            alive: (0..prompts.len()).collect(),
            cache: model.new_cache(prompts.len()),
            past: 0,
            sampler,
            banned: banned(model, config)?,
            buffer: Vec::new(),
        })
    }

    pub(super) fn run(mut self, on_text: &mut OnText<'_>) -> Result<Vec<Generated>> {
        let mut next = self.read_all()?;
        loop {
            for (at, &row) in self.alive.iter().enumerate() {
                self.rows[row].take(row, next[at], self.config, self.model.max_positions(), on_text)?;
            }
            let keep: Vec<usize> =
                (0..self.alive.len()).filter(|&at| self.rows[self.alive[at]].finish.is_none()).collect();
            if keep.is_empty() {
                break;
            }
            if keep.len() < self.alive.len() {
                next = keep.iter().map(|&at| next[at]).collect();
                self.drop_rows(&keep)?;
            }
            // pads of rows that are gone may fill the context although the rows left do not
            next = if self.past < self.model.max_positions() { self.step(&next)? } else { self.read_all()? };
        }
        Ok(self.rows.into_iter().map(Row::result).collect())
    }

    /// Reads everything anew, prompts and what followed, and chooses each row's next token.
    fn read_all(&mut self) -> Result<Vec<u32>> {
        let rows = self.alive.iter().map(|&row| (row, self.rows[row].prompt, self.rows[row].ids.as_slice()));
        let padded = pad(self.model, &rows.collect::<Vec<_>>())?;
        self.cache = self.model.new_cache(self.alive.len());
        self.past = 0;
        let input = LmInput { ids: padded.ids, embeddings: padded.embeddings, ..LmInput::default() };
        self.forward(input, padded.len)
    }

    /// Reads one new token per row and chooses the next.
    fn step(&mut self, ids: &[u32]) -> Result<Vec<u32>> {
        let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
        let ids = tensor_of(&ids, &[ids.len() as i64, 1], self.model.device())?;
        self.forward(LmInput { ids, ..LmInput::default() }, 1)
    }

    /// Reads `len` columns, for which the mask is made here.
    fn forward(&mut self, mut input: LmInput, len: usize) -> Result<Vec<u32>> {
        let columns = self.past + len;
        // every token but the last chosen one was read, and that one is read in this pass
        let pads = |&row: &usize| columns - self.rows[row].prompt.ids.len() - self.rows[row].n_new;
        input.mask = mask(&self.alive.iter().map(pads).collect::<Vec<_>>(), columns, self.model.device())?;
        let pass = Pass { gate: self.gate.as_ref(), base_only: self.base_only, ..Pass::default() };
        let hidden = self.model.hidden(&input, Some(&mut self.cache), &pass)?; // [B,S,D]
        self.past = columns;
        let last = hidden.f_select(1, len as i64 - 1)?; // [B,D]
        self.choose(&self.model.logits(&last)?)
    }

    /// The next token of each row from logits `[B,V]`.
    fn choose(&mut self, logits: &Tensor) -> Result<Vec<u32>> {
        if self.sampler.is_argmax() {
            let logits = match &self.banned {
                Some(ids) => logits.f_index_fill(-1, ids, f64::NEG_INFINITY)?,
                None => logits.shallow_clone(),
            };
            let (best, ids) = logits.f_max_dim(-1, false)?;
            // a NaN or infinity is the maximum of its row
            if best.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
                return Err(sampler::bad_logits());
            }
            let ids = Vec::<i64>::try_from(&ids)?;
            return Ok(ids.into_iter().map(|id| id as u32).collect());
        }
        let vocab = self.model.vocab_size();
        let n = self.alive.len() * vocab;
        if logits.numel() != n {
            return Err(Error::invalid(format!(
                "logits have shape {:?}, wanted [{}, {vocab}]",
                logits.size(),
                self.alive.len()
            )));
        }
        self.buffer.resize(n, 0.0);
        logits.f_to_kind(Kind::Float)?.f_contiguous()?.f_copy_data(&mut self.buffer, n)?;
        let mut next = Vec::with_capacity(self.alive.len());
        for (logits, &row) in self.buffer.chunks_exact_mut(vocab).zip(&self.alive) {
            let row = &self.rows[row];
            let draw = if self.config.greedy { 0.0 } else { sampler::draw(row.seed, row.n_new as u64) };
            next.push(self.sampler.pick(logits, &row.seen, draw)?);
        }
        Ok(next)
    }

    /// Keeps only these places of the batch.
    fn drop_rows(&mut self, keep: &[usize]) -> Result<()> {
        let at: Vec<i64> = keep.iter().map(|&at| at as i64).collect();
        self.cache = self.model.select_rows(&self.cache, &at)?;
        if let Some(gate) = &self.gate {
            let at = tensor_of(&at, &[at.len() as i64], gate.device())?;
            self.gate = Some(gate.f_index_select(0, &at)?);
        }
        self.alive = keep.iter().map(|&at| self.alive[at]).collect();
        Ok(())
    }
}

/// Banned ids that the vocabulary has.
fn banned<M: Causal>(model: &M, config: &SamplingConfig) -> Result<Option<Tensor>> {
    let vocab = model.vocab_size();
    let ids: BTreeSet<i64> =
        config.banned_ids.iter().filter(|&&id| (id as usize) < vocab).map(|&id| i64::from(id)).collect();
    match ids.len() {
        0 => Ok(None),
        n if n == vocab => Err(Error::invalid(format!("cannot generate: all {vocab} token ids are banned"))),
        n => tensor_of(&Vec::from_iter(ids), &[n as i64], model.device()).map(Some),
    }
}

impl Row<'_> {
    fn note(&mut self, id: u32) {
        if self.seen_set.insert(id) {
            self.seen.push(id);
        }
    }

    /// Takes the next token: adds its text, and ends the row where it must.
    fn take(
        &mut self,
        row: usize,
        id: u32,
        config: &SamplingConfig,
        context: usize,
        on_text: &mut OnText<'_>,
    ) -> Result<()> {
        self.n_new += 1;
        if config.stop_ids.contains(&id) {
            return self.end(row, Finish::StopId(id), on_text);
        }
        self.ids.push(id);
        if config.repetition_penalty != 1.0 {
            self.note(id);
        }
        let piece = match &mut self.stream {
            Some(stream) => stream.push(id)?,
            None => String::new(),
        };
        self.release(row, &piece, on_text);
        if self.finish.is_some() {
            return Ok(());
        }
        if self.n_new == config.max_new_tokens {
            return self.end(row, Finish::Length, on_text);
        }
        // the token just chosen would need a position of its own
        if self.prompt.ids.len() + self.n_new > context {
            return self.end(row, Finish::Context, on_text);
        }
        Ok(())
    }

    fn release(&mut self, row: usize, piece: &str, on_text: &mut OnText<'_>) {
        let released = self.stops.push(piece);
        self.emit(row, &released.text, on_text);
        if let Some(stop) = released.stop {
            self.finish = Some(Finish::StopString(stop));
        }
    }

    fn emit(&mut self, row: usize, text: &str, on_text: &mut OnText<'_>) {
        if text.is_empty() {
            return;
        }
        self.text.push_str(text);
        if on_text(row, text).is_break() {
            self.finish = Some(Finish::Cancelled);
        }
    }

    /// Ends the row: what was held back comes out, unless a stop string was in it.
    fn end(&mut self, row: usize, reason: Finish, on_text: &mut OnText<'_>) -> Result<()> {
        if let Some(stream) = self.stream.take() {
            let rest = stream.finish()?;
            self.release(row, &rest, on_text);
        }
        if self.finish.is_none() {
            let held = self.stops.finish();
            self.emit(row, &held, on_text);
        }
        // a stop string in the last bytes is the better reason; a late cancel is none
        if !matches!(self.finish, Some(Finish::StopString(_))) {
            self.finish = Some(reason);
        }
        Ok(())
    }

    fn result(self) -> Generated {
        Generated {
            n_prompt: self.prompt.ids.len(),
            n_new: self.n_new,
            ids: self.ids,
            text: self.text,
            finish: self.finish.unwrap_or(Finish::Length),
        }
    }
}

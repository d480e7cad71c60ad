//! Text from a causal language model: choosing tokens, ending, streaming, scoring.

mod batch;
mod config;
mod prompt;
mod sampler;
mod score;
mod stop;
mod stream;

use std::ops::ControlFlow;

use anyo_core::{Error, Result};
use tch::Tensor;

use crate::{Causal, Pass, Tokenizer};

pub use config::SamplingConfig;
pub use prompt::{Injected, Prompt};
pub use sampler::{Sampler, draw};
pub use score::{Score, score, score_lists, score_text};
pub use stop::{Released, StopMatcher};
pub use stream::TextStream;

/// Why a text ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// A stop id came; it is not among the ids.
    StopId(u32),
    /// A stop string was complete; the text ends before it.
    StopString(String),
    /// `max_new_tokens` were generated.
    Length,
    /// The context has no place left.
    Context,
    /// The callback asked to stop.
    Cancelled,
}

/// What was generated for one prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// New ids, without a stop id. With a stop string those that spelled it are included.
    pub ids: Vec<u32>,
    /// Their text without special tokens, cut before a stop string.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub n_prompt: usize,
    /// Tokens that were computed, a stop id included.
    pub n_new: usize,
}

/// Called with the row and its next piece of text; `Break` ends that row.
pub type OnText<'a> = dyn FnMut(usize, &str) -> ControlFlow<()> + 'a;

/// Continues prompts together, in one batch padded on the left; rows that ended are dropped from the batch.
///
/// `pass.gate` `[B,E]` has one row for each prompt and follows it as rows leave the batch; `pass.base_only` applies to
/// all; dropout and checkpointing are off. `on_text` gets whole
/// characters only, and never text that turns out to be part of a stop string. A row's text depends on its prompt and
/// seed, not on the batch around it, up to the rounding of matrix products of another size.
///
/// # Errors
/// When a setting is out of range, a prompt is empty, longer than the context or holds ids outside the vocabulary,
/// injected vectors do not fit, the gate has not one row for each prompt, or the model's logits are not finite.
pub fn generate<M: Causal>(
    model: &M,
    tokenizer: &Tokenizer,
    prompts: &[Prompt],
    config: &SamplingConfig,
    pass: &Pass<'_>,
    on_text: &mut OnText<'_>,
) -> Result<Vec<Generated>> {
    config.check()?;
    for (row, prompt) in prompts.iter().enumerate() {
        check_prompt(model, &format!("prompt {row}"), prompt)?;
    }
    check_gate_rows(pass, prompts.len())?;
    if prompts.is_empty() {
        return Ok(Vec::new());
    }
    tch::no_grad(|| batch::Batch::start(model, tokenizer, prompts, config, pass)?.run(on_text))
}

/// A prompt that a model can read; that injected vectors have the model's width is checked with its embeddings at hand.
fn check_prompt<M: Causal>(model: &M, what: &str, prompt: &Prompt) -> Result<()> {
    check_ids(model, what, &prompt.ids)?;
    let n = prompt.ids.len();
    match prompt.injected.iter().flat_map(Injected::places).find(|&&place| place >= n) {
        None => Ok(()),
        Some(place) => Err(Error::invalid(format!(
            "a vector is injected at place {place} of {what}, which has {n} tokens, counted from 0"
        ))),
    }
}

/// The gate is picked apart by rows before a model sees it.
fn check_gate_rows(pass: &Pass<'_>, prompts: usize) -> Result<()> {
    match pass.gate.filter(|_| !pass.base_only).map(Tensor::size) {
        Some(size) if size.len() != 2 || size[0] != prompts as i64 => Err(Error::invalid(format!(
            "the gate has the shape {size:?}, wanted [{prompts}, E]: one row for each prompt"
        ))),
        _ => Ok(()),
    }
}

/// Ids that a model can read: some, not too many, all in its vocabulary.
fn check_ids<M: Causal>(model: &M, what: &str, ids: &[u32]) -> Result<()> {
    let (context, vocab) = (model.max_positions(), model.vocab_size());
    if ids.is_empty() {
        return Err(Error::Invalid {
            message: format!("{what} is empty"),
            hint: Some("give at least one token; a bos token will do where the tokenizer has one".into()),
        });
    }
    if ids.len() > context {
        return Err(Error::Invalid {
            message: format!("{what} has {} tokens, but the model's context has {context}", ids.len()),
            hint: Some("shorten it, or use a model with a longer context".into()),
        });
    }
    match ids.iter().find(|&&id| id as usize >= vocab) {
        None => Ok(()),
        Some(id) => Err(Error::Invalid {
            message: format!("{what} holds token id {id}, but the model's embedding has {vocab} rows"),
            hint: Some("use the tokenizer that came with the model".into()),
        }),
    }
}

/// Ids as the i64 that the model takes.
fn tensor_of(ids: &[i64], shape: &[i64], device: tch::Device) -> Result<Tensor> {
    Ok(Tensor::f_from_slice(ids)?.f_view(shape)?.f_to_device(device)?)
}

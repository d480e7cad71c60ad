//! A teacher from its parts: data, encoder and language model.

use anyo_core::{Result, data::Dataset};
use anyo_lm::{Causal as _, CausalLm, Tokenizer};

use super::config::TeacherRunConfig;
use crate::{
    encoder::Encoder,
    head::title_features,
    model::{AddedTokens, Parts, Teacher},
    prompt::Prompts,
};

/// Titles read by the language model at once.
const TITLES: usize = 64;

/// The prompts of this data in the language model's tokens, and the teacher with new weights around the model. `read` hears
/// how many titles the model has read so far and may end it.
///
/// # Errors
/// A prompt or title that does not fit the model, parts that do not fit each other, what `read` says, or no memory.
pub fn assemble(
    config: &TeacherRunConfig,
    dataset: &Dataset,
    encoder: &Encoder,
    lm: CausalLm,
    tokenizer: &Tokenizer,
    read: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<(Prompts, Teacher)> {
    let n_items = dataset.n_items();
    let prompt = &config.teacher.prompt;
    let prompts = Prompts::new(prompt, &dataset.items, tokenizer, lm.vocab_size(), lm.max_positions())?;
    let titles = match config.teacher.head {
        Some(_) => {
            let titles: Vec<&[i64]> = (0..n_items as u32).map(|item| prompts.title(item)).collect();
            Some(title_features(&lm, &titles, TITLES, read)?)
        }
        None => None,
    };
    let teacher = Teacher::new(Parts {
        config: &config.teacher,
        lm,
        tokens: added_tokens(&prompts, tokenizer),
        items: encoder.items(),
        state_width: encoder.state_width(),
        titles: titles.as_ref(),
        target_counts: &dataset.train.target_counts(n_items),
        seed: config.seed,
    })?;
    Ok((prompts, teacher))
}

/// The tokens that these prompts need beyond the language model's own.
fn added_tokens(prompts: &Prompts, tokenizer: &Tokenizer) -> AddedTokens {
    let markers = prompts.markers();
    let count = markers.added.len();
    AddedTokens {
        first: (markers.vocab_rows - count) as i64,
        count: count as i64,
        injected: vec![i64::from(markers.ids.history), i64::from(markers.ids.candidate)],
        pad: i64::from(tokenizer.pad_id()),
    }
}

//! Placeholder until the branch `rank` is merged.
use anyo_core::{Error, Result};
use anyo_lm::Tokenizer;

use crate::{candidates::ChoiceRow, encoder::Encoder, model::Teacher, prompt::Prompts, tokens::Prompted};

/// Placeholder.
pub(crate) struct Speaker;

impl Speaker {
    pub(crate) fn new(_: &Teacher, _: &Encoder, _: &Prompts, _: &Tokenizer) -> Result<Self> {
        Ok(Self)
    }

    pub(crate) fn answers(&self, _: &[&ChoiceRow], _: &[Prompted]) -> Result<Vec<String>> {
        Err(Error::invalid("generation is not there yet; set choice.rows=0"))
    }
}

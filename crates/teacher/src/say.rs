//! The teacher's own answers: greedy generation.

use std::{collections::BTreeSet, ops::ControlFlow};

use anyo_core::{Error, Result};
use anyo_lm::{
    Pass, Tokenizer,
    generate::{Generated, SamplingConfig, generate},
};

use crate::{
    asked::{Asked, in_batches, open, tokens},
    candidates::ChoiceRow,
    encoder::Encoder,
    model::Teacher,
    prompt::Prompts,
    rank::RankSettings,
    tokens::{PromptSource, Prompted},
};

/// Says what comes next in words. Do not train the teacher while this exists.
///
/// The likeliest token each time, banned ids never, until the end mark of answers, a token at which the tokenizer's model
/// stops, or the length of the catalogue's longest answer. A row's text depends on its history and prompt alone, up to the
/// rounding of products of another size. A BOS in front of the answers ([`crate::PromptConfig`]'s `second_bos`) it has to
/// say itself.
///
/// Differs: the released code goes on to 64 tokens, strips blanks and cuts at the first line break behind them, so that a
/// line break in front of an answer does not end it; here an answer ends at its end mark wherever that comes.
pub struct Speaker<'a> {
    teacher: &'a Teacher,
    encoder: &'a Encoder,
    prompts: &'a Prompts,
    tokenizer: &'a Tokenizer,
    config: SamplingConfig,
}

impl<'a> Speaker<'a> {
    /// A speaker with the teacher's present weights, with or without adapters, gate and head.
    ///
    /// # Errors
    /// When the prompts belong to another language model or catalogue than the teacher.
    pub fn new(
        teacher: &'a Teacher,
        encoder: &'a Encoder,
        prompts: &'a Prompts,
        tokenizer: &'a Tokenizer,
    ) -> Result<Self> {
        let (wanted, got) = (prompts.markers().vocab_rows, teacher.lm().config().vocab_size);
        if wanted > got {
            return Err(Error::Invalid {
                message: format!("the prompts use {wanted} token ids, the teacher's language model has {got}"),
                hint: Some("tokenizer, prompts and language model must belong together".into()),
            });
        }
        let (wanted, got) = (prompts.titles().len() as i64, teacher.n_items());
        if wanted != got {
            return Err(Error::invalid(format!("the prompts have {wanted} titles, the teacher has {got} items")));
        }
        let mut stops: BTreeSet<u32> = tokenizer.stop_ids().into_iter().collect();
        let mut stop_strings = Vec::new();
        match *tokens(prompts.end())?.as_slice() {
            [] => {}
            [end] => _ = stops.insert(end),
            [first, ..] => {
                // The first of several tokens may stand in titles too; their text is what ends.
                let text = tokenizer.decode(&tokens(prompts.end())?, true)?;
                if text.is_empty() { _ = stops.insert(first) } else { stop_strings.push(text) }
            }
        }
        // A stop that every answer says on its way, such as a second BOS that is the EOS as well, stops nothing.
        for item in 0..prompts.titles().len() as u32 {
            let answer = prompts.answer(item);
            let inside = &answer[..answer.len().saturating_sub(prompts.end().len())];
            inside.iter().filter_map(|&id| u32::try_from(id).ok()).for_each(|id| _ = stops.remove(&id));
        }
        let config = SamplingConfig {
            stop_ids: stops.into_iter().collect(),
            stop_strings,
            banned_ids: prompts.banned().to_vec(),
            ..SamplingConfig::greedy(prompts.longest_answer().max(1))
        };
        Ok(Self { teacher, encoder, prompts, tokenizer, config })
    }

    /// What it speaks for.
    pub fn teacher(&self) -> &'a Teacher {
        self.teacher
    }

    /// The prompts that it was made for.
    pub fn prompts(&self) -> &'a Prompts {
        self.prompts
    }

    /// The tokenizer that it speaks with.
    pub fn tokenizer(&self) -> &'a Tokenizer {
        self.tokenizer
    }

    /// How tokens are chosen and when an answer ends.
    pub fn config(&self) -> &SamplingConfig {
        &self.config
    }

    /// Continues prompts in one batch, each made from (the newest items of) one of `histories`.
    ///
    /// # Errors
    /// When there is not one prompt for each history, markers and items of a prompt do not fit, a history has an item
    /// outside the catalogue, or a prompt fills the context.
    pub fn say(&self, histories: &[&[u32]], prompted: &[Prompted]) -> Result<Vec<Generated>> {
        if prompted.is_empty() && histories.is_empty() {
            return Ok(Vec::new());
        }
        let asked = Asked::new(self.teacher, self.encoder, histories, prompted)?;
        let pass = Pass { gate: asked.gate.as_ref(), ..Pass::default() };
        let listen = &mut |_: usize, _: &str| ControlFlow::Continue(());
        generate(self.teacher.lm(), self.tokenizer, &asked.prompts, &self.config, &pass, listen)
    }

    /// The answers to questions with candidates: what [`crate::evaluate_choices`] wants of a generator.
    ///
    /// # Errors
    /// As [`Speaker::say`].
    pub fn answers(&self, rows: &[&ChoiceRow], prompted: &[Prompted]) -> Result<Vec<String>> {
        let histories: Vec<&[u32]> = rows.iter().map(|row| row.history.as_slice()).collect();
        Ok(self.say(&histories, prompted)?.into_iter().map(|said| said.text).collect())
    }

    /// What comes next for each history when no candidates are listed, prompts of like length together.
    ///
    /// # Errors
    /// As [`Speaker::say`], and when a history does not fit the context.
    pub fn next(&self, histories: &[&[u32]], settings: &RankSettings) -> Result<Vec<String>> {
        let prompted = open(self.prompts, histories, settings)?;
        in_batches(histories, &prompted, settings.batch, &mut |_, histories, prompted| {
            Ok(self.say(histories, prompted)?.into_iter().map(|said| said.text).collect())
        })
    }
}

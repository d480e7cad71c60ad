//! The titles of a catalogue for one tokenizer, and the ids that an answer must not have.

use std::collections::BTreeSet;

use anyo_core::{Error, Result, data::Item};
use anyo_lm::Tokenizer;

use crate::{
    prompt::config::PromptConfig,
    prompt::markers::Markers,
    prompt::pieces::{Pieces, with_blank},
    prompt::template::slot_names,
    titles::{TitleReport, Titles},
};

/// Applies the rules of [`Titles`] with the markers, slots and special tokens at hand.
pub(crate) fn titles(config: &PromptConfig, items: &[Item], pieces: &Pieces<'_>, special: &Special) -> Result<Titles> {
    let mut meaning: Vec<String> = config.markers.all().iter().map(|(_, name)| (*name).to_owned()).collect();
    meaning.extend(slot_names().map(str::to_owned));
    meaning.extend(special.ids.iter().filter_map(|&id| pieces.tokenizer.token(id)));
    let limit = config.title.max_tokens.unwrap_or(usize::MAX);
    Titles::new(items, &meaning, config.title.repeated, &mut |title| shorten(pieces, title, limit))
}

/// Ids that no title may be written with.
#[derive(Debug)]
pub(crate) struct Special {
    ids: BTreeSet<u32>,
    unknown: Option<u32>,
}

impl Special {
    pub(crate) fn new(tokenizer: &Tokenizer) -> Self {
        let unknown = tokenizer.special().unk.as_deref().and_then(|unk| tokenizer.id(unk));
        Self { ids: special_ids(tokenizer), unknown }
    }

    /// Counts a title with characters that the vocabulary cannot write.
    ///
    /// # Errors
    /// When a title is written with a special token all the same.
    pub(crate) fn check(
        &self,
        item: &Item,
        ids: &[i64],
        tokenizer: &Tokenizer,
        report: &mut TitleReport,
    ) -> Result<()> {
        let has = |wanted: u32| ids.contains(&i64::from(wanted));
        if self.unknown.is_some_and(has) {
            report.note("unknown_characters", &item.title);
        }
        match self.ids.iter().copied().filter(|&id| Some(id) != self.unknown).find(|&id| has(id)) {
            None => Ok(()),
            Some(id) => Err(Error::Invalid {
                message: format!(
                    "item {}: its title {:?} is written with the special token `{}`",
                    item.id,
                    item.title,
                    tokenizer.token(id).unwrap_or_default()
                ),
                hint: Some("change this title in the item file".into()),
            }),
        }
    }
}

/// Special tokens, also those that a file names without marking them.
fn special_ids(tokenizer: &Tokenizer) -> BTreeSet<u32> {
    let marked = (0..tokenizer.n_ids() as u32).filter(|&id| tokenizer.is_special(id));
    let named = tokenizer.special();
    let named = [&named.bos, &named.eos, &named.pad, &named.unk].into_iter().flatten();
    let conventional = ["<s>", "</s>", "<|endoftext|>"];
    marked
        .chain(named.filter_map(|token| tokenizer.id(token)))
        .chain(conventional.iter().filter_map(|token| tokenizer.id(token)))
        .chain(tokenizer.stop_ids())
        .collect()
}

/// The longest beginning of `title` that has at most `limit` tokens behind a blank and without one; `None` when all of
/// it has. At least one character stays.
fn shorten(pieces: &Pieces<'_>, title: &str, limit: usize) -> Result<Option<String>> {
    // a token has at least one byte, but for a word start in front
    if title.len() + 2 <= limit {
        return Ok(None);
    }
    let fits = |text: &str| -> Result<bool> {
        Ok(pieces.inner(text)?.len() <= limit && pieces.inner(&with_blank(text, true))?.len() <= limit)
    };
    if fits(title)? {
        return Ok(None);
    }
    let ends: Vec<usize> = title.char_indices().skip(1).map(|(at, _)| at).collect();
    let (mut low, mut high) = (0, ends.len());
    // ends[..low] fit, ends[high..] do not
    while low < high {
        let middle = low.midpoint(high);
        match fits(title[..ends[middle]].trim_end())? {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    let end = ends.get(low.max(1) - 1).copied().unwrap_or(title.len());
    Ok(Some(title[..end].trim_end().to_owned()))
}

/// Markers, the pad token and ids without a token; never what may end an answer or begin one (BOS).
pub(crate) fn banned(tokenizer: &Tokenizer, markers: &Markers, end: &[i64]) -> Vec<u32> {
    let ids = markers.ids;
    let without_token = (0..markers.vocab_rows as u32).filter(|&id| !tokenizer.has(id));
    let special = tokenizer.special();
    let pad = special.pad.as_deref().and_then(|pad| tokenizer.id(pad)).or(tokenizer.generation_defaults().pad_id);
    let mut kept: BTreeSet<u32> = tokenizer.stop_ids().into_iter().chain(tokenizer.bos_id()).collect();
    kept.extend(end.iter().filter_map(|&id| u32::try_from(id).ok()));
    kept.extend(special.unk.as_deref().and_then(|unk| tokenizer.id(unk)));
    let pad = pad.filter(|pad| !kept.contains(pad));
    let all: BTreeSet<u32> = without_token.chain(pad).chain([ids.plain, ids.history, ids.candidate]).collect();
    all.into_iter().collect()
}

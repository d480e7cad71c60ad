//! A wording in tokens: fixed pieces, and slots with what stands around each title.

use anyo_core::Result;

use crate::{
    prompt::config::PromptConfig,
    prompt::pieces::{Pieces, trailing_blank, with_blank},
    prompt::template::{Part, parse},
};

/// What stands in front of a title.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lead {
    pub(crate) ids: Vec<i64>,
    /// Whether the title brings the blank in front of it.
    pub(crate) spaced: bool,
}

/// A slot.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) first: Lead,
    pub(crate) next: Lead,
    /// Stands in place of a history without items.
    pub(crate) empty: Vec<i64>,
}

/// A part of a compiled wording.
#[derive(Debug, Clone)]
pub(crate) enum Segment {
    Text(Vec<i64>),
    History(Slot),
    Candidates(Slot),
}

/// One form of a wording.
#[derive(Debug, Clone)]
pub(crate) struct Form {
    pub(crate) segments: Vec<Segment>,
    /// Tokens of the fixed pieces.
    pub(crate) n_fixed: usize,
}

impl Form {
    /// Takes a wording apart and tokenises its pieces; `bos` goes in front unless the wording begins with it.
    pub(crate) fn new(
        pieces: &Pieces<'_>,
        config: &PromptConfig,
        body: &str,
        cue: &str,
        bos: Option<i64>,
    ) -> Result<Self> {
        let parts = parse(body, cue);
        let mut segments = Vec::with_capacity(parts.len() + 1);
        let mut blank = false;
        for (i, part) in parts.iter().enumerate() {
            segments.push(match part {
                Part::Text(text) => {
                    let before_slot = i + 1 < parts.len();
                    let (text, ended) = if before_slot { trailing_blank(text) } else { (text.as_str(), false) };
                    blank = ended;
                    Segment::Text(if i == 0 { pieces.first(text)? } else { pieces.inner(text)? })
                }
                Part::History => Segment::History(slot(pieces, config, &config.separator, &mut blank)?),
                Part::Candidates => Segment::Candidates(slot(pieces, config, &config.candidate_separator, &mut blank)?),
            });
        }
        if let Some(bos) = bos {
            match segments.first_mut() {
                Some(Segment::Text(ids)) if ids.first() == Some(&bos) => {}
                Some(Segment::Text(ids)) => ids.insert(0, bos),
                _ => segments.insert(0, Segment::Text(vec![bos])),
            }
        }
        let fixed = segments.iter().map(|segment| if let Segment::Text(ids) = segment { ids.len() } else { 0 });
        Ok(Self { n_fixed: fixed.sum(), segments })
    }
}

/// `blank`: whether one was taken off the text before the slot; it is used up here.
fn slot(pieces: &Pieces<'_>, config: &PromptConfig, separator: &str, blank: &mut bool) -> Result<Slot> {
    let blank = std::mem::take(blank);
    let open = &config.title.open;
    let lead = |text: &str| -> Result<Lead> {
        let (text, spaced) = trailing_blank(text);
        Ok(Lead { ids: pieces.inner(text)?, spaced })
    };
    Ok(Slot {
        first: if open.is_empty() { Lead { ids: Vec::new(), spaced: blank } } else { lead(&with_blank(open, blank))? },
        next: lead(&format!("{separator}{open}"))?,
        empty: pieces.inner(&with_blank(config.no_history.trim(), blank))?,
    })
}

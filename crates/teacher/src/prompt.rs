//! Prompts of token ids from histories and candidates; titles and wordings are tokenised once.

pub mod config;
pub mod counts;
mod form;
pub mod markers;
mod pieces;
mod template;
mod titles;

use std::borrow::Cow;

use anyo_core::{
    Error, Result,
    config::{Check, Report},
    data::Item,
};
use anyo_lm::{Tokenizer, train::Example};

use self::{
    config::{AnswerEnd, Bos, PromptConfig},
    counts::{Counters, PromptCounts, PromptSummary},
    form::{Form, Segment, Slot},
    markers::Markers,
    pieces::{Pieces, TokenLists, with_blank},
    titles::Special,
};
use crate::{
    titles::Titles,
    tokens::{Mark, PromptMode, PromptSource, Prompted},
};

/// The prompts of one catalogue for one tokenizer.
///
/// A prompt is BOS, the wording with its slots filled, and the answer cue. Each title is followed by a marker token;
/// markers are put in as ids and never parsed from text, and a blank in front of a title belongs to the title's first
/// token, as in running text.
#[derive(Debug)]
pub struct Prompts {
    templates: Vec<[Form; 2]>,
    titles: Titles,
    /// Tokens of each title as it stands directly behind something, and behind a blank.
    bare: TokenLists,
    spaced: TokenLists,
    answers: TokenLists,
    close: Vec<i64>,
    markers: Markers,
    banned: Vec<u32>,
    end: Vec<i64>,
    window: usize,
    context: usize,
    reserve: usize,
    counters: Counters,
}

/// For `map_err`: names the row in front of the message.
pub fn in_row(row: usize) -> impl FnOnce(Error) -> Error {
    move |error| match error {
        Error::Invalid { message, hint } => Error::Invalid { message: format!("row {row}: {message}"), hint },
        other => other,
    }
}

impl Prompts {
    /// Tokenises the titles of `items` and the wordings. `vocab_rows`: rows of the model's embedding, which may be more
    /// than the tokenizer has ids; `context`: the longest sequence that it takes.
    ///
    /// # Errors
    /// When the configuration is out of range, the tokenizer lacks BOS or EOS where they are asked for or cannot write
    /// a text, or the context has no room for an answer.
    pub fn new(
        config: &PromptConfig,
        items: &[Item],
        tokenizer: &Tokenizer,
        vocab_rows: usize,
        context: usize,
    ) -> Result<Self> {
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(Error::Config(Report { problems }));
        }
        let pieces = Pieces::new(tokenizer)?;
        let bos = match config.bos {
            Bos::Always => Some(named(tokenizer.bos_id(), "bos", "bos=auto or bos=never")?),
            Bos::Auto => {
                // the empty text would do, but some templates leave it alone
                let around = tokenizer.encode("a", true)?;
                tokenizer.bos_id().filter(|bos| around.first() == Some(bos)).map(i64::from)
            }
            Bos::Never => None,
        };
        let end = match config.end {
            AnswerEnd::Newline => pieces.inner("\n")?,
            AnswerEnd::Eos => vec![named(tokenizer.eos_id(), "eos", "end=newline")?],
        };
        let second = match config.second_bos {
            true => vec![named(tokenizer.bos_id(), "bos", "second_bos=false")?],
            false => Vec::new(),
        };
        let markers = Markers::new(&config.markers, tokenizer, vocab_rows);
        let special = Special::new(tokenizer);
        let mut titles = titles::titles(config, items, &pieces, &special)?;
        let spaced_answer = config.templates[0].cue.ends_with(' ');
        let (mut bare, mut spaced) = (TokenLists::default(), TokenLists::default());
        let mut answers = TokenLists::default();
        for (index, item) in items.iter().enumerate() {
            let title = titles.get(index as u32);
            let [plain, behind_blank] = [pieces.inner(title)?, pieces.inner(&with_blank(title, true))?];
            special.check(item, &plain, tokenizer, titles.report_mut())?;
            let answer = if spaced_answer { &behind_blank } else { &plain };
            answers.push(second.iter().chain(answer).chain(&end).copied());
            bare.push(plain);
            spaced.push(behind_blank);
        }
        let templates = config.templates.iter().map(|t| {
            let form = |body: &str| Form::new(&pieces, config, body, &t.cue, bos);
            Ok([form(&t.choice)?, form(&t.open)?])
        });
        let templates = templates.collect::<Result<Vec<_>>>()?;
        let (reserve, context) = (answers.longest(), config.max_len.map_or(context, |n| n.min(context)));
        if reserve >= context {
            return Err(Error::Invalid {
                message: format!("the longest answer has {reserve} tokens, but the context has {context}"),
                hint: Some("cut titles with title.max_tokens, or use a longer context".into()),
            });
        }
        Ok(Self {
            templates,
            titles,
            bare,
            spaced,
            answers,
            close: pieces.inner(&config.title.close)?,
            banned: titles::banned(tokenizer, &markers, &end),
            markers,
            end,
            window: config.window,
            context,
            reserve,
            counters: Counters::default(),
        })
    }

    /// The marker tokens.
    pub fn markers(&self) -> &Markers {
        &self.markers
    }

    /// The text of every item, as prompts show it and answers say it.
    pub fn titles(&self) -> &Titles {
        &self.titles
    }

    /// Tokens of an item's title alone.
    pub fn title(&self, item: u32) -> &[i64] {
        self.bare.get(item as usize)
    }

    /// Tokens of the titles that a prompt shows of a history: rows of like length are computed together.
    pub fn history_tokens(&self, history: &[u32]) -> usize {
        let shown = &history[history.len().saturating_sub(self.window)..];
        shown.iter().map(|&item| self.title(item).len()).sum()
    }

    /// Tokens that end an answer; generation may stop at the first of them.
    pub fn end(&self) -> &[i64] {
        &self.end
    }

    /// Tokens of the longest answer with its end: what generation needs at most.
    pub fn longest_answer(&self) -> usize {
        self.reserve
    }

    /// A training example: only the answer's tokens (a second BOS included) are targets.
    ///
    /// # Errors
    /// When the item is outside of the catalogue.
    pub fn example(&self, prompted: &Prompted, item: u32) -> Result<Example> {
        self.known(item)?;
        Example::answer_only(&prompted.ids, self.answer(item))
    }

    /// What was made so far.
    pub fn counts(&self) -> PromptCounts {
        self.counters.read()
    }

    /// Everything counted, for the run's log.
    pub fn summary(&self) -> PromptSummary {
        PromptSummary {
            titles: self.titles.report().clone(),
            prompts: self.counts(),
            context: self.context,
            answer_reserve: self.reserve,
        }
    }

    fn known(&self, item: u32) -> Result<()> {
        if (item as usize) < self.titles.len() {
            return Ok(());
        }
        Err(Error::invalid(format!("item {item} is outside of the catalogue of {} items", self.titles.len())))
    }

    /// Tokens of an item in a slot with its marker.
    fn width(&self, slot: &Slot, place: usize, item: u32) -> usize {
        let lead = if place == 0 { &slot.first } else { &slot.next };
        let title = if lead.spaced { &self.spaced } else { &self.bare };
        lead.ids.len() + title.get(item as usize).len() + self.close.len() + 1
    }

    fn slot_width(&self, slot: &Slot, items: &[u32], replaces_empty: bool) -> usize {
        if items.is_empty() && replaces_empty {
            return slot.empty.len();
        }
        items.iter().enumerate().map(|(place, &item)| self.width(slot, place, item)).sum()
    }

    fn put(&self, made: &mut Prompted, slot: &Slot, items: &[u32], marker: u32, hybrid: bool) {
        for (place, &item) in items.iter().enumerate() {
            let lead = if place == 0 { &slot.first } else { &slot.next };
            let title = if lead.spaced { &self.spaced } else { &self.bare };
            made.ids.extend(&lead.ids);
            made.ids.extend(title.get(item as usize));
            made.ids.extend(&self.close);
            if hybrid {
                made.marks.push(Mark { position: made.ids.len(), item });
            }
            made.ids.push(i64::from(if hybrid { marker } else { self.markers.ids.plain }));
        }
    }

    fn make(&self, form: &Form, history: &[u32], candidates: &[u32], mode: PromptMode) -> Result<Prompted> {
        history.iter().chain(candidates).try_for_each(|&item| self.known(item))?;
        let newest = &history[history.len().saturating_sub(self.window)..];
        let mut n_candidates = 0;
        let mut slot = None;
        for segment in &form.segments {
            match segment {
                Segment::History(found) => slot = Some(found),
                Segment::Candidates(found) => n_candidates = self.slot_width(found, candidates, false),
                Segment::Text(_) => {}
            }
        }
        let room = self.context.saturating_sub(self.reserve + form.n_fixed + n_candidates);
        let width = |items: &[u32]| slot.map_or(0, |slot| self.slot_width(slot, items, true));
        let fits = (newest.len().min(1)..=newest.len()).rev().find(|&n| width(&newest[newest.len() - n..]) <= room);
        let Some(kept) = fits.filter(|_| form.n_fixed + n_candidates + self.reserve <= self.context) else {
            return Err(self.too_long(form, n_candidates, candidates.len(), width(&newest[newest.len().max(1) - 1..])));
        };
        let shown = &newest[newest.len() - kept..];
        let hybrid = mode == PromptMode::Hybrid;
        let n_ids = form.n_fixed + n_candidates + width(shown);
        let n_marks = if hybrid { shown.len() + candidates.len() } else { 0 };
        let mut made = Prompted {
            ids: Vec::with_capacity(n_ids + self.reserve),
            marks: Vec::with_capacity(n_marks),
            left_out: newest.len() - kept,
        };
        for segment in &form.segments {
            match segment {
                Segment::Text(ids) => made.ids.extend(ids),
                Segment::History(slot) if shown.is_empty() => made.ids.extend(&slot.empty),
                Segment::History(slot) => self.put(&mut made, slot, shown, self.markers.ids.history, hybrid),
                Segment::Candidates(slot) => {
                    self.put(&mut made, slot, candidates, self.markers.ids.candidate, hybrid);
                }
            }
        }
        debug_assert_eq!(made.ids.len(), n_ids);
        self.count(history.len(), newest.len(), &made);
        Ok(made)
    }

    fn count(&self, n_history: usize, n_window: usize, made: &Prompted) {
        let c = &self.counters;
        Counters::add(&c.empty_history, usize::from(n_history == 0));
        Counters::add(&c.windowed, usize::from(n_history > n_window));
        Counters::add(&c.outside_window, n_history - n_window);
        Counters::add(&c.shortened, usize::from(made.left_out > 0));
        Counters::add(&c.left_out, made.left_out);
    }

    fn too_long(&self, form: &Form, candidates: usize, n_candidates: usize, newest: usize) -> Error {
        let list = match n_candidates {
            0 => Cow::Borrowed(""),
            n => Cow::Owned(format!(", {n} candidates {candidates}")),
        };
        let sum = form.n_fixed + candidates + newest + self.reserve;
        Error::Invalid {
            message: format!(
                "a prompt of at least {sum} tokens does not fit the context of {}: wording {}{list}, newest history item \
                 {newest}, longest answer {}",
                self.context, form.n_fixed, self.reserve
            ),
            hint: Some(
                "use a longer context (max_len, or the model's), fewer candidates (candidates.n), or shorter titles \
                 (title.max_tokens)"
                    .into(),
            ),
        }
    }

    fn form(&self, template: usize, which: usize) -> Result<&Form> {
        let forms = self.templates.get(template);
        forms.map(|forms| &forms[which]).ok_or_else(|| {
            Error::invalid(format!("there is no template {template}; there are {}", self.templates.len()))
        })
    }
}

impl PromptSource for Prompts {
    fn n_templates(&self) -> usize {
        self.templates.len()
    }

    fn choice(&self, history: &[u32], candidates: &[u32], template: usize, mode: PromptMode) -> Result<Prompted> {
        if candidates.is_empty() {
            return Err(Error::invalid("a prompt with candidates needs at least one"));
        }
        let made = self.make(self.form(template, 0)?, history, candidates, mode)?;
        Counters::add(&self.counters.choice, 1);
        Ok(made)
    }

    fn open(&self, history: &[u32], template: usize, mode: PromptMode) -> Result<Prompted> {
        let made = self.make(self.form(template, 1)?, history, &[], mode)?;
        Counters::add(&self.counters.open, 1);
        Ok(made)
    }

    fn answer(&self, item: u32) -> &[i64] {
        self.answers.get(item as usize)
    }

    fn banned(&self) -> &[u32] {
        &self.banned
    }
}

fn named(id: Option<u32>, what: &str, other: &str) -> Result<i64> {
    id.map(i64::from).ok_or_else(|| Error::Invalid {
        message: format!("the prompts need a {what} token, but the tokenizer names none"),
        hint: Some(format!("set {other} for the prompts")),
    })
}

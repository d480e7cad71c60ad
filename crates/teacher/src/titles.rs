//! The text that stands for each item in prompts and answers, by rules that hold for every title.
//!
//! In this order:
//! 1. An item without a title (blank, or the same as its id) is shown by its id; without an id by `item N`.
//! 2. Control characters and line breaks become blanks, runs of blanks one blank.
//! 3. Text that has a meaning in a prompt – a marker, a slot, a special token of the tokenizer – gets a blank behind its
//!    first character (`[HistoryEmb]` becomes `[ HistoryEmb]`), so that it is only text.
//! 4. A title of more tokens than allowed keeps its beginning.
//! 5. Titles that several items have stay, or get the id behind them ([`Repeated`]).
//!
//! Nothing is skipped; [`TitleReport`] counts all of it, and titles that are part of another.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use anyo_core::{Result, data::Item};
use serde::Serialize;

use crate::{metric::matcher::normalise, prompt::config::Repeated};

/// Shown titles of each kind that a report names at most.
const EXAMPLES: usize = 3;
/// Titles shorter than this are looked up whole, longer ones by so many first bytes.
const KEY: usize = 8;

/// The text of every item.
#[derive(Debug, Clone)]
pub struct Titles {
    shown: Vec<String>,
    report: TitleReport,
}

/// How many titles the rules touched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct TitleReport {
    /// Items of the catalogue.
    pub n_items: usize,
    /// Items shown by their id.
    pub without_title: usize,
    /// Titles with control characters, line breaks or needless blanks.
    pub line_breaks: usize,
    /// Titles with the text of a marker, a slot or a special token.
    pub neutralised: usize,
    /// Titles cut to the allowed number of tokens.
    pub shortened: usize,
    /// Items whose title, without regard to case and the like, is also another item's.
    pub repeated: usize,
    /// Items whose title is part of another, different title.
    pub contained: usize,
    /// Titles with a character that the vocabulary cannot write.
    pub unknown_characters: usize,
    /// A few titles as the source has them, with the counter above that they belong to.
    pub examples: Vec<(&'static str, String)>,
}

impl TitleReport {
    pub(crate) fn note(&mut self, kind: &'static str, raw: &str) {
        *match kind {
            "without_title" => &mut self.without_title,
            "line_breaks" => &mut self.line_breaks,
            "neutralised" => &mut self.neutralised,
            "shortened" => &mut self.shortened,
            "repeated" => &mut self.repeated,
            "contained" => &mut self.contained,
            _ => &mut self.unknown_characters,
        } += 1;
        if self.examples.iter().filter(|(k, _)| *k == kind).count() < EXAMPLES {
            self.examples.push((kind, raw.to_owned()));
        }
    }
}

impl fmt::Display for TitleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "titles of {} items: {} without (shown by id), {} repeated, {} contained in another, {} with line breaks or \
             control characters, {} with text that has a meaning in prompts (a blank was put into it), {} cut, {} with \
             characters unknown to the vocabulary",
            self.n_items,
            self.without_title,
            self.repeated,
            self.contained,
            self.line_breaks,
            self.neutralised,
            self.shortened,
            self.unknown_characters
        )
    }
}

impl Titles {
    /// Applies the rules. `meaning` are the texts of rule 3; `shorten` returns the beginning of a title that is too
    /// long, `None` for one that is not.
    ///
    /// # Errors
    /// Those of `shorten`.
    pub fn new(
        items: &[Item],
        meaning: &[String],
        repeated: Repeated,
        shorten: &mut dyn FnMut(&str) -> Result<Option<String>>,
    ) -> Result<Self> {
        let mut report = TitleReport { n_items: items.len(), ..TitleReport::default() };
        let mut shown = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let mut title = tidy(&item.title);
            if title.is_empty() || item.title == item.id {
                report.note("without_title", &item.id);
                title = tidy(&item.id);
            } else if title != item.title {
                report.note("line_breaks", &item.title);
            }
            if title.is_empty() {
                title = format!("item {index}");
            }
            if let Some(neutral) = neutralise(&title, meaning) {
                report.note("neutralised", &item.title);
                title = neutral;
            }
            if let Some(short) = shorten(&title)? {
                report.note("shortened", &item.title);
                title = short;
            }
            shown.push(title);
        }
        let mut keys: Vec<String> = shown.iter().map(|title| normalise(title)).collect();
        let mut count: HashMap<&str, usize> = HashMap::new();
        keys.iter().for_each(|key| *count.entry(key).or_default() += 1);
        let mut first = HashSet::new();
        let mut numbered = Vec::new();
        for (index, key) in keys.iter().enumerate().filter(|(_, key)| count[key.as_str()] > 1) {
            report.note("repeated", &items[index].title);
            if !first.insert(key.as_str()) && repeated == Repeated::AddId {
                let title = format!("{} [{}]", shown[index], tidy(&items[index].id));
                numbered.push((index, neutralise(&title, meaning).unwrap_or(title)));
            }
        }
        for (index, title) in numbered {
            keys[index] = normalise(&title);
            shown[index] = title;
        }
        for (index, _) in contained(&keys).into_iter().enumerate().filter(|(_, inside)| *inside) {
            report.note("contained", &items[index].title);
        }
        Ok(Self { shown, report })
    }

    /// The text of an item.
    pub fn get(&self, item: u32) -> &str {
        &self.shown[item as usize]
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.shown.len()
    }

    /// Whether the catalogue is empty.
    pub fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    /// The texts of all items in order.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.shown.iter().map(String::as_str)
    }

    /// What the rules touched.
    pub fn report(&self) -> &TitleReport {
        &self.report
    }

    pub(crate) fn report_mut(&mut self) -> &mut TitleReport {
        &mut self.report
    }
}

/// Rule 2: one line, one blank between words. The ideographic space stays.
pub fn tidy(text: &str) -> String {
    let blank = |c: char| c == ' ' || c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    text.split(blank).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// Rule 3; `None` where nothing has a meaning. Only texts of two characters or more without blanks count: an inserted
/// blank cannot make a new one of these, so the loop ends.
pub fn neutralise(title: &str, meaning: &[String]) -> Option<String> {
    let counts = |m: &&String| m.chars().nth(1).is_some() && !m.contains(' ');
    let find = |title: &str| meaning.iter().filter(counts).find_map(|m| title.find(m.as_str()));
    let mut at = find(title)?;
    let mut text = title.to_owned();
    loop {
        let width = text[at..].chars().next().map_or(1, char::len_utf8);
        text.insert(at + width, ' ');
        match find(&text) {
            Some(next) => at = next,
            None => return Some(text),
        }
    }
}

/// For each text whether it is part of another, different one. One pass over all places of all texts.
fn contained(keys: &[String]) -> Vec<bool> {
    let mut short: HashMap<&[u8], bool> = HashMap::new();
    let mut long: HashMap<&[u8], Vec<&[u8]>> = HashMap::new();
    let distinct: HashSet<&[u8]> = keys.iter().map(String::as_bytes).filter(|key| !key.is_empty()).collect();
    for &key in &distinct {
        match key.get(..KEY) {
            Some(head) => long.entry(head).or_default().push(key),
            None => drop(short.insert(key, false)),
        }
    }
    let mut inside: HashSet<&[u8]> = HashSet::new();
    for &key in &distinct {
        for at in 0..key.len() {
            let rest = &key[at..];
            for n in 1..KEY.min(rest.len() + 1) {
                if n < key.len()
                    && let Some(found) = short.get_mut(&rest[..n])
                {
                    *found = true;
                }
            }
            let heads = rest.get(..KEY).and_then(|head| long.get(head));
            inside.extend(heads.into_iter().flatten().filter(|k| k.len() < key.len() && rest.starts_with(k)));
        }
    }
    keys.iter().map(|key| short.get(key.as_bytes()).copied().unwrap_or(inside.contains(key.as_bytes()))).collect()
}

#[cfg(test)]
mod tests;

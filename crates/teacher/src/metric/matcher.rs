//! Which title a generated text names: the original's substring rule, and a robust one.

use std::collections::{BTreeSet, HashMap};

/// What a text names among the titles of a [`Matcher`], by index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No title.
    Nothing,
    /// One.
    One(usize),
    /// Several that the text does not tell apart, ascending.
    Several(Vec<usize>),
}

impl Found {
    fn of(found: BTreeSet<usize>) -> Self {
        match (found.len(), found.first()) {
            (1, Some(&index)) => Self::One(index),
            (0, _) => Self::Nothing,
            _ => Self::Several(found.into_iter().collect()),
        }
    }
}

/// The first line of an output without blanks around: what the metrics look at.
pub fn first_line(output: &str) -> &str {
    output.trim().lines().next().unwrap_or("").trim_end()
}

/// The rule of LLaRA and iLoRA: the one name that, in lower case, is part of the lower-case output; `None` when there is
/// none or more than one. The same name twice is two; an empty name is part of everything.
pub fn legacy_match(names: &[&str], output: &str) -> Option<usize> {
    let output = first_line(output).to_lowercase();
    let mut found = (0..names.len()).filter(|&i| output.contains(&names[i].to_lowercase()));
    found.next().filter(|_| found.next().is_none())
}

/// Finds titles in texts.
///
/// After [`normalise`], in this order:
/// 1. the whole text is a title;
/// 2. the same without punctuation and quotes around text and title;
/// 3. titles inside the text, at word boundaries; one inside a longer one does not count (`Alien` in `Aliens 3` beside
///    a title `Aliens 3`), so the longest at each place remains.
///
/// Where what remains belongs to several items – equal titles, or different titles at different places – the text is
/// ambiguous.
#[derive(Debug, Clone)]
pub struct Matcher {
    /// Distinct normalised titles, none empty, with their indices.
    titles: Vec<(String, Vec<usize>)>,
    exact: HashMap<String, usize>,
    bare: HashMap<String, BTreeSet<usize>>,
}

impl Matcher {
    /// For these titles; an empty one is never found.
    pub fn new<'a>(titles: impl IntoIterator<Item = &'a str>) -> Self {
        let mut made = Self { titles: Vec::new(), exact: HashMap::new(), bare: HashMap::new() };
        for (index, title) in titles.into_iter().enumerate() {
            let key = normalise(title);
            if key.is_empty() {
                continue;
            }
            let bare = bare(&key);
            if !bare.is_empty() {
                made.bare.entry(bare.to_owned()).or_default().insert(index);
            }
            let place = *made.exact.entry(key.clone()).or_insert(made.titles.len());
            match made.titles.get_mut(place) {
                Some((_, indices)) => indices.push(index),
                None => made.titles.push((key, vec![index])),
            }
        }
        made
    }

    /// What the first line of `output` names.
    pub fn find(&self, output: &str) -> Found {
        let text = normalise(first_line(output));
        if let Some(&place) = self.exact.get(&text) {
            return Found::of(self.titles[place].1.iter().copied().collect());
        }
        if let Some(found) = self.bare.get(bare(&text)) {
            return Found::of(found.clone());
        }
        // (start, end, place)
        let mut spans: Vec<(usize, usize, usize)> = Vec::new();
        for (place, (title, _)) in self.titles.iter().enumerate() {
            let ends = occurrences(&text, title).map(|at| (at, at + title.len()));
            spans.extend(ends.filter(|&(a, b)| on_boundaries(&text, a, b)).map(|(a, b)| (a, b, place)));
        }
        let longest =
            |&&(a, b, _): &&(usize, usize, usize)| !spans.iter().any(|&(c, d, _)| c <= a && b <= d && d - c > b - a);
        let found = spans.iter().filter(longest).flat_map(|&(.., place)| self.titles[place].1.iter().copied());
        Found::of(found.collect())
    }
}

/// Lower case; typographic quotes, dashes, ellipses, blanks and full-width ASCII as plain ones; no ™ ® ©; one blank
/// between words.
pub fn normalise(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().flat_map(char::to_lowercase) {
        match c {
            '\u{2018}' | '\u{2019}' | '\u{201b}' | '\u{2032}' | '`' | '\u{b4}' => out.push('\''),
            '\u{201c}' | '\u{201d}' | '\u{201e}' | '\u{2033}' => out.push('"'),
            '\u{2010}'..='\u{2015}' | '\u{2212}' => out.push('-'),
            '\u{2026}' => out.push_str("..."),
            '™' | '®' | '©' | '\u{200b}'..='\u{200d}' | '\u{feff}' => {}
            '\u{ff01}'..='\u{ff5e}' => {
                out.extend(char::from_u32(c as u32 - 0xfee0).into_iter().flat_map(char::to_lowercase));
            }
            c if c.is_whitespace() || c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Every place of `part` in `text`, overlapping ones too.
fn occurrences<'a>(text: &'a str, part: &'a str) -> impl Iterator<Item = usize> + 'a {
    let step = part.chars().next().map_or(1, char::len_utf8);
    let mut from = 0;
    std::iter::from_fn(move || {
        let at = from + text.get(from..)?.find(part)?;
        from = at + step;
        Some(at)
    })
}

/// Without quotes, brackets and punctuation at the ends.
fn bare(text: &str) -> &str {
    text.trim_matches(|c: char| !c.is_alphanumeric())
}

/// Whether neither end of `text[start..end]` cuts through a word. Scripts without blanks have no such boundaries.
fn on_boundaries(text: &str, start: usize, end: usize) -> bool {
    let (before, inside, after) = (&text[..start], &text[start..end], &text[end..]);
    let joins = |edge: Option<char>, neighbours: &mut dyn Iterator<Item = char>| {
        let next = neighbours.next();
        edge.is_some_and(in_word)
            && match next {
                // `m` in `i'm` is no word
                Some('\'') => neighbours.next().is_some_and(in_word),
                next => next.is_some_and(in_word),
            }
    };
    !joins(inside.chars().next(), &mut before.chars().rev()) && !joins(inside.chars().next_back(), &mut after.chars())
}

/// Letters and digits of scripts that put blanks between words.
fn in_word(c: char) -> bool {
    let without_blanks = matches!(c, '\u{0e00}'..='\u{0eff}' | '\u{1780}'..='\u{17ff}' | '\u{3040}'..='\u{30ff}'
        | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}');
    c.is_alphanumeric() && !without_blanks
}

#[cfg(test)]
#[path = "matcher_tests.rs"]
mod tests;

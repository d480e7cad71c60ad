//! Configuration of the prompts; the defaults and their reasons stand in `conf/teacher/prompt/*.yaml`.

use std::collections::BTreeSet;

use anyo_core::config::{Check, Problem};
use serde::{Deserialize, Serialize};

use crate::prompt::template;

/// Shortest marker: a shorter one would be found in ordinary titles.
const MIN_MARKER: usize = 3;

/// How histories and candidates become text: `teacher.prompt` in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptConfig {
    /// Newest items of the history that a prompt names, at least 1.
    pub window: usize,
    /// Between two items of the history.
    pub separator: String,
    /// Between two candidates.
    pub candidate_separator: String,
    /// Stands in place of a history without items.
    pub no_history: String,
    /// How titles are shown.
    pub title: TitleShown,
    /// Texts of the marker tokens.
    pub markers: MarkerNames,
    /// Whether BOS stands in front.
    pub bos: Bos,
    /// A second BOS between prompt and answer, which the model has to write itself, as the original's.
    pub second_bos: bool,
    /// What ends an answer.
    pub end: AnswerEnd,
    /// Tokens of prompt and answer together at most; `None`: the context of the language model.
    pub max_len: Option<usize>,
    /// Candidate lists.
    pub candidates: CandidatesConfig,
    /// The wordings; one is drawn for each row.
    pub templates: Vec<Template>,
}

/// How titles are shown in the slots. The answer is the bare title.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TitleShown {
    /// In front of a title.
    pub open: String,
    /// Behind a title, before its marker.
    pub close: String,
    /// Tokens of a title at most; the rest of a longer one is cut off and counted. `None`: no limit.
    pub max_tokens: Option<usize>,
    /// What becomes of titles that several items have.
    pub repeated: Repeated,
}

/// What becomes of titles that several items have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Repeated {
    /// They stay: only the marker's vector tells the items apart, and an answer that says this title is ambiguous
    /// where two of them are candidates.
    Keep,
    /// All but the first item get their id behind the title, as in `Chasing Amy (1997) [267]`.
    AddId,
}

/// Texts of the marker tokens. Each is an own token, never parsed from a title.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkerNames {
    /// Behind every title of a text-only prompt.
    pub plain: String,
    /// Behind the history's titles of a hybrid prompt.
    pub history: String,
    /// Behind the candidates' titles of a hybrid prompt.
    pub candidate: String,
}

/// Whether BOS stands in front of a prompt; never twice there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bos {
    /// As the tokenizer does around a text.
    Auto,
    /// Wherever the tokenizer names one.
    Always,
    /// Nowhere.
    Never,
}

/// What ends an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerEnd {
    /// A line break.
    Newline,
    /// The tokenizer's EOS.
    Eos,
}

/// Candidate lists: the target and uniform draws from the catalogue without the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CandidatesConfig {
    /// Items of a list with the target, at least 2.
    pub n: usize,
    /// Freezes the lists and wordings of validation and test; runs with other seeds keep being asked the same.
    pub seed: u64,
}

/// One wording in its two forms. Slots are `{history}` and `{candidates}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// With candidates: both slots once, in any order.
    pub choice: String,
    /// Without candidates: `{history}` once.
    pub open: String,
    /// The last line of both forms. A blank at its end belongs to the answer's first token.
    pub cue: String,
}

impl MarkerNames {
    /// All three with their keys: plain, history, candidate.
    pub fn all(&self) -> [(&'static str, &str); 3] {
        [("plain", &self.plain), ("history", &self.history), ("candidate", &self.candidate)]
    }
}

impl Check for PromptConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |key: &str, message: String| problems.push(Problem::new(key, message));
        if self.window == 0 {
            add("window", "wanted at least 1, got 0".into());
        }
        for (key, text) in [("separator", &self.separator), ("candidate_separator", &self.candidate_separator)] {
            if text.is_empty() {
                add(key, "is empty; wanted what stands between two titles, such as \", \"".into());
            }
        }
        if self.no_history.trim().is_empty() {
            add("no_history", "is empty; wanted what stands for a history without items".into());
        }
        if self.title.max_tokens == Some(0) {
            add("title.max_tokens", "wanted at least 1 or null, got 0".into());
        }
        let mut seen = BTreeSet::new();
        for (key, marker) in self.markers.all() {
            if marker.chars().count() < MIN_MARKER || marker.contains(char::is_whitespace) {
                let wanted = format!("wanted at least {MIN_MARKER} characters without blanks, got {marker:?}");
                add(&format!("markers.{key}"), wanted);
            } else if !seen.insert(marker) {
                add(&format!("markers.{key}"), format!("{marker:?} is another marker already"));
            }
        }
        if self.max_len.is_some_and(|n| n < 8) {
            add("max_len", format!("wanted at least 8 or null, got {}", self.max_len.unwrap_or_default()));
        }
        if self.candidates.n < 2 {
            add("candidates.n", format!("wanted at least 2, got {}", self.candidates.n));
        }
        if self.templates.is_empty() {
            add("templates", "is empty; wanted at least one wording".into());
        }
        for (i, wording) in self.templates.iter().enumerate() {
            for (key, text, wanted) in [
                ("choice", &wording.choice, [1, 1].as_slice()),
                ("open", &wording.open, [1, 0].as_slice()),
                ("cue", &wording.cue, [0, 0].as_slice()),
            ] {
                if let Err(message) = template::check(text, [wanted[0], wanted[1]]) {
                    add(&format!("templates.{i}.{key}"), message);
                }
            }
            // one answer serves all wordings
            if wording.cue.ends_with(' ') != self.templates[0].cue.ends_with(' ') {
                let message = "the cues of all templates must end with a blank, or none of them".into();
                add(&format!("templates.{i}.cue"), message);
            }
        }
        problems
    }
}

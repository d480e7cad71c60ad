//! The marker tokens of prompts, and prompts as text for a person.

use anyo_core::Result;
use anyo_lm::Tokenizer;

use crate::{prompt::Prompts, prompt::config::MarkerNames};

/// Ids of the marker tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkerIds {
    /// Behind every title of a text-only prompt.
    pub plain: u32,
    /// Behind the history's titles of a hybrid prompt.
    pub history: u32,
    /// Behind the candidates' titles of a hybrid prompt.
    pub candidate: u32,
}

/// The marker tokens, and how many rows an embedding needs for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Markers {
    /// Their ids.
    pub ids: MarkerIds,
    /// Names of plain, history and candidate.
    pub names: [String; 3],
    /// Names and ids of those that the tokenizer does not have: rows to add, save and load with the adapters.
    pub added: Vec<(String, u32)>,
    /// Rows of the embedding once they are added.
    pub vocab_rows: usize,
}

impl Markers {
    /// A marker that is a token already keeps its id; the others follow the embedding's `vocab_rows` rows in the order
    /// plain, history, candidate.
    pub fn new(names: &MarkerNames, tokenizer: &Tokenizer, vocab_rows: usize) -> Self {
        let mut rows = vocab_rows.max(tokenizer.n_ids());
        let mut added = Vec::new();
        let ids = names.all().map(|(_, name)| {
            tokenizer.id(name).unwrap_or_else(|| {
                added.push((name.to_owned(), rows as u32));
                rows += 1;
                rows as u32 - 1
            })
        });
        Self {
            ids: MarkerIds { plain: ids[0], history: ids[1], candidate: ids[2] },
            names: names.all().map(|(_, name)| name.to_owned()),
            added,
            vocab_rows: rows,
        }
    }

    /// The name of a marker's id.
    pub fn name(&self, id: i64) -> Option<&str> {
        let ids = [self.ids.plain, self.ids.history, self.ids.candidate];
        let place = ids.iter().position(|&marker| i64::from(marker) == id)?;
        Some(&self.names[place])
    }
}

impl Prompts {
    /// The text of a prompt's or an answer's ids, markers by their names and without special tokens: for a run's log.
    ///
    /// # Errors
    /// When the tokenizer cannot decode the ids.
    pub fn readable(&self, tokenizer: &Tokenizer, ids: &[i64]) -> Result<String> {
        let (mut out, mut run) = (String::new(), Vec::new());
        for &id in ids {
            match self.markers().name(id) {
                Some(name) => {
                    out.push_str(&tokenizer.decode(&run, true)?);
                    run.clear();
                    out.push_str(name);
                }
                None => run.extend(u32::try_from(id).ok()),
            }
        }
        out.push_str(&tokenizer.decode(&run, true)?);
        Ok(out)
    }
}

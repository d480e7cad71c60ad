//! Asking a generator the questions of evaluation rows and judging what it says.

use anyo_core::{Error, Result};
use serde::Serialize;

use crate::{
    candidates::ChoiceRow,
    metric::{ChoiceMetrics, Judged},
    prompt::{Prompts, in_row},
    tokens::{PromptMode, PromptSource, Prompted},
};

/// One row's question and answer, one line of a JSON-lines file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The row among the data set's rows.
    pub row: usize,
    /// Index of the wording.
    pub template: usize,
    /// The item to name.
    pub target: u32,
    /// The candidates as shown.
    pub candidates: Vec<u32>,
    /// History items left out to fit the context.
    pub left_out: usize,
    /// The generated text.
    pub output: String,
    /// The candidate that the legacy rule finds.
    pub legacy_item: Option<u32>,
    /// The candidate that the robust rule finds.
    pub item: Option<u32>,
    /// Candidates that the robust rule cannot tell apart.
    pub ambiguous: Vec<u32>,
    /// Whether one candidate is named.
    pub valid: bool,
    /// Whether it is the target.
    pub correct: bool,
}

/// Generates the texts for a batch: rows and their prompts in, one text for each out.
pub type Generate<'a> = dyn FnMut(&[&ChoiceRow], &[Prompted]) -> Result<Vec<String>> + 'a;

/// Asks all rows in batches of at most `batch` prompts of like length, the longest first, and sums up.
///
/// Answers come in the order of `rows`; neither they nor the metrics depend on the batches, as far as the generator's
/// texts do not. Every row is asked (the original leaves out the last partial batch of the test rows).
///
/// # Errors
/// When a prompt does not fit (the row is named), the generator fails or returns another number of texts, or rows have
/// lists of different lengths or without their target.
pub fn evaluate_choices(
    prompts: &Prompts,
    rows: &[ChoiceRow],
    mode: PromptMode,
    batch: usize,
    generate: &mut Generate<'_>,
) -> Result<(ChoiceMetrics, Vec<Answer>)> {
    let n_candidates = rows.first().map_or(0, |row| row.candidates.len());
    let mut asked = Vec::with_capacity(rows.len());
    for row in rows {
        let target = row.candidates.iter().position(|&item| item == row.target);
        let (Some(target), true) = (target, row.candidates.len() == n_candidates) else {
            return Err(Error::invalid(format!(
                "row {}: wanted {n_candidates} candidates with the target {}, got {:?}",
                row.row, row.target, row.candidates
            )));
        };
        let prompted = prompts.choice(&row.history, &row.candidates, row.template, mode);
        asked.push((prompted.map_err(in_row(row.row))?, target));
    }
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(asked[i].0.ids.len()), i));
    let mut texts = vec![String::new(); rows.len()];
    for part in order.chunks(batch.max(1)) {
        let questions: Vec<&ChoiceRow> = part.iter().map(|&i| &rows[i]).collect();
        let batch: Vec<Prompted> = part.iter().map(|&i| asked[i].0.clone()).collect();
        let said = generate(&questions, &batch)?;
        if said.len() != part.len() {
            return Err(Error::invalid(format!("{} texts were generated for {} prompts", said.len(), part.len())));
        }
        part.iter().zip(said).for_each(|(&i, text)| texts[i] = text);
    }
    let mut answers = Vec::with_capacity(rows.len());
    let mut judged = Vec::with_capacity(rows.len());
    for ((row, (prompted, target)), output) in rows.iter().zip(&asked).zip(texts) {
        let titles: Vec<&str> = row.candidates.iter().map(|&item| prompts.titles().get(item)).collect();
        let verdict = Judged::new(&titles, &output);
        let item = |index: usize| row.candidates[index];
        let named = verdict.named();
        answers.push(Answer {
            row: row.row,
            template: row.template,
            target: row.target,
            candidates: row.candidates.clone(),
            left_out: prompted.left_out,
            legacy_item: verdict.legacy.map(item),
            item: named.map(item),
            ambiguous: verdict.found.iter().filter(|_| named.is_none()).map(|&i| item(i)).collect(),
            valid: named.is_some(),
            correct: named == Some(*target),
            output,
        });
        judged.push((verdict, *target));
    }
    Ok((ChoiceMetrics::new(n_candidates, judged.iter().map(|(verdict, target)| (verdict, *target))), answers))
}

//! The same candidates ordered by scores: what the answers in words are to be compared with.

use anyo_core::{Batch, Recommender, Result, data::Rows};
use serde_json::{Value, json};
use tch::{Device, Kind};

use crate::{candidates::ChoiceRow, likelihood::Likelihood};

/// Histories scored at once.
const ROWS: usize = 64;

/// HR@1 over the candidates of each row of `data` by the scores of `model`, and its standard error; a tie counts against the
/// target.
///
/// # Errors
/// Those of scoring.
pub(super) fn by_scores(model: &dyn Recommender, rows: &[ChoiceRow], data: &Rows) -> Result<(f64, f64)> {
    let mut hits = 0;
    for chunk in rows.chunks(ROWS) {
        let histories: Vec<&[u32]> = chunk.iter().map(|row| row.history.as_slice()).collect();
        let users: Vec<u32> = chunk.iter().map(|row| data.user(row.row)).collect();
        let scores = model.score(&Batch { users: &users, histories: &histories })?;
        let scores = scores.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
        let width = scores.size()[1] as usize;
        let scores: Vec<f32> = Vec::try_from(scores.f_view([-1])?)?;
        for (row, scores) in chunk.iter().zip(scores.chunks(width)) {
            hits += usize::from(target_first(row, scores));
        }
    }
    Ok(share(hits, rows.len()))
}

/// HR@1 of each row's likeliest candidate title, and its standard error; a tie counts against the target. Unlike an answer
/// in words it is always one of the candidates.
///
/// # Errors
/// Those of [`Likelihood::of_choices`].
pub(super) fn by_likelihood(likelihood: &Likelihood<'_>, rows: &[ChoiceRow]) -> Result<(f64, f64)> {
    let found = likelihood.of_choices(rows)?;
    let first = |(row, values): &(&ChoiceRow, &Vec<f64>)| {
        let own = row.candidates.iter().position(|&item| item == row.target);
        own.is_some_and(|own| values.iter().enumerate().all(|(at, &value)| at == own || value < values[own]))
    };
    Ok(share(rows.iter().zip(&found).filter(first).count(), rows.len()))
}

/// Whether the target scores above every other candidate.
fn target_first(row: &ChoiceRow, scores: &[f32]) -> bool {
    let own = scores[row.target as usize];
    row.candidates.iter().all(|&item| item == row.target || scores[item as usize] < own)
}

fn share(hits: usize, rows: usize) -> (f64, f64) {
    let n = rows.max(1) as f64;
    let share = hits as f64 / n;
    (share, (share * (1.0 - share) / n).sqrt())
}

/// As `choice.json` has it.
pub(super) fn to_json(found: &[(String, (f64, f64))]) -> Value {
    let entry =
        |(name, (share, error)): &(String, (f64, f64))| (name.clone(), json!({"hr@1": share, "hr@1_se": error}));
    Value::Object(found.iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;

    /// Scores every item by its number, modulo 4.
    struct Modulo;

    impl Recommender for Modulo {
        fn score(&self, batch: &Batch<'_>) -> Result<Tensor> {
            let rows: Vec<f32> =
                batch.histories.iter().flat_map(|_| (0..8u8).map(|item| f32::from(item % 4))).collect();
            Ok(Tensor::from_slice(&rows).view([-1, 8]))
        }
    }

    #[test]
    fn the_target_must_be_above_all_others() {
        let row = |target: u32, candidates: &[u32]| ChoiceRow {
            row: 0,
            history: vec![0],
            target,
            candidates: candidates.to_vec(),
            template: 0,
        };
        // 3 beats 1 and 2; 7 ties with 3; 1 loses to 2; more rows than one batch
        let mut rows = vec![row(3, &[1, 3, 2]), row(7, &[3, 7]), row(1, &[2, 1])];
        let mut data = Rows::new();
        data.push_eval(0, &[0], 3);
        let (share, error) = by_scores(&Modulo, &rows, &data).unwrap();
        assert!((share - 1.0 / 3.0).abs() < 1e-12 && (error - (2.0f64 / 27.0).sqrt()).abs() < 1e-12);
        rows = (0..100).map(|n| if n < 75 { row(2, &[1, 2]) } else { row(1, &[1, 2]) }).collect();
        assert_eq!(by_scores(&Modulo, &rows, &data).unwrap().0, 0.75);
    }
}

//! From a matrix of scores to ranked lists with distances.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::{Confidence, Lists};
use crate::{
    Error, Result,
    data::TargetIndex,
    eval::{NO_ITEM, Scratch, rank_row},
    parallel::{self, SendPtr},
};

/// Rows that one thread takes at a time.
const ROWS: usize = 16;

/// How scores become distances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distance {
    /// Best score of the row minus the score.
    ScoreGap,
    /// −log of the row's softmax.
    NegLogSoftmax,
}

impl Distance {
    /// For the manifest.
    pub fn confidence(self) -> Confidence {
        Confidence::distance(match self {
            Self::ScoreGap => "best score of the row - score",
            Self::NegLogSoftmax => "-log softmax of the row's scores",
        })
    }
}

/// Which items stand in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListRule {
    /// K.
    pub top_n: usize,
    /// Items of the history, the target aside, leave the ranking, the best score and the softmax.
    pub exclude_history: bool,
    /// `false` takes the target out of the list; its rank and distance are kept in the row.
    pub target_may_appear: bool,
    /// How scores become distances.
    pub distance: Distance,
}

/// Makes lists of blocks of scores; keeps its buffers.
#[derive(Debug)]
pub struct ListMaker<'a> {
    index: &'a TargetIndex<'a>,
    n_items: usize,
    rule: ListRule,
    scores: Vec<f32>,
}

impl<'a> ListMaker<'a> {
    /// For the targets of `index` over a catalogue of N items.
    pub fn new(index: &'a TargetIndex<'a>, n_items: usize, rule: ListRule) -> Self {
        Self { index, n_items, rule, scores: Vec::new() }
    }

    /// Lists of the targets `numbers` `[B]` from their scores `[B, N]` on any device. Equal scores stand by ascending
    /// item; the target's rank counts them against it.
    ///
    /// # Errors
    /// Scores of another shape or not finite (naming row and item), a number out of range.
    pub fn make(&mut self, scores: &Tensor, numbers: &[u32]) -> Result<Lists> {
        let (n, top_n) = (self.n_items, self.rule.top_n);
        let size = scores.size();
        if size != [numbers.len() as i64, n as i64] {
            return Err(Error::invalid(format!("scores of shape {size:?}, wanted [{}, {n}]", numbers.len())));
        }
        if let Some(&number) = numbers.iter().find(|&&number| number as usize >= self.index.len()) {
            return Err(Error::invalid(format!("row {number}: the data set has rows 0..{}", self.index.len())));
        }
        self.scores.resize(numbers.len() * n, 0.0);
        scores
            .f_detach()?
            .f_to_device(Device::Cpu)?
            .f_to_kind(Kind::Float)?
            .f_copy_data(&mut self.scores, numbers.len() * n)?;

        let rows = numbers.len();
        let mut lists = Lists {
            top_n,
            rows: numbers.to_vec(),
            items: vec![NO_ITEM; rows * top_n],
            distances: vec![f32::INFINITY; rows * top_n],
            true_ranks: vec![0; rows],
            true_distances: vec![f32::NAN; rows],
        };
        let failed: Mutex<Option<(u32, String)>> = Mutex::new(None);
        let (data, items, distances) = (
            SendPtr(self.scores.as_mut_ptr()),
            SendPtr(lists.items.as_mut_ptr()),
            SendPtr(lists.distances.as_mut_ptr()),
        );
        let (ranks, gaps) = (SendPtr(lists.true_ranks.as_mut_ptr()), SendPtr(lists.true_distances.as_mut_ptr()));
        let (index, rule) = (self.index, self.rule);
        parallel::for_each_part(rows.div_ceil(ROWS), |part| {
            let (mut scratch, mut top) =
                (Scratch::default(), vec![NO_ITEM; top_n + usize::from(!rule.target_may_appear)]);
            for (i, &number) in numbers.iter().enumerate().skip(part * ROWS).take(ROWS) {
                // SAFETY: each row is visited by one part, and its slices lie inside the vectors above.
                let (line, list, far) = unsafe {
                    (
                        std::slice::from_raw_parts_mut(data.at(i * n), n),
                        std::slice::from_raw_parts_mut(items.at(i * top_n), top_n),
                        std::slice::from_raw_parts_mut(distances.at(i * top_n), top_n),
                    )
                };
                match one(line, (index, number), rule, &mut top, &mut scratch, (list, far)) {
                    // SAFETY: as above.
                    Ok((rank, distance)) => unsafe { (*ranks.at(i), *gaps.at(i)) = (rank, distance) },
                    Err(why) => {
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        if failed.as_ref().is_none_or(|(row, _)| *row > number) {
                            *failed = Some((number, why));
                        }
                    }
                }
            }
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((row, why)) => Err(Error::Run {
                message: format!("row {row}: {why}"),
                hint: Some("the teacher's weights hold NaN or infinity, or it masks items with -inf".into()),
            }),
            None => Ok(lists),
        }
    }
}

/// One row: fills list and distances, returns rank and distance of the target.
fn one(
    scores: &mut [f32],
    (index, number): (&TargetIndex<'_>, u32),
    rule: ListRule,
    top: &mut [u32],
    scratch: &mut Scratch,
    (items, distances): (&mut [u32], &mut [f32]),
) -> std::result::Result<(u32, f32), String> {
    let n_items = scores.len();
    let (history, target) = (index.history(number as usize), index.target(number as usize).unwrap_or(NO_ITEM));
    if let Some(item) = history.iter().chain([&target]).find(|&&item| item as usize >= n_items) {
        return Err(format!("it holds item {item}, but the catalogue has items 0..{n_items}"));
    }
    let rank = rank_row(scores, target, history, rule.exclude_history, top, scratch)
        .map_err(|bad| format!("the score of item {} is {}, but must be finite", bad.item, bad.score))?;
    let wanted = scores[target as usize];
    // the target may lead without being in the list
    let best = top.first().filter(|&&item| item != NO_ITEM).map_or(wanted, |&item| scores[item as usize].max(wanted));
    let log_sum = match rule.distance {
        Distance::ScoreGap => 0.0,
        // items that left stand at -inf and add nothing
        Distance::NegLogSoftmax => scores.iter().map(|&score| f64::from((score - best).exp())).sum::<f64>().ln(),
    };
    let distance = |score: f32| match rule.distance {
        Distance::ScoreGap => best - score,
        Distance::NegLogSoftmax => (f64::from(best) - f64::from(score) + log_sum).max(0.0) as f32,
    };
    let kept = top.iter().filter(|&&item| item != NO_ITEM && (rule.target_may_appear || item != target));
    for ((&item, place), far) in kept.zip(items).zip(distances) {
        (*place, *far) = (item, distance(scores[item as usize]));
    }
    Ok((if rule.exclude_history { rank.excluded } else { rank.kept }, distance(wanted)))
}

//! Ranks every row with a [`Recommender`]: batches of similar length, one pass over the scores, memory flat with N.

use std::thread;

use tch::Kind;

use super::{
    EvalConfig, NO_ITEM, Ranking,
    scan::{BadScore, RowRank, Scratch, rank_row},
};
use crate::{
    Batch, Error, Recommender, Result,
    config::{Problem, Report},
    data::Rows,
};

/// Scores held at once, 128 MiB in f32; a batch has fewer rows when the catalogue is large.
const MAX_SCORES: usize = 1 << 25;

/// Ranks the last item of every row among all `n_items`, after the row's other items.
///
/// Rows are scored from the longest history to the shortest, so that a model can trim to the longest of a batch and the
/// largest batch comes first; the result is in the order of `rows`. No gradients are recorded. `watch` hears after
/// every batch how many rows are done, and ends the ranking by returning an error (a stop signal, say).
///
/// # Errors
/// [`Error::Config`] with keys below `eval` when a K or another option is out of range; [`Error::Invalid`] when there
/// are no rows, a row names an item outside the catalogue, or the scores have another shape than `[B, N]`;
/// [`Error::Run`] when a score is NaN or infinite, naming row, user and item; whatever `recommender` or `watch` return.
pub fn rank_rows(
    recommender: &dyn Recommender,
    rows: &Rows,
    n_items: usize,
    config: &EvalConfig,
    watch: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Ranking> {
    check(rows, n_items, config)?;
    let top_k = config.ks.iter().copied().max().unwrap_or(1);
    let mut ranking = empty(rows, n_items, config.exclude_history, top_k);
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&row| std::cmp::Reverse(rows.items(row).len()));

    let _no_grad = tch::no_grad_guard();
    let threads = tch::get_num_threads().max(1) as usize;
    let mut scratches: Vec<Scratch> = (0..threads).map(|_| Scratch::default()).collect();
    let mut scores = Vec::new();
    let mut done = 0;
    for batch in order.chunks(config.batch_size.min((MAX_SCORES / n_items).max(1))) {
        let users: Vec<u32> = batch.iter().map(|&row| rows.user(row)).collect();
        let histories: Vec<&[u32]> = batch.iter().map(|&row| rows.history(row)).collect();
        score(recommender, &Batch { users: &users, histories: &histories }, n_items, &mut scores)?;
        let found = rank_batch(&mut scores, rows, batch, &ranking, &mut scratches)?;
        for (i, &row) in batch.iter().enumerate() {
            let RowRank { kept, excluded } = found.ranks[i];
            let (rank, other) = if config.exclude_history { (excluded, kept) } else { (kept, excluded) };
            (ranking.ranks[row], ranking.other_ranks[row]) = (rank, other);
            ranking.top[row * top_k..(row + 1) * top_k].copy_from_slice(&found.top[i * top_k..(i + 1) * top_k]);
        }
        done += batch.len();
        watch(done)?;
    }
    Ok(ranking)
}

fn check(rows: &Rows, n_items: usize, config: &EvalConfig) -> Result<()> {
    let mut problems = config.problems_for(n_items);
    if !problems.is_empty() {
        for Problem { key, .. } in &mut problems {
            *key = format!("eval.{key}");
        }
        return Err(Error::Config(Report { problems }));
    }
    if rows.is_empty() {
        return Err(Error::Invalid {
            message: "there are no rows to evaluate".to_owned(),
            hint: Some("the split left this part empty; use more data or another split".to_owned()),
        });
    }
    for row in 0..rows.len() {
        if let Some(item) = rows.items(row).iter().find(|&&item| item as usize >= n_items) {
            return Err(Error::Invalid {
                message: format!("row {row} has item {item}, but the catalogue has items 0..{n_items}"),
                hint: Some("rows and catalogue come from different data sets".to_owned()),
            });
        }
    }
    Ok(())
}

fn empty(rows: &Rows, n_items: usize, exclude_history: bool, top_k: usize) -> Ranking {
    let all = 0..rows.len();
    Ranking {
        exclude_history,
        n_items,
        ranks: vec![0; rows.len()],
        other_ranks: vec![0; rows.len()],
        targets: all.clone().map(|row| rows.target(row)).collect(),
        users: all.clone().map(|row| rows.user(row)).collect(),
        history_len: all.map(|row| rows.history(row).len() as u32).collect(),
        top_k,
        top: vec![NO_ITEM; rows.len() * top_k],
    }
}

/// Fills `scores` with the model's `[B, N]`; the buffer is kept between batches.
fn score(recommender: &dyn Recommender, batch: &Batch<'_>, n_items: usize, scores: &mut Vec<f32>) -> Result<()> {
    let tensor = recommender.score(batch)?;
    let want = [batch.histories.len() as i64, n_items as i64];
    if tensor.size() != want {
        return Err(Error::Invalid {
            message: format!("the model gave scores of shape {:?}, the evaluator needs {want:?}", tensor.size()),
            hint: Some("the model was made for another catalogue; use the data set that it was trained on".to_owned()),
        });
    }
    let n = batch.histories.len() * n_items;
    scores.resize(n, 0.0);
    tensor.f_to_kind(Kind::Float)?.f_copy_data(scores, n)?;
    Ok(())
}

struct Found {
    /// `[B]`
    ranks: Vec<RowRank>,
    /// `[B · K]`
    top: Vec<u32>,
}

/// Ranks `scores` `[B, N]`, the rows shared out among threads, one for each scratch.
fn rank_batch(
    scores: &mut [f32],
    rows: &Rows,
    batch: &[usize],
    ranking: &Ranking,
    scratches: &mut [Scratch],
) -> Result<Found> {
    let &Ranking { n_items, top_k, exclude_history, .. } = ranking;
    let mut found = Found { ranks: vec![RowRank::default(); batch.len()], top: vec![NO_ITEM; batch.len() * top_k] };
    let share = batch.len().div_ceil(scratches.len());
    let outcomes: Vec<_> = thread::scope(|scope| {
        let mut handles = Vec::new();
        let parts = batch.chunks(share).zip(scores.chunks_mut(share * n_items)).zip(scratches);
        let outs = found.ranks.chunks_mut(share).zip(found.top.chunks_mut(share * top_k));
        for (((batch, scores), scratch), (ranks, tops)) in parts.zip(outs) {
            handles.push(scope.spawn(move || {
                let lines = scores.chunks_exact_mut(n_items).zip(tops.chunks_exact_mut(top_k));
                for ((&row, rank), (line, top)) in batch.iter().zip(ranks).zip(lines) {
                    let (target, history) = (rows.target(row), rows.history(row));
                    *rank = rank_row(line, target, history, exclude_history, top, scratch).map_err(|bad| (row, bad))?;
                }
                Ok(())
            }));
        }
        handles.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    for outcome in outcomes {
        let outcome =
            outcome.map_err(|_| Error::Run { message: "a ranking thread panicked".to_owned(), hint: None })?;
        outcome.map_err(|(row, bad)| bad_score(row, rows.user(row), bad))?;
    }
    Ok(found)
}

fn bad_score(row: usize, user: u32, BadScore { item, score }: BadScore) -> Error {
    Error::Run {
        message: format!("the score of item {item} for row {row} (user {user}) is {score}, but must be finite"),
        hint: Some(
            "the weights hold NaN or infinity (try a lower learning rate or gradient clipping), or the model masks \
             items with -inf"
                .to_owned(),
        ),
    }
}

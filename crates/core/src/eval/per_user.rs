//! `metrics/per_user.parquet`: one line per row, for tests of significance and for looking at single users.

use std::path::Path;

use super::{Comparison, Evaluation, Metric};
use crate::{
    Error, Result,
    data::{Column, Dataset, write_parquet},
};

/// Writes one line per evaluated row, in row order: `row`, `user` and `target` (ids of the source), `history_len`,
/// `rank` (and with `report_both` the rank under the other choice, `rank_history_removed` or `rank_history_kept`), `hr@K`, `ndcg@K` and `mrr@K` for every K, and the recommended
/// ids `item_0`, `item_1`, …, best first, null where no item is left.
///
/// With one relevant item recall equals the hit ratio and is not repeated.
///
/// # Errors
/// [`Error::Invalid`] when `dataset` does not know the users or items; [`Error::Io`] when `path` cannot be written.
pub fn write_per_user(path: &Path, evaluation: &Evaluation, dataset: &Dataset) -> Result<()> {
    let ranking = &evaluation.ranking;
    let item = |&item: &u32| item_id(dataset, item);
    let at = |place: usize| (0..ranking.len()).map(move |row| ranking.top(row).get(place).map(item).transpose());

    let mut columns = rows_of(evaluation, dataset)?;
    columns.push(("history_len".to_owned(), Column::U32(ranking.history_len.clone())));
    columns.push(("rank".to_owned(), Column::U32(ranking.ranks.clone())));
    if evaluation.other.is_some() {
        let name = if ranking.exclude_history { "rank_history_kept" } else { "rank_history_removed" };
        columns.push((name.to_owned(), Column::U32(ranking.other_ranks.clone())));
    }
    for k in evaluation.beyond.iter().map(|beyond| beyond.k) {
        for metric in [Metric::HitRatio, Metric::Ndcg, Metric::Mrr] {
            let values = ranking.ranks.iter().map(|&rank| metric.value(rank, k) as f32).collect();
            columns.push((metric.key(k), Column::F32(values)));
        }
    }
    for place in 0..ranking.top_k {
        columns.push((format!("item_{place}"), Column::TextOrNull(at(place).collect::<Result<_>>()?)));
    }
    write_parquet(path, columns)
}

/// Writes the ranks of every recommender but the first, one line per evaluated row: `row`, `user`, `target` as in
/// [`write_per_user`], and `rank:NAME` for each. Without others no file is written.
///
/// # Errors
/// As [`write_per_user`].
pub fn write_other_ranks(path: &Path, comparison: &Comparison, dataset: &Dataset) -> Result<()> {
    let Some(((_, first), others)) = comparison.rows().split_first().filter(|(_, others)| !others.is_empty()) else {
        return Ok(());
    };
    let mut columns = rows_of(first, dataset)?;
    for (name, evaluation) in others {
        columns.push((format!("rank:{name}"), Column::U32(evaluation.ranking.ranks.clone())));
    }
    write_parquet(path, columns)
}

/// Columns `row`, `user` and `target`.
fn rows_of(evaluation: &Evaluation, dataset: &Dataset) -> Result<Vec<(String, Column)>> {
    let ranking = &evaluation.ranking;
    let user = |&user: &u32| dataset.users.get(user as usize).cloned().ok_or_else(|| unknown(dataset, "user", user));
    let targets: Result<_> = ranking.targets.iter().map(|&item| item_id(dataset, item)).collect();
    Ok(vec![
        ("row".to_owned(), Column::U32((0..ranking.len() as u32).collect())),
        ("user".to_owned(), Column::Text(ranking.users.iter().map(user).collect::<Result<_>>()?)),
        ("target".to_owned(), Column::Text(targets?)),
    ])
}

fn item_id(dataset: &Dataset, item: u32) -> Result<String> {
    let found = dataset.items.get(item as usize).ok_or_else(|| unknown(dataset, "item", item))?;
    Ok(found.id.clone())
}

fn unknown(dataset: &Dataset, what: &str, id: u32) -> Error {
    Error::Invalid {
        message: format!("{what} {id} is not in data set {}", dataset.name),
        hint: Some("the ranking was made with another data set".to_owned()),
    }
}

//! `metrics/per_user.parquet`: one line per row, for tests of significance and for looking at single users.

use std::path::Path;

use super::{Evaluation, Metric};
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
    let unknown = |what: &str, id: u32| Error::Invalid {
        message: format!("{what} {id} is not in data set {}", dataset.name),
        hint: Some("the ranking was made with another data set".to_owned()),
    };
    let user = |&user: &u32| Ok(dataset.users.get(user as usize).ok_or_else(|| unknown("user", user))?.clone());
    let item = |&item: &u32| Ok(dataset.items.get(item as usize).ok_or_else(|| unknown("item", item))?.id.clone());
    let at = |place: usize| (0..ranking.len()).map(move |row| ranking.top(row).get(place).map(item).transpose());

    let mut columns = vec![
        ("row".to_owned(), Column::U32((0..ranking.len() as u32).collect())),
        ("user".to_owned(), Column::Text(ranking.users.iter().map(user).collect::<Result<_>>()?)),
        ("target".to_owned(), Column::Text(ranking.targets.iter().map(item).collect::<Result<_>>()?)),
        ("history_len".to_owned(), Column::U32(ranking.history_len.clone())),
        ("rank".to_owned(), Column::U32(ranking.ranks.clone())),
    ];
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

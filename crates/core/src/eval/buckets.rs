//! Metrics by popularity of the target and by length of the history.

use super::{EvalConfig, Ranking, Summary};

/// The metrics of one group of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Bucket {
    /// `head`, `mid`, `tail`, `unseen`, or a range of lengths such as `11-50`.
    pub name: String,
    /// The metrics; a bucket without rows has zeros and `n_rows` 0.
    pub summary: Summary,
}

/// Names of the popularity buckets for a number of cuts: `head, tail` for one, `head, mid, tail` for two, numbered
/// middles for more; `unseen` (never in training) always comes last.
pub fn popularity_bucket_names(n_cuts: usize) -> Vec<String> {
    let mut names = vec!["head".to_owned()];
    match n_cuts {
        0 => {}
        1 => names.push("tail".to_owned()),
        2 => names.extend(["mid", "tail"].map(str::to_owned)),
        _ => {
            names.extend((1..n_cuts).map(|i| format!("mid{i}")));
            names.push("tail".to_owned());
        }
    }
    names.push("unseen".to_owned());
    names
}

/// The popularity bucket of every item, an index into [`popularity_bucket_names`], `[n_items]`.
///
/// Items are ordered by how often they occur in training. An item belongs to the first bucket whose cut lies above the
/// share of interactions that fall on strictly more popular items; so equally popular items share a bucket and the
/// most popular item is always in the head. Items that never occur are `unseen`.
pub fn popularity_bucket_of_items(train_counts: &[u64], cuts: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..train_counts.len()).collect();
    order.sort_by(|&a, &b| train_counts[b].cmp(&train_counts[a]));
    let total = train_counts.iter().sum::<u64>() as f64;
    let mut bucket = vec![cuts.len() + 1; train_counts.len()];
    let (mut above, mut seen, mut last) = (0, 0, None);
    for item in order {
        let count = train_counts[item];
        if count == 0 {
            break;
        }
        if last != Some(count) {
            (above, last) = (seen, Some(count));
        }
        seen += count;
        let share = above as f64 / total;
        bucket[item] = cuts.iter().position(|&cut| share < cut).unwrap_or(cuts.len());
    }
    bucket
}

/// Names of the length buckets, such as `0-10`, `11-50`, `51+`.
pub fn length_bucket_names(bounds: &[usize]) -> Vec<String> {
    let starts = std::iter::once(0).chain(bounds.iter().map(|&bound| bound + 1));
    starts
        .enumerate()
        .map(|(i, start)| bounds.get(i).map_or(format!("{start}+"), |end| format!("{start}-{end}")))
        .collect()
}

/// Metrics by popularity of the target; empty without cuts.
pub(crate) fn by_popularity(
    ranking: &Ranking,
    train_counts: &[u64],
    config: &EvalConfig,
    seed: u64,
    threads: usize,
) -> Vec<Bucket> {
    if config.popularity_buckets.is_empty() {
        return Vec::new();
    }
    let of_item = popularity_bucket_of_items(train_counts, &config.popularity_buckets);
    let of_row = ranking.targets.iter().map(|&target| of_item[target as usize]);
    group(ranking, of_row, popularity_bucket_names(config.popularity_buckets.len()), config, seed, threads)
}

/// Metrics by length of the history; empty without bounds.
pub(crate) fn by_length(ranking: &Ranking, config: &EvalConfig, seed: u64, threads: usize) -> Vec<Bucket> {
    let bounds = &config.length_buckets;
    if bounds.is_empty() {
        return Vec::new();
    }
    let of_row = ranking.history_len.iter().map(|&len| bounds.partition_point(|&bound| bound < len as usize));
    group(ranking, of_row, length_bucket_names(bounds), config, seed, threads)
}

fn group(
    ranking: &Ranking,
    bucket_of_row: impl Iterator<Item = usize>,
    names: Vec<String>,
    config: &EvalConfig,
    seed: u64,
    threads: usize,
) -> Vec<Bucket> {
    let mut rows = vec![(Vec::new(), Vec::new()); names.len()];
    for (row, bucket) in bucket_of_row.enumerate() {
        rows[bucket].0.push(ranking.ranks[row]);
        rows[bucket].1.push(ranking.users[row]);
    }
    let bucket = |(name, (ranks, users)): (String, (Vec<u32>, Vec<u32>))| Bucket {
        name,
        summary: Summary::new(&ranks, &users, config, seed, threads),
    };
    names.into_iter().zip(rows).map(bucket).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::config::tests::config;

    #[test]
    fn popularity_by_hand() {
        // of 20: item 2 has 10, items 0 and 4 have 4 each, item 1 has 2, item 3 none
        let counts = [4, 2, 10, 0, 4];
        // strictly more popular: item 2 0, items 0 and 4 0.5, item 1 0.9
        assert_eq!(popularity_bucket_of_items(&counts, &[0.5, 0.8]), [1, 2, 0, 3, 1]);
        assert_eq!(popularity_bucket_of_items(&counts, &[0.6]), [0, 1, 0, 2, 0]);
        assert_eq!(popularity_bucket_of_items(&[0, 0], &[0.5]), [2, 2]);
        assert_eq!(popularity_bucket_names(2), ["head", "mid", "tail", "unseen"]);
        assert_eq!(popularity_bucket_names(1), ["head", "tail", "unseen"]);
        assert_eq!(popularity_bucket_names(3), ["head", "mid1", "mid2", "tail", "unseen"]);
    }

    #[test]
    fn rows_fall_into_their_buckets() {
        let ranking = Ranking {
            n_items: 5,
            ranks: vec![1, 2, 1, 9],
            users: vec![0, 1, 2, 3],
            targets: vec![2, 0, 3, 4],
            history_len: vec![0, 1, 2, 4],
            ..Ranking::default()
        };
        let config = config(&[1]);
        let figures = |buckets: Vec<Bucket>| -> Vec<(String, usize, f64)> {
            let one = |b: Bucket| (b.name, b.summary.n_rows, b.summary.value("hr@1").unwrap());
            buckets.into_iter().map(one).collect()
        };
        let named = |name: &str, rows, hr| (name.to_owned(), rows, hr);
        assert_eq!(
            figures(by_popularity(&ranking, &[4, 2, 10, 0, 4], &config, 1, 1)),
            [named("head", 1, 1.0), named("mid", 2, 0.0), named("tail", 0, 0.0), named("unseen", 1, 1.0)]
        );
        // bounds 1 and 3
        assert_eq!(
            figures(by_length(&ranking, &config, 1, 1)),
            [named("0-1", 2, 0.5), named("2-3", 1, 1.0), named("4+", 1, 0.0)]
        );
        assert!(by_popularity(&ranking, &[], &config.for_selection(), 1, 1).is_empty());
        assert!(by_length(&ranking, &config.for_selection(), 1, 1).is_empty());
    }
}

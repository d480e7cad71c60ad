//! Rankings published by others, scored by the evaluator: the figures are known (`../shared/data`, skipped without it).
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use anyo_core::{
    Batch, Recommender, Result,
    data::Rows,
    eval::{Catalogue, EvalConfig, Evaluation, evaluate},
};
use tch::Tensor;

/// Recommends a fixed list to each user: the first item scores best, items outside the list score 0.
struct Lists {
    n_items: usize,
    lists: HashMap<u32, Vec<u32>>,
}

impl Recommender for Lists {
    fn score(&self, batch: &Batch<'_>) -> Result<Tensor> {
        let mut scores = vec![0f32; batch.users.len() * self.n_items];
        for (row, user) in scores.chunks_exact_mut(self.n_items).zip(batch.users) {
            for (place, &item) in self.lists[user].iter().enumerate() {
                row[item as usize] = 1000.0 - place as f32;
            }
        }
        Ok(Tensor::from_slice(&scores).view([batch.users.len() as i64, -1]))
    }
}

fn folder(name: &str) -> Option<PathBuf> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")).join(name);
    if !folder.is_dir() {
        eprintln!("skipped: {} is not there", folder.display());
        return None;
    }
    Some(folder)
}

/// `user TAB items` lines as numbers.
fn lines(path: &Path) -> Vec<(u32, Vec<u32>)> {
    let text = fs::read_to_string(path).unwrap();
    let line = |line: &str| {
        let (user, items) = line.split_once('\t').unwrap();
        (user.parse().unwrap(), items.split(' ').map(|item| item.parse().unwrap()).collect())
    };
    text.lines().map(line).collect()
}

fn score(folder: &Path, lists: &str) -> Evaluation {
    let sequences = lines(&folder.join("sequences.tsv"));
    let lists: HashMap<u32, Vec<u32>> = lines(&folder.join(lists)).into_iter().collect();
    let n_items = sequences.iter().flat_map(|(_, items)| items).max().map(|&max| max as usize + 1).unwrap();
    let mut counts = vec![0; n_items];
    let mut rows = Rows::new();
    for (user, items) in &sequences {
        items[..items.len() - 2].iter().for_each(|&item| counts[item as usize] += 1);
        if lists.contains_key(user) {
            rows.push_eval(*user, &items[..items.len() - 1], items[items.len() - 1]);
        }
    }
    let config = EvalConfig {
        ks: vec![10],
        exclude_history: false,
        report_both: false,
        batch_size: 256,
        bootstrap: 1000,
        confidence: 0.95,
        per_user: true,
        popularity_buckets: vec![0.5, 0.8],
        length_buckets: Vec::new(),
    };
    let catalogue = Catalogue { n_items, train_counts: &counts, protocol: "leave_one_out" };
    let evaluation = evaluate(&Lists { n_items, lists }, &rows, catalogue, &config, 42).unwrap();
    for bucket in &evaluation.by_popularity {
        eprintln!("{}: {} rows, hr@10 {:?}", bucket.name, bucket.summary.n_rows, bucket.summary.value("hr@10"));
    }
    evaluation
}

fn assert_published(evaluation: &Evaluation, hr: f64, ndcg: f64) {
    for (key, want) in [("hr@10", hr), ("ndcg@10", ndcg)] {
        let estimate = evaluation.summary.get(key).unwrap();
        assert!((estimate.value - want).abs() < 5.1e-5, "{key} {} instead of {want}", estimate.value);
        let [low, high] = estimate.interval.unwrap();
        let half = 1.96 * estimate.standard_error.unwrap();
        assert!((low - (want - half)).abs() < 0.1 * half && (high - (want + half)).abs() < 0.1 * half);
    }
}

#[test]
fn movielens_1m_lists_of_a_public_sasrec() {
    let Some(folder) = folder("movielens-1m") else { return };
    let evaluation = score(&folder, "sasrec_top100.tsv");
    assert_eq!(evaluation.summary.n_users, 6040);
    assert_published(&evaluation, 0.2945, 0.1724);
}

#[test]
fn amazon_games_lists_of_a_public_sasrec() {
    let Some(folder) = folder("amazon-games-llmrank") else { return };
    let evaluation = score(&folder, "sasrec_top100_6k.tsv");
    assert_eq!(evaluation.summary.n_users, 6000);
    assert_published(&evaluation, 0.0982, 0.0493);
}

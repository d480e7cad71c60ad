//! Bundles written, killed, damaged and read; lists by hand; files of others.

mod damage;
mod from_outside;
mod resume;

use std::{path::Path, time::Duration};

use tch::{Kind, Tensor};

use super::*;
use crate::data::{Dataset, Item, Rows, TargetIndex};

/// 3 users, 8 items, 7 training targets: 0..3 of user 0, 3..6 of user 1, 6 of user 2.
pub(super) fn dataset() -> Dataset {
    let (mut train, mut valid) = (Rows::new(), Rows::new());
    train.push(0, [0, 1, 2, 3], 1);
    train.push(1, [7, 6, 5, 4], 1);
    train.push(2, [2, 4], 1);
    valid.push_eval(0, &[0, 1, 2, 3], 4);
    valid.push_eval(1, &[7, 6, 5, 4], 1);
    Dataset {
        name: "small".into(),
        items: (0..8).map(|i| Item { id: (i + 100).to_string(), title: String::new(), text: String::new() }).collect(),
        users: ["ann", "bob", "cid"].map(str::to_owned).to_vec(),
        train,
        test: valid.clone(),
        valid,
        train_counts: vec![1; 8],
        train_order: Vec::new(),
        hash: "d".repeat(64),
        items_hash: "1".repeat(64),
        provenance: serde_json::Value::Null,
        protocol: String::new(),
    }
}

pub(super) fn spec(dataset: &Dataset) -> Spec {
    Spec {
        dataset: DatasetIdentity::of(dataset, Position::Train),
        position: Position::Train,
        top_n: 3,
        exclude_history: false,
        target_may_appear: true,
        confidence: Distance::ScoreGap.confidence(),
        teacher: Teacher { name: "test".into(), config: serde_json::json!({"lr": 0.1, "deep": [1, 2.5e-7]}) },
        selection: serde_json::Value::Null,
    }
}

pub(super) const NEVER: Flush = Flush { rows: usize::MAX, time: Duration::MAX };
pub(super) const EACH: Flush = Flush { rows: 1, time: Duration::MAX };

/// A list for a row that depends on the row only.
pub(super) fn list_of(row: u32) -> Lists {
    let mut lists = Lists::new(3);
    let items = [row % 8, (row + 3) % 8, (row + 5) % 8];
    lists.push(row, &items, &[0.0, 0.5 + row as f32, 9.25], Some((2, 0.5)));
    lists
}

pub(super) fn vectors() -> Tensor {
    Tensor::arange(8 * 2, (Kind::Float, tch::Device::Cpu)).view([8, 2]) / 7.0
}

/// A whole bundle, its batches in this order of rows.
pub(super) fn write(folder: &Path, order: &[u32]) -> Manifest {
    let dataset = dataset();
    let Opened::Writer(mut writer) = BundleWriter::open(folder, &spec(&dataset), NEVER).unwrap() else { panic!() };
    for &row in order {
        writer.push(&list_of(row)).unwrap();
    }
    writer.finish(Some(&vectors()), &dataset).unwrap()
}

#[test]
fn what_was_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("b");
    let manifest = write(&folder, &[4, 2, 0, 6, 1, 3, 5]);
    let bundle = Bundle::open_for_training(&folder, &dataset(), Wanted::ALL).unwrap();
    assert_eq!((bundle.manifest(), bundle.n_labelled(), bundle.n_missing()), (&manifest, 7, 0));
    assert_eq!(bundle.rankings(4), Some((&[4, 7, 1][..], &[0.0, 4.5, 9.25][..])));
    assert_eq!((bundle.true_rank(4), bundle.rankings(7)), (Some((2, 0.5)), None));
    assert_eq!(bundle.item_embeddings().unwrap(), &vectors());
    assert!(!dir.path().join("b.part").exists());
    bundle.require(0..7).unwrap();
    let error = bundle.require(5..9).unwrap_err().to_string();
    assert!(error.contains("2 rows have no teacher output: rows 7, 8"), "{error}");
}

#[test]
fn files_that_are_not_wanted_are_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("b");
    write(&folder, &[0, 1, 2, 3, 4, 5, 6]);
    std::fs::remove_file(folder.join(EMBEDDINGS_FILE)).unwrap();
    let lists = Wanted { rankings: true, embeddings: false };
    let bundle = Bundle::open_for_training(&folder, &dataset(), lists).unwrap();
    assert!(bundle.rankings(0).is_some() && bundle.item_embeddings().is_err());
    std::fs::remove_file(folder.join(RANKINGS_FILE)).unwrap();
    Bundle::open_for_training(&folder, &dataset(), Wanted { rankings: false, embeddings: false }).unwrap();
    assert!(Bundle::open(&folder, None).is_err());
}

#[test]
fn some_rows_only_must_be_said() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, dataset) = (dir.path().join("b"), dataset());
    let Opened::Writer(mut writer) = BundleWriter::open(&folder, &spec(&dataset), NEVER).unwrap() else { panic!() };
    writer.push(&list_of(3)).unwrap();
    let error = writer.finish(None, &dataset).unwrap_err().to_string();
    assert!(error.contains("1 of 7 rows have a list; the first without is row 0"), "{error}");
    std::fs::remove_dir_all(dir.path().join("b.part")).unwrap();
    let spec = Spec { selection: serde_json::json!({"how": "random", "budget": 1}), ..spec(&dataset) };
    let Opened::Writer(mut writer) = BundleWriter::open(&folder, &spec, NEVER).unwrap() else { panic!() };
    writer.push(&list_of(3)).unwrap();
    writer.finish(None, &dataset).unwrap();
    let bundle = Bundle::open(&folder, Some(&dataset)).unwrap();
    assert_eq!(bundle.missing().collect::<Vec<_>>(), [0, 1, 2, 4, 5, 6]);
    assert!(bundle.rankings(2).is_none() && bundle.rankings(3).is_some());
    assert!(bundle.item_embeddings().unwrap_err().to_string().contains("no item vectors"));
    let error = Bundle::open_for_training(&folder, &dataset, Wanted::ALL).unwrap_err();
    assert!(error.to_string().contains("no item vectors"), "{error}");
}

/// Scores by hand: row 2 (history 0 1 2, target 3), row 6 (history 2, target 4).
#[test]
fn lists_of_scores_by_hand() {
    let dataset = dataset();
    let index = TargetIndex::new(&dataset.train);
    let scores = Tensor::from_slice2(&[[9.0f32, 1., 2., 5., 7., 7., 0., -1.], [0., 1., 8., 3., 4., 2., -1., -2.]]);
    let make = |exclude_history, target_may_appear, distance| {
        let rule = ListRule { top_n: 3, exclude_history, target_may_appear, distance };
        ListMaker::new(&index, 8, rule).make(&scores, &[2, 6]).unwrap()
    };
    let kept = make(false, true, Distance::ScoreGap);
    assert_eq!(kept.items, [0, 4, 5, 2, 4, 3]);
    assert_eq!(kept.distances, [0., 2., 2., 0., 4., 5.]);
    assert_eq!((&kept.true_ranks[..], &kept.true_distances[..]), (&[4, 2][..], &[4., 4.][..]));
    let removed = make(true, true, Distance::ScoreGap);
    assert_eq!(removed.items, [4, 5, 3, 4, 3, 5]);
    assert_eq!(removed.distances, [0., 0., 2., 0., 1., 2.]);
    assert_eq!((&removed.true_ranks[..], &removed.true_distances[..]), (&[3, 1][..], &[2., 0.][..]));
    // the target of row 6 leads and is left out: the list starts at its distance from it
    let without = make(true, false, Distance::ScoreGap);
    assert_eq!((&without.items[..], &without.distances[3..]), (&[4, 5, 6, 3, 5, 1][..], &[1., 2., 3.][..]));
    // −log softmax over what stays: scores 5 7 7 0 −1 of row 2
    let soft = make(true, true, Distance::NegLogSoftmax);
    let sum: f64 = [5f64, 7., 7., 0., -1.].iter().map(|s| s.exp()).sum();
    for (got, score) in soft.distances[..3].iter().zip([7f64, 7., 5.]) {
        assert!((f64::from(*got) - (sum.ln() - score)).abs() < 1e-6, "{got}");
    }
    assert!((f64::from(soft.true_distances[0]) - (sum.ln() - 5.0)).abs() < 1e-6);
}

#[test]
fn short_lists_and_bad_scores() {
    let dataset = dataset();
    let index = TargetIndex::new(&dataset.train);
    let rule = ListRule { top_n: 7, exclude_history: true, target_may_appear: true, distance: Distance::ScoreGap };
    let scores = Tensor::arange(8, (Kind::Float, tch::Device::Cpu)).view([1, 8]);
    let lists = ListMaker::new(&index, 8, rule).make(&scores, &[2]).unwrap();
    assert_eq!(list_len(&lists.items), 5);
    assert_eq!(lists.items[..5], [7, 6, 5, 4, 3]);
    let nan = Tensor::from_slice(&[0f32, 1., f32::NAN, 0., 0., 0., 0., 0.]).view([1, 8]);
    let error = ListMaker::new(&index, 8, rule).make(&nan, &[2]).unwrap_err().to_string();
    assert!(error.contains("row 2: the score of item 2 is NaN"), "{error}");
    assert!(ListMaker::new(&index, 8, rule).make(&scores.view([8, 1]), &[2]).is_err());
    assert!(ListMaker::new(&index, 8, rule).make(&scores, &[7]).is_err());
}

/// `cargo test -p anyo-core --features data,torch bundle::tests::as_large -- --ignored --nocapture` prints times.
#[test]
#[ignore = "a figure, not a check: 980,000 rows of 20 items"]
fn as_large_as_movielens_1m() {
    const ROWS: usize = 980_000;
    let mut dataset = dataset();
    dataset.items = (0..3706).map(|i| Item { id: i.to_string(), title: String::new(), text: String::new() }).collect();
    dataset.train = Rows::new();
    for user in 0..ROWS as u32 / 140 {
        dataset.train.push(user, (0..141).map(|i| (user + i * 7) % 3706), 1);
    }
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("b");
    let spec = Spec { top_n: 20, ..spec(&dataset) };
    let started = std::time::Instant::now();
    let flush = Flush { rows: 100_000, time: Duration::MAX };
    let Opened::Writer(mut writer) = BundleWriter::open(&folder, &spec, flush).unwrap() else { panic!() };
    for from in (0..ROWS as u32).step_by(4900) {
        let mut lists = Lists::new(20);
        for row in from..from + 4900 {
            let items: Vec<u32> = (0..20).map(|k| (row.wrapping_mul(2_654_435_761) % 3706 + k * 185) % 3706).collect();
            let distances: Vec<f32> = (0..20).map(|k| k as f32 * (1.0 + (row % 977) as f32)).collect();
            lists.push(row, &items, &distances, Some((1 + row % 3706, 1.0)));
        }
        writer.push(&lists).unwrap();
    }
    let pushed = started.elapsed().as_secs_f64();
    let vectors = Tensor::ones([3706, 64], (Kind::Float, tch::Device::Cpu));
    writer.finish(Some(&vectors), &dataset).unwrap();
    let (finished, started) = (started.elapsed().as_secs_f64() - pushed, std::time::Instant::now());
    let bundle = Bundle::open_for_training(&folder, &dataset, Wanted::ALL).unwrap();
    let (opened, started) = (started.elapsed().as_secs_f64(), std::time::Instant::now());
    let sum: usize = (0..ROWS).map(|row| bundle.rankings(row).map_or(0, |(items, _)| items.len())).sum();
    let (looked, peak) = (started.elapsed().as_secs_f64(), crate::memory::peak_rss_bytes() / 1_000_000);
    let bytes = std::fs::metadata(folder.join(RANKINGS_FILE)).unwrap().len() / 1_000_000;
    eprintln!(
        "push {pushed:.1} s, finish (with a reading) {finished:.1} s, open {opened:.1} s, all rows {looked:.2} s ({sum}); {bytes} MB on disk, peak {peak} MB"
    );
}

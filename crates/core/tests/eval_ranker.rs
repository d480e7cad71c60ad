//! The evaluator's contract: order of rows, batches, history, bad scores, bad options, files.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::RefCell;

use anyo_core::{
    Batch, Error, Recommender, Result,
    config::Check,
    data::Rows,
    eval::{Catalogue, Comparison, EvalConfig, Evaluation, evaluate, evaluate_watched, rank_rows, write_metrics},
};
use tch::{Device, Kind, Tensor};

const N: usize = 6;

/// Item `(last + 1) % N` first, then onwards round the circle; remembers the lengths of each batch.
#[derive(Default)]
struct Circle {
    batches: RefCell<Vec<Vec<usize>>>,
    bad: Option<(u32, f32)>,
}

impl Recommender for Circle {
    fn score(&self, batch: &Batch<'_>) -> Result<Tensor> {
        self.batches.borrow_mut().push(batch.histories.iter().map(|history| history.len()).collect());
        let mut scores = Vec::new();
        for (history, &user) in batch.histories.iter().zip(batch.users) {
            let last = history.last().copied().unwrap_or(0) as usize;
            scores.extend((0..N).map(|item| -(((item + N - last - 1) % N) as f64)));
            if let Some((bad_user, value)) = self.bad
                && bad_user == user
            {
                let place = scores.len() - N + 2;
                scores[place] = f64::from(value);
            }
        }
        // f64 and not contiguous: the evaluator converts
        Ok(Tensor::from_slice(&scores).view([-1, N as i64]).tr().contiguous().tr())
    }
}

fn config() -> EvalConfig {
    EvalConfig {
        ks: vec![1, 3],
        exclude_history: false,
        report_both: false,
        batch_size: 2,
        bootstrap: 50,
        confidence: 0.95,
        per_user: true,
        popularity_buckets: vec![0.5],
        length_buckets: vec![1],
    }
}

fn rows() -> Rows {
    let mut rows = Rows::new();
    rows.push_eval(3, &[1], 2); // rank 1
    rows.push_eval(0, &[], 3); // last counts as 0: rank 3
    rows.push_eval(1, &[5, 4, 3], 5); // 4 5: rank 2; without history 4: rank 1
    rows.push_eval(2, &[0, 1, 0], 0); // rank 6; without item 1: rank 5
    rows.push_eval(4, &[2, 2], 2); // the target is in the history: rank 6 in both
    rows
}

const CATALOGUE: Catalogue<'_> = Catalogue { n_items: N, train_counts: &[5, 1, 1, 1, 0, 0], protocol: "by hand" };

fn run(config: &EvalConfig) -> Evaluation {
    evaluate(&Circle::default(), &rows(), CATALOGUE, config, 1).unwrap()
}

#[test]
fn ranks_come_in_row_order_whatever_the_batches() {
    let model = Circle::default();
    let mut done = Vec::new();
    let ranking = rank_rows(&model, &rows(), N, &config(), &mut |n| {
        done.push(n);
        Ok(())
    })
    .unwrap();
    assert_eq!(ranking.ranks, [1, 3, 2, 6, 6]);
    assert_eq!(ranking.other_ranks, [1, 3, 1, 5, 6]);
    assert_eq!(ranking.users, [3, 0, 1, 2, 4]);
    assert_eq!(ranking.history_len, [1, 0, 3, 3, 2]);
    assert_eq!(ranking.top(2), [4, 5, 0]);
    assert_eq!(*model.batches.borrow(), [vec![3, 3], vec![2, 1], vec![0]]);
    assert_eq!(done, [2, 4, 5]);
    let whole = run(&EvalConfig { batch_size: 100, ..config() });
    assert_eq!(whole.ranking, ranking);
}

#[test]
fn history_leaves_ranking_and_lists() {
    let evaluation = run(&EvalConfig { exclude_history: true, report_both: true, ..config() });
    assert_eq!(evaluation.ranking.ranks, [1, 3, 1, 5, 6]);
    assert_eq!(evaluation.ranking.top(2), [5, 0, 1]);
    assert_eq!(evaluation.summary.value("hr@1"), Some(0.4));
    assert_eq!(evaluation.other.as_ref().unwrap().value("hr@1"), Some(0.2));
    let json = evaluation.to_json();
    assert_eq!(json["history_kept:hr@1"], 0.2);
    assert_eq!(json["protocol"], "by hand; history removed from the ranking; ties rank worst");
}

#[test]
fn nothing_scores_when_every_score_is_equal() {
    struct Flat;
    impl Recommender for Flat {
        fn score(&self, batch: &Batch<'_>) -> Result<Tensor> {
            Ok(Tensor::zeros([batch.histories.len() as i64, 50], (Kind::Float, Device::Cpu)))
        }
    }
    let catalogue = Catalogue { n_items: 50, train_counts: &[1; 50], protocol: "" };
    let evaluation = evaluate(&Flat, &rows(), catalogue, &EvalConfig { ks: vec![20], ..config() }, 1).unwrap();
    assert_eq!(evaluation.summary.value("hr@20"), Some(0.0));
    assert_eq!(evaluation.value("coverage@20"), Some(0.4));
}

#[test]
fn bad_scores_name_row_user_and_item() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let model = Circle { bad: Some((2, value)), ..Circle::default() };
        let error = evaluate(&model, &rows(), CATALOGUE, &config(), 1).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("item 2 for row 3 (user 2)"), "{text}");
        assert!(matches!(error, Error::Run { hint: Some(_), .. }));
    }
}

#[test]
fn bad_options_and_rows_are_errors() {
    let try_it = |rows: &Rows, config: &EvalConfig| evaluate(&Circle::default(), rows, CATALOGUE, config, 1);
    for ks in [vec![0], vec![], vec![7], vec![3, 1]] {
        let error = try_it(&rows(), &EvalConfig { ks: ks.clone(), ..config() }).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{ks:?}");
        assert!(error.to_string().starts_with("eval.ks: "), "{error}");
    }
    assert!(try_it(&Rows::new(), &config()).unwrap_err().to_string().contains("no rows"));
    let mut foreign = rows();
    foreign.push_eval(7, &[1, 6], 2);
    let text = try_it(&foreign, &config()).unwrap_err().to_string();
    assert!(text.contains("row 5 has item 6") && text.contains("0..6"), "{text}");
    let larger = Catalogue { n_items: 8, train_counts: &[1; 8], ..CATALOGUE };
    let text = evaluate(&Circle::default(), &rows(), larger, &config(), 1).unwrap_err().to_string();
    assert!(text.contains("[2, 6]") && text.contains("[2, 8]"), "{text}");
    let counts = Catalogue { train_counts: &[1; 2], ..CATALOGUE };
    assert!(evaluate(&Circle::default(), &rows(), counts, &config(), 1).is_err());
    let stop = evaluate_watched(&Circle::default(), &rows(), CATALOGUE, &config(), 1, &mut |_| {
        Err(Error::Interrupted { detail: String::new() })
    });
    assert_eq!(stop.unwrap_err().exit_code(), 130);
    assert!(config().problems().is_empty());
}

#[test]
fn the_files_of_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("metrics");
    let evaluation = run(&config());
    write_metrics(&folder, &[("valid", &evaluation), ("test", &evaluation)]).unwrap();
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(folder.join(name)).unwrap()).unwrap()
    };
    let test = read("test.json");
    assert_eq!(test, read("valid.json"));
    assert_eq!(test["hr@3"], 0.6);
    assert_eq!(test["recall@3"], 0.6);
    assert_eq!(test["n_users"], 5);
    assert_eq!(test["n_items"], 6);
    assert_eq!(test["ndcg@3_ci"].as_array().unwrap().len(), 2);
    assert!(test["gini@3"].is_number() && test["coverage@1"].is_number());
    assert!(test.as_object().unwrap().values().all(|value| !value.is_object()));
    let buckets = read("buckets.json");
    // targets 2 3 5 0 2: item 0 is the head, items 2 and 3 the tail, item 5 was never seen
    let rows: Vec<_> = buckets["test"]["popularity"].as_array().unwrap().iter().map(|b| b["n_rows"].as_u64()).collect();
    assert_eq!(rows, [Some(1), Some(3), Some(1)]);
    assert_eq!(buckets["valid"]["history_length"][0]["hr@1"], 0.5);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 3, "no part files stay");
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(write_metrics(&file, &[]).unwrap_err().to_string().contains("file"));
}

#[test]
fn the_table_of_a_run() {
    let mut table = Comparison::new();
    assert_eq!(table.to_table(100), "");
    table.push("circle", run(&EvalConfig { bootstrap: 0, ..config() }));
    table.push("circle, history removed", run(&EvalConfig { exclude_history: true, bootstrap: 0, ..config() }));
    // gini@3 by hand: the items stand 1 2 2 3 3 4 times in the lists, (−5 −6 −2 +3 +9 +20) / (6·15)
    let want = "\
─────────────────────────────────────────────────────────────────────────────
 model                        hr@3    ndcg@3   coverage@3       mrr   gini@3
═════════════════════════════════════════════════════════════════════════════
 circle                    0.6000*   0.4262        1.0000   0.4333    0.2111
 circle, history removed   0.6000*   0.5000*       1.0000   0.5400*   0.2111
─────────────────────────────────────────────────────────────────────────────
 5 users · * best · by hand · history kept in the ranking · ties rank worst
";
    assert_eq!(table.to_table(100), want);
    let wide = run(&config());
    let mut table = Comparison::new();
    for name in ["sasrec", "popularity", "recent_popularity", "item_knn"] {
        table.push(name, wide.clone());
    }
    let text = table.to_table(100);
    assert!(text.contains("0.6000*±.4000"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100));
    let narrow = table.to_table(40);
    assert!(narrow.contains("ndcg@3") && !narrow.contains("coverage"), "{narrow}");
    assert_eq!(table.to_json()["item_knn"]["hr@3"], 0.6);
}

#[cfg(feature = "data")]
#[test]
fn per_user_rows_read_back() {
    use anyo_core::{data::Dataset, data::Item, eval::write_per_user};
    use polars::prelude::{ParquetReader, SerReader};

    let item = |i: usize| Item { id: format!("i{i}"), title: String::new(), text: String::new() };
    let mut dataset = Dataset {
        name: "by-hand".to_owned(),
        items: (0..N).map(item).collect(),
        users: (0..5).map(|u| format!("user {u}")).collect(),
        train: Rows::new(),
        valid: Rows::new(),
        test: rows(),
        train_counts: vec![1; N],
        train_order: Vec::new(),
        hash: String::new(),
        items_hash: String::new(),
        provenance: serde_json::Value::Null,
        protocol: "by hand".to_owned(),
    };
    let config = EvalConfig { exclude_history: true, ks: vec![1, 3, 6], ..config() };
    let evaluation = evaluate(&Circle::default(), &dataset.test, &dataset, &config, 1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics/per_user.parquet");
    write_per_user(&path, &evaluation, &dataset).unwrap();
    write_per_user(&path, &evaluation, &dataset).unwrap();

    let frame = ParquetReader::new(std::fs::File::open(&path).unwrap()).finish().unwrap();
    let names: Vec<_> = frame.get_column_names().iter().map(|name| name.as_str().to_owned()).collect();
    let want = "row user target history_len rank hr@1 ndcg@1 mrr@1 hr@3 ndcg@3 mrr@3 hr@6 ndcg@6 mrr@6";
    let want = format!("{want} item_0 item_1 item_2 item_3 item_4 item_5");
    assert_eq!(names.join(" "), want);
    let text = |name: &str, row: usize| frame.column(name).unwrap().get(row).unwrap().to_string();
    assert_eq!(frame.height(), 5);
    assert_eq!(text("user", 0), "\"user 3\"");
    assert_eq!(text("target", 2), "\"i5\"");
    assert_eq!(frame.column("rank").unwrap().u32().unwrap().into_no_null_iter().collect::<Vec<_>>(), [1, 3, 1, 5, 6]);
    assert_eq!(frame.column("ndcg@3").unwrap().f32().unwrap().get(1), Some(0.5));
    // history 5 4 3, target 5: items 3 and 4 left, and only four places of six are filled
    let top: Vec<_> = (0..6).map(|place| text(&format!("item_{place}"), 2)).collect();
    assert_eq!(top, ["\"i5\"", "\"i0\"", "\"i1\"", "\"i2\"", "null", "null"]);
    assert_eq!(std::fs::read_dir(dir.path().join("metrics")).unwrap().count(), 1, "no part file stays");

    let blocked = dir.path().join("metrics/per_user.parquet/inside.parquet");
    assert!(write_per_user(&blocked, &evaluation, &dataset).unwrap_err().to_string().contains("per_user.parquet"));
    dataset.users.truncate(2);
    let text = write_per_user(&path, &evaluation, &dataset).unwrap_err().to_string();
    assert!(text.contains("user 3") && text.contains("by-hand"), "{text}");
}

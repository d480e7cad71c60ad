//! The whole evaluator against metrics computed with numpy in another way: `fixtures/metrics/make.py`.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use anyo_core::{
    Batch, Recommender, Result,
    data::Rows,
    eval::{Catalogue, EvalConfig, evaluate},
};
use tch::Tensor;

/// Scores by user.
struct Table(Vec<Vec<f32>>);

impl Recommender for Table {
    fn score(&self, batch: &Batch<'_>) -> Result<Tensor> {
        let rows: Vec<f32> = batch.users.iter().flat_map(|&user| self.0[user as usize].iter().copied()).collect();
        Ok(Tensor::from_slice(&rows).view([batch.users.len() as i64, -1]))
    }
}

#[test]
fn equals_numpy() {
    let text = include_str!("fixtures/metrics/cases.json");
    let fixture: serde_json::Value = serde_json::from_str(text).unwrap();
    let cases = fixture["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let numbers = |value: &serde_json::Value| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
        let n_items = case["n_items"].as_u64().unwrap() as usize;
        let mut rows = Rows::new();
        for (user, (history, target)) in
            case["histories"].as_array().unwrap().iter().zip(numbers(&case["targets"])).enumerate()
        {
            rows.push_eval(user as u32, &numbers(history), target);
        }
        let config = EvalConfig {
            ks: numbers(&case["ks"]).into_iter().map(|k| k as usize).collect(),
            exclude_history: case["exclude_history"].as_bool().unwrap(),
            report_both: true,
            batch_size: 7,
            bootstrap: 20,
            confidence: 0.9,
            per_user: false,
            popularity_buckets: vec![0.5],
            length_buckets: vec![2],
        };
        let model = Table(serde_json::from_value(case["scores"].clone()).unwrap());
        let counts = vec![1; n_items];
        let catalogue = Catalogue { n_items, train_counts: &counts, protocol: "made up" };
        let evaluation = evaluate(&model, &rows, catalogue, &config, 1).unwrap();
        assert_eq!(evaluation.ranking.ranks, numbers(&case["ranks"]));
        let json = evaluation.to_json();
        for (key, want) in case["metrics"].as_object().unwrap() {
            let (got, want) = (json[key].as_f64().unwrap(), want.as_f64().unwrap());
            assert!((got - want).abs() < 1e-12, "{key}: {got}, numpy {want}");
        }
    }
}

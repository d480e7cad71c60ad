//! Made-up data and the loop's settings; shared by the tests of student, distillation and teacher.

use anyo_core::{
    data::{Dataset, Item, Rows},
    eval::EvalConfig,
};
use anyo_student::{CheckpointConfig, TrainConfig};
use serde_json::Value;

/// A data set of training sequences, every item from place `first_target` on a target; the last two items of each become
/// validation and test when `held_out`, else the last one is asked for there too.
pub(crate) fn dataset_from(sequences: &[Vec<u32>], n_items: usize, held_out: bool, first_target: u32) -> Dataset {
    let (mut train, mut valid, mut test) = (Rows::new(), Rows::new(), Rows::new());
    for (user, items) in (0u32..).zip(sequences) {
        let end = if held_out { items.len() - 2 } else { items.len() };
        train.push(user, items[..end].iter().copied(), first_target.min(end as u32 - 1));
        let last = |n: usize| (&items[..n - 1], items[n - 1]);
        let (history, target) = last(if held_out { items.len() - 1 } else { items.len() });
        valid.push_eval(user, history, target);
        let (history, target) = last(items.len());
        test.push_eval(user, history, target);
    }
    let train_order: Vec<u32> = (0..train.len()).flat_map(|row| train.items(row).to_vec()).collect();
    let mut train_counts = vec![0; n_items];
    train_order.iter().for_each(|&item| train_counts[item as usize] += 1);
    let item = |i: usize| Item { id: i.to_string(), title: format!("item {i}"), text: String::new() };
    Dataset {
        name: "made_up".into(),
        items: (0..n_items).map(item).collect(),
        users: (0..sequences.len()).map(|u| u.to_string()).collect(),
        train,
        valid,
        test,
        train_counts,
        train_order,
        hash: "d".repeat(64),
        items_hash: "1".repeat(64),
        provenance: Value::Null,
        protocol: "made up".into(),
    }
}

/// [`dataset_from`] with every item but the first a target.
pub(crate) fn dataset(sequences: &[Vec<u32>], n_items: usize, held_out: bool) -> Dataset {
    dataset_from(sequences, n_items, held_out, 1)
}

/// 30 users of 5 to 15 items out of 40; the next item follows from the last one but for every fourth.
pub(crate) fn thirty() -> Dataset {
    let mut draw = numbers(7);
    let sequence = |draw: &mut dyn FnMut(u32) -> u32| {
        let mut items = vec![draw(40)];
        for _ in 0..4 + draw(11) {
            let last = items[items.len() - 1];
            items.push(if draw(4) == 0 { draw(40) } else { (last * 3 + 1) % 40 });
        }
        items
    };
    let sequences: Vec<Vec<u32>> = (0..30).map(|_| sequence(&mut draw)).collect();
    dataset(&sequences, 40, true)
}

/// Numbers below their argument.
pub(crate) fn numbers(mut state: u32) -> impl FnMut(u32) -> u32 {
    move |n| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % n
    }
}

/// Four epochs in batches of eight rows.
pub(crate) fn train_config() -> TrainConfig {
    TrainConfig {
        batch_size: 8,
        accumulation: 1,
        epochs: 4,
        bucket: true,
        valid_every: 1,
        metric: "ndcg@10".into(),
        patience: 0,
        valid_rows: 0,
        log_every: 1,
        checkpoint: CheckpointConfig { every_steps: 0, every_minutes: 0.0, keep: 2 },
    }
}

/// NDCG and HR at 1 and 10, nothing else.
pub(crate) fn eval_config() -> EvalConfig {
    EvalConfig {
        ks: vec![1, 10],
        exclude_history: false,
        report_both: false,
        batch_size: 256,
        bootstrap: 0,
        confidence: 0.95,
        per_user: false,
        popularity_buckets: vec![],
        length_buckets: vec![],
    }
}

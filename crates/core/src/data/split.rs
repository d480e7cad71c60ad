//! Splits: which interactions are learned from and which are asked for. Nothing asked for is ever learned from.

use serde_json::{Value, json};

use super::{
    Rows,
    config::{SplitConfig, SplitKind, Targets, TrainForm},
    filter::Histories,
};
use crate::{
    Error, Result,
    seed::{Stream, derive},
};

/// The parts of a data set.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Split {
    pub(super) train: Rows,
    pub(super) valid: Rows,
    pub(super) test: Rows,
    /// `[n_users]`: how many of each user's oldest interactions training may see.
    pub(super) visible: Vec<usize>,
    /// Rows and targets of each part, and what was dropped.
    pub(super) counts: Value,
    /// The rule in words, without the catalogue.
    pub(super) protocol: String,
}

/// Splits the histories.
///
/// # Errors
/// When the rule needs times and there are none, or a part would be empty.
pub(super) fn split(data: &Histories, config: &SplitConfig) -> Result<Split> {
    let mut out = Split {
        train: Rows::new(),
        valid: Rows::new(),
        test: Rows::new(),
        visible: Vec::new(),
        counts: Value::Null,
        protocol: String::new(),
    };
    let [train, valid, test] = config.fractions;
    let shares = format!("{train}/{valid}/{test}");
    let mut dropped = serde_json::Map::new();
    match config.kind {
        SplitKind::LeaveOneOut => leave_one_out(data, config, &mut out, &mut dropped),
        SplitKind::Temporal => {
            temporal(data, times(data, "temporal")?, config, &mut out, &mut dropped);
            let asked = if config.targets == Targets::First { "first item" } else { "every item" };
            out.protocol = format!("temporal {shares}, {asked} of each period");
        }
        SplitKind::Llara => {
            llara(data, config, &mut out, &mut dropped);
            out.protocol =
                format!("llara by user {shares}, last window of {}, at least {}", config.window, config.min_len);
        }
        SplitKind::Dllm2rec => {
            dllm2rec(data, times(data, "dllm2rec")?, config, &mut out, &mut dropped);
            out.protocol = format!("dllm2rec windows of {} by target time {shares}", config.window);
        }
        SplitKind::Given => return Err(Error::invalid("split.kind=given needs format: windows")),
    }
    not_empty(&out.train, &out.valid, &out.test)?;
    out.counts = counts(&out.train, &out.valid, &out.test, dropped);
    Ok(out)
}

/// Rows and targets of each part and the number of rows dropped for each reason.
pub(super) fn counts(train: &Rows, valid: &Rows, test: &Rows, dropped: serde_json::Map<String, Value>) -> Value {
    json!({
        "train_rows": train.len(),
        "train_targets": train.n_targets(),
        "valid_rows": valid.len(),
        "test_rows": test.len(),
        "dropped": dropped,
    })
}

/// # Errors
/// Names the part that has no rows.
pub(super) fn not_empty(train: &Rows, valid: &Rows, test: &Rows) -> Result<()> {
    for (name, rows) in [("training", train), ("validation", valid), ("test", test)] {
        if rows.is_empty() {
            return Err(Error::Invalid {
                message: format!("the split leaves no {name} rows"),
                hint: Some("users need at least 3 interactions; change dataset.split or weaken dataset.filter".into()),
            });
        }
    }
    Ok(())
}

fn times<'a>(data: &'a Histories, kind: &str) -> Result<&'a [f64]> {
    data.time.as_deref().ok_or_else(|| Error::Invalid {
        message: format!(
            "split.kind={kind} needs the time of each interaction, but this data set has only their order"
        ),
        hint: Some("name the column in dataset.columns.time, or write dataset.split.kind=leave_one_out".into()),
    })
}

fn leave_one_out(
    data: &Histories,
    config: &SplitConfig,
    out: &mut Split,
    dropped: &mut serde_json::Map<String, Value>,
) {
    let (mut short, mut single) = (0, 0);
    for user in 0..data.users.len() {
        let items = data.items_of(user);
        let n = items.len();
        if n < 3 {
            short += 1;
            single += usize::from(n == 1);
            learn(user, items, config, &mut out.train);
            out.visible.push(n);
            continue;
        }
        learn(user, &items[..n - 2], config, &mut out.train);
        out.valid.push_eval(user as u32, &items[..n - 2], items[n - 2]);
        out.test.push_eval(user as u32, &items[..n - 1], items[n - 1]);
        out.visible.push(n - 2);
    }
    dropped.insert("users_with_fewer_than_3_train_only".into(), short.into());
    dropped.insert("users_with_1_no_rows".into(), single.into());
    out.protocol = "leave_one_out".into();
}

fn temporal(
    data: &Histories,
    time: &[f64],
    config: &SplitConfig,
    out: &mut Split,
    dropped: &mut serde_json::Map<String, Value>,
) {
    let mut sorted = time.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let cut = |share: f64| sorted.get(floor_share(sorted.len(), share)).copied().unwrap_or(f64::INFINITY);
    let cuts = [cut(config.fractions[0]), cut(config.fractions[0] + config.fractions[1])];
    let mut cold = 0;
    for user in 0..data.users.len() {
        let items = data.items_of(user);
        let times = &time[data.offsets[user]..data.offsets[user + 1]];
        let [valid_from, test_from] = cuts.map(|cut| times.partition_point(|t| *t < cut));
        learn(user, &items[..valid_from], config, &mut out.train);
        out.visible.push(valid_from);
        for (rows, from, to) in [(&mut out.valid, valid_from, test_from), (&mut out.test, test_from, items.len())] {
            let to = if config.targets == Targets::First { to.min(from + 1) } else { to };
            for at in from..to {
                if at < config.min_len {
                    cold += 1;
                } else {
                    rows.push_eval(user as u32, &items[..at], items[at]);
                }
            }
        }
    }
    dropped.insert("targets_with_history_below_min_len".into(), cold.into());
    dropped.insert("cut_times".into(), json!(cuts.map(|c| c.is_finite().then_some(c))));
}

fn llara(data: &Histories, config: &SplitConfig, out: &mut Split, dropped: &mut serde_json::Map<String, Value>) {
    let n = data.users.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_key(|&user| derive(config.seed, Stream::Data, user as u64, 0));
    let first = floor_share(n, config.fractions[0]);
    let second = floor_share(n, config.fractions[0] + config.fractions[1]);
    let mut part = vec![0u8; n];
    for (place, &user) in order.iter().enumerate() {
        part[user] = u8::from(place >= first) + u8::from(place >= second);
    }
    let mut short = 0;
    for (user, &part) in part.iter().enumerate() {
        let items = data.items_of(user);
        if part == 0 {
            short += learn(user, items, config, &mut out.train);
            out.visible.push(items.len());
            continue;
        }
        out.visible.push(0);
        let last = items.len() - 1;
        let history = &items[last.saturating_sub(config.window)..last];
        if history.len() < config.min_len {
            short += 1;
        } else {
            let rows = if part == 1 { &mut out.valid } else { &mut out.test };
            rows.push_eval(user as u32, history, items[last]);
        }
    }
    dropped.insert("windows_below_min_len".into(), short.into());
}

fn dllm2rec(
    data: &Histories,
    time: &[f64],
    config: &SplitConfig,
    out: &mut Split,
    dropped: &mut serde_json::Map<String, Value>,
) {
    let mut targets: Vec<(f64, u32, u32)> = Vec::new();
    for user in 0..data.users.len() {
        let n = data.items_of(user).len();
        let all = config.window.min(n - 1)..n;
        targets.extend(all.map(|at| (time[data.offsets[user] + at], user as u32, at as u32)));
    }
    let n_all = targets.len();
    targets.retain(|(_, _, at)| *at as usize >= config.min_len);
    targets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let first = floor_share(targets.len(), config.fractions[0]);
    let second = floor_share(targets.len(), config.fractions[0] + config.fractions[1]);
    out.visible = vec![0; data.users.len()];
    for (place, &(_, user, at)) in targets.iter().enumerate() {
        let (items, at) = (data.items_of(user as usize), at as usize);
        let history = &items[at.saturating_sub(config.window)..at];
        if place < first {
            out.train.push_eval(user, history, items[at]);
            out.visible[user as usize] = at + 1;
        } else {
            let rows = if place < second { &mut out.valid } else { &mut out.test };
            rows.push_eval(user, history, items[at]);
        }
    }
    dropped.insert("windows_below_min_len".into(), (n_all - targets.len()).into());
}

/// Training rows of one user's visible items; gives the number of windows that were too short.
fn learn(user: usize, items: &[u32], config: &SplitConfig, rows: &mut Rows) -> usize {
    match config.train_form {
        TrainForm::Sequences => {
            if items.len() > 1 {
                rows.push(user as u32, items.iter().copied(), 1);
            }
            0
        }
        TrainForm::Windows => {
            let first = config.min_len.min(items.len());
            for at in first..items.len() {
                rows.push_eval(user as u32, &items[at.saturating_sub(config.window)..at], items[at]);
            }
            first
        }
    }
}

/// `floor(n * share)`, safe against a share such as 0.8 + 0.1 that is a hair below 0.9.
fn floor_share(n: usize, share: f64) -> usize {
    ((n as f64 * share + 1e-6).floor() as usize).min(n)
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod split_tests;

//! Training as `metrics.jsonl` tells it.

use std::{fs, path::Path};

use serde_json::Value;

/// One scalar over the steps of a run, `(step, value)` by step; empty where the run has none.
pub(super) fn curve(run: &Path, name: &str) -> Vec<(f64, f64)> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    let point = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        Some((line["step"].as_f64()?, line[name].as_f64()?))
    };
    text.lines().filter_map(point).collect()
}

//! `summary.csv`, rewritten after each job, and the table of means over seeds.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;

use super::{
    jobs::{Outcome, Status},
    product::Plan,
};
use crate::{Result, run::write_atomic};

/// Metric name → value.
type Numbers = Vec<(String, f64)>;

/// One row for each job that has ended or will not run.
pub(super) fn write_csv(dir: &Path, plan: &Plan, outcomes: &[Outcome]) -> Result<()> {
    let numbers: Vec<Numbers> = (0..outcomes.len()).map(|n| job_numbers(&dir.join(n.to_string()))).collect();
    let mut columns: Vec<&str> = Vec::new();
    for (name, _) in numbers.iter().flatten() {
        if !columns.contains(&name.as_str()) {
            columns.push(name);
        }
    }
    let fixed = |ends: &[&str]| ends.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>();
    let mut header = fixed(&["job"]);
    header.extend(plan.swept.iter().cloned());
    header.extend(fixed(&["status", "seconds"]));
    header.extend(columns.iter().map(|c| (*c).to_owned()));
    let mut text = csv_row(&header);
    for (n, (outcome, numbers)) in outcomes.iter().zip(&numbers).enumerate() {
        let mut row = vec![n.to_string()];
        row.extend(plan.jobs[n].values.iter().cloned());
        row.push(outcome.status.name().to_owned());
        row.push(format!("{:.1}", outcome.seconds));
        let cell = |column: &&str| {
            numbers.iter().find(|(name, _)| name == column).map_or(String::new(), |(_, x)| x.to_string())
        };
        row.extend(columns.iter().map(cell));
        text += &csv_row(&row);
    }
    write_atomic(&dir.join("summary.csv"), text.as_bytes())
}

fn csv_row(cells: &[String]) -> String {
    let quoted = |cell: &String| {
        if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.clone() }
    };
    cells.iter().map(quoted).collect::<Vec<_>>().join(",") + "\n"
}

/// Every number of the job's `metrics/test.json` and `metrics/valid.json`; a `[low, high]` pair gives two.
fn job_numbers(job: &Path) -> Numbers {
    let mut numbers = Vec::new();
    for part in ["test", "valid"] {
        let text = fs::read_to_string(job.join(format!("metrics/{part}.json"))).unwrap_or_default();
        if let Ok(json) = serde_json::from_str::<Value>(&text) {
            flatten(part, &json, &mut numbers);
        }
    }
    numbers
}

fn flatten(name: &str, json: &Value, numbers: &mut Numbers) {
    match json {
        Value::Number(n) => numbers.push((name.to_owned(), n.as_f64().unwrap_or(f64::NAN))),
        Value::Object(map) => map.iter().for_each(|(key, value)| flatten(&format!("{name}.{key}"), value, numbers)),
        Value::Array(pair) => {
            if let [Value::Number(_), Value::Number(_)] = pair.as_slice() {
                flatten(&format!("{name}_low"), &pair[0], numbers);
                flatten(&format!("{name}_high"), &pair[1], numbers);
            }
        }
        _ => {}
    }
}

/// Mean ± sample deviation over the seeds, one line for each combination of the other swept keys; `None` when `seed` is
/// not swept or nothing was measured. Test metrics, or validation metrics where there are no others.
pub(super) fn over_seeds(dir: &Path, plan: &Plan, outcomes: &[Outcome]) -> Option<String> {
    let seed = plan.swept.iter().position(|key| key == "seed")?;
    let mut groups: Vec<(String, BTreeMap<String, Vec<f64>>)> = Vec::new();
    let mut columns: Vec<String> = Vec::new();
    for (n, outcome) in outcomes.iter().enumerate().filter(|(_, o)| o.status == Status::Done) {
        let _ = outcome;
        let others: Vec<String> = (0..plan.swept.len())
            .filter(|i| *i != seed)
            .map(|i| format!("{}={}", plan.swept[i], plan.jobs[n].values[i]))
            .collect();
        let label = others.join(" ");
        let i = groups.iter().position(|(l, _)| *l == label).unwrap_or_else(|| {
            groups.push((label, BTreeMap::new()));
            groups.len() - 1
        });
        for (name, value) in job_numbers(&dir.join(n.to_string())) {
            if name.contains("_ci_") || name.ends_with(".n_users") || name.ends_with(".n_items") {
                continue;
            }
            if !columns.contains(&name) {
                columns.push(name.clone());
            }
            groups[i].1.entry(name).or_default().push(value);
        }
    }
    let is_test = |name: &String| name.starts_with("test.");
    if columns.iter().any(is_test) {
        columns.retain(is_test);
    }
    if columns.is_empty() {
        return None;
    }
    let mut text = String::from("mean ± deviation over seeds\n");
    let label = groups.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    for (group, values) in &groups {
        let runs = values.values().map(Vec::len).max().unwrap_or(0);
        text += &format!("  {group:label$}  n={runs}");
        for column in &columns {
            if let Some(values) = values.get(column) {
                let (mean, deviation) = mean_deviation(values);
                text += &format!("  {column} {mean:.4} ± {deviation:.4}");
            }
        }
        text.push('\n');
    }
    Some(text)
}

/// Mean and sample standard deviation (n − 1); one value has the deviation 0.
fn mean_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    (mean, if values.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviation_is_the_sample_deviation() {
        // 2, 4, 6: mean 4, variance (4 + 0 + 4) / 2 = 4.
        assert_eq!(mean_deviation(&[2.0, 4.0, 6.0]), (4.0, 2.0));
        assert_eq!(mean_deviation(&[5.0]), (5.0, 0.0));
    }

    #[test]
    fn cells_with_commas_are_quoted() {
        assert_eq!(csv_row(&["1".into(), "[1, 2]".into(), "a\"b".into()]), "1,\"[1, 2]\",\"a\"\"b\"\n");
    }

    #[test]
    fn numbers_are_flattened() {
        let json =
            serde_json::json!({"ndcg@10": 0.5, "ndcg@10_ci": [0.4, 0.6], "protocol": "full", "by": {"short": 1}});
        let mut numbers = Vec::new();
        flatten("test", &json, &mut numbers);
        let names: Vec<&str> = numbers.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["test.ndcg@10", "test.ndcg@10_ci_low", "test.ndcg@10_ci_high", "test.by.short"]);
    }
}

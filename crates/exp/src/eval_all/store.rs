//! `results.parquet`: one line for each subset, method, seed and metric, and one for the seeds together with its tests.

use std::path::Path;

use anyo_core::{
    Result,
    data::{Column, write_parquet},
};

use super::{config::Measure, measure::Findings, methods::Method};

/// Writes the file.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write(path: &Path, methods: &[Method], measures: &[Measure], findings: &Findings) -> Result<()> {
    let mut texts: [Vec<String>; 3] = Default::default();
    let mut seeds: Vec<Option<String>> = Vec::new();
    let mut sizes: [Vec<u32>; 2] = Default::default();
    let mut numbers: Vec<Vec<Option<f64>>> = vec![Vec::new(); NUMBERS.len()];
    for subset in &findings.subsets {
        for (m, method) in methods.iter().enumerate() {
            for (k, measure) in measures.iter().enumerate() {
                let Some(figure) = &subset.figures[m][k] else { continue };
                let mut push = |seed: Option<u64>, values: [Option<f64>; NUMBERS.len()]| {
                    for (column, text) in texts.iter_mut().zip([&subset.name, &method.name, &measure.key]) {
                        column.push(text.clone());
                    }
                    seeds.push(seed.map(|seed| seed.to_string()));
                    sizes[0].push(subset.n_rows as u32);
                    sizes[1].push(subset.n_users as u32);
                    numbers.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
                };
                if method.is_trained() {
                    for (past, &(value, ends)) in method.runs.iter().zip(&figure.seeds) {
                        let mut values = [None; NUMBERS.len()];
                        (values[0], values[1], values[2]) = (Some(value), ends.map(|e| e[0]), ends.map(|e| e[1]));
                        push(Some(past.seed), values);
                    }
                }
                let ends = figure.interval;
                let mut values = [None; NUMBERS.len()];
                values[..4].copy_from_slice(&[
                    Some(figure.value),
                    ends.map(|e| e[0]),
                    ends.map(|e| e[1]),
                    figure.deviation,
                ]);
                if let Some(test) = subset.tests.iter().find(|test| test.method == m && test.metric == k) {
                    let d = test.difference;
                    values[4..].copy_from_slice(&[
                        Some(d.value),
                        Some(d.interval[0]),
                        Some(d.interval[1]),
                        Some(d.p),
                        Some(test.bootstrap_holm),
                        Some(test.wilcoxon.p),
                        Some(test.wilcoxon_holm),
                        test.d_z,
                        test.rank_biserial,
                    ]);
                }
                push(None, values);
            }
        }
    }
    let [subset, method, metric] = texts;
    let [rows, users] = sizes;
    let mut columns = vec![
        ("subset".to_owned(), Column::Text(subset)),
        ("method".to_owned(), Column::Text(method)),
        ("seed".to_owned(), Column::TextOrNull(seeds)),
        ("metric".to_owned(), Column::Text(metric)),
        ("n_rows".to_owned(), Column::U32(rows)),
        ("n_users".to_owned(), Column::U32(users)),
    ];
    columns.extend(NUMBERS.iter().zip(numbers).map(|(name, values)| ((*name).to_owned(), Column::F64OrNull(values))));
    write_parquet(path, columns)
}

/// The columns of numbers; those from `deviation` on are null for a single seed.
const NUMBERS: [&str; 13] = [
    "value",
    "ci_low",
    "ci_high",
    "deviation",
    "difference",
    "difference_low",
    "difference_high",
    "p_bootstrap",
    "p_bootstrap_holm",
    "p_wilcoxon",
    "p_wilcoxon_holm",
    "d_z",
    "rank_biserial",
];

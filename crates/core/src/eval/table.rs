//! The table a run ends with: the model beside popularity and the other baselines.

use comfy_table::{CellAlignment, LineStyle, Table, presets::UTF8_HORIZONTAL_ONLY};
use serde_json::{Map, Value};

use super::{Evaluation, Summary};

/// Evaluations of several recommenders on the same rows, in the order of the table.
#[derive(Debug, Clone, Default)]
pub struct Comparison {
    rows: Vec<(String, Evaluation)>,
}

impl Comparison {
    /// An empty comparison.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a recommender below the others.
    pub fn push(&mut self, name: impl Into<String>, evaluation: Evaluation) {
        self.rows.push((name.into(), evaluation));
    }

    /// The evaluations by name, in the order added.
    pub fn rows(&self) -> &[(String, Evaluation)] {
        &self.rows
    }

    /// `{name: {the flat object of `Evaluation::to_json`}, …}`, for `metrics/compare.json`.
    pub fn to_json(&self) -> Value {
        Value::Object(self.rows.iter().map(|(name, e)| (name.clone(), e.to_json())).collect::<Map<_, _>>())
    }

    /// The table as text of at most `width` columns, ending in a line break: one line per recommender with half the
    /// width of its interval after each figure, the best figure of each metric marked with `*`, the protocol below.
    ///
    /// Columns that do not fit are left out, the least telling first; the first two always stay. Of the K asked for,
    /// the headline and the largest are shown.
    pub fn to_table(&self, width: usize) -> String {
        let Some((_, first)) = self.rows.first() else { return String::new() };
        let mut columns = columns(first);
        loop {
            let text = self.draw(&columns);
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
            if widest <= width || columns.len() <= 2 {
                return text + &self.notes(first, widest.min(width));
            }
            columns.pop();
        }
    }

    fn draw(&self, columns: &[String]) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
        table.set_header(std::iter::once("model").chain(columns.iter().map(String::as_str)));
        let best: Vec<Option<String>> = columns.iter().map(|key| self.best(key)).collect();
        for (name, evaluation) in &self.rows {
            let cell = |(key, best): (&String, &Option<String>)| cell(evaluation, key, best.as_deref());
            table.add_row(std::iter::once(name.clone()).chain(columns.iter().zip(&best).map(cell)));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    /// The largest printed figure of a metric, where there is something to compare; coverage and Gini have no best.
    fn best(&self, key: &str) -> Option<String> {
        if self.rows.len() < 2 || key.starts_with("coverage") || key.starts_with("gini") {
            return None;
        }
        let values = self.rows.iter().filter_map(|(_, evaluation)| evaluation.value(key));
        values.max_by(f64::total_cmp).filter(|&best| best > 0.0).map(|best| format!("{best:.4}"))
    }

    fn notes(&self, first: &Evaluation, width: usize) -> String {
        let Summary { n_users, n_rows, .. } = first.summary;
        let mut parts = vec![format!("{n_users} users")];
        if n_rows != n_users {
            parts.push(format!("{n_rows} rows"));
        }
        if first.summary.estimates.iter().any(|estimate| estimate.interval.is_some()) {
            // 0.95 · 100 is not exactly 95
            let percent = (first.confidence * 1e8).round() / 1e6;
            parts.push(format!("± half the {percent} % bootstrap interval"));
        }
        if self.rows.len() > 1 {
            parts.push("* best".to_owned());
        }
        let notes = parts.into_iter().chain(first.protocol.split("; ").map(str::to_owned));
        wrap(notes, width)
    }
}

/// Keys in the order of their use: hit ratio and NDCG at the headline K, the same at the largest K, then the rest.
fn columns(evaluation: &Evaluation) -> Vec<String> {
    let headline = evaluation.headline_k;
    let largest = evaluation.beyond.iter().map(|beyond| beyond.k).max().unwrap_or(headline);
    let mut columns = vec![format!("hr@{headline}"), format!("ndcg@{headline}")];
    if largest != headline {
        columns.extend([format!("hr@{largest}"), format!("ndcg@{largest}")]);
    }
    columns.extend([format!("coverage@{headline}"), "mrr".to_owned(), format!("gini@{headline}")]);
    columns
}

/// The figure with four decimals, its half interval and the mark of the best; all figures of a column are equally wide
/// after the decimal point, so right alignment lines the points up.
fn cell(evaluation: &Evaluation, key: &str, best: Option<&str>) -> String {
    let Some(value) = evaluation.value(key) else { return "-".to_owned() };
    let value = format!("{value:.4}");
    let mark = match best {
        Some(best) if best == value => "*",
        Some(_) => " ",
        None => "",
    };
    match evaluation.summary.get(key).and_then(|estimate| estimate.interval) {
        Some([low, high]) => {
            let half = format!("{:.4}", (high - low) / 2.0);
            format!("{value}{mark}±{}", half.strip_prefix('0').unwrap_or(&half))
        }
        None => format!("{value}{mark}"),
    }
}

/// Joins parts with ` · `, breaking lines between parts at `width`.
fn wrap(parts: impl Iterator<Item = String>, width: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.chars().count() + part.chars().count() + 3 <= width => {
                line.push_str(" · ");
                line.push_str(&part);
            }
            _ => lines.push(format!(" {part}")),
        }
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

//! Ranges of the data configuration, and which keys a format needs.

use super::config::{Catalogue, DataConfig, DatasetConfig, Format, SplitKind, TextConfig};
use crate::config::{Check, Problem};

impl Check for DataConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.root.as_os_str().is_empty() {
            problems.push(Problem::new("root", "is empty; wanted a folder"));
        }
        if self.cache.as_ref().is_some_and(|cache| cache.as_os_str().is_empty()) {
            problems.push(hint("cache", "is empty; wanted a folder or null", "write data.cache=null to keep no cache"));
        }
        problems
    }
}

impl Check for DatasetConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |key: &str, message: String| problems.push(Problem::new(key, message));
        let name_fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.name.is_empty() || !self.name.chars().all(name_fits) || self.name.starts_with('.') {
            add("name", format!("wanted letters, digits, `-`, `_` or `.`, got {:?}", self.name));
        }
        check_text("text", &self.text, &mut add);
        if let Some(items) = &self.items {
            check_text("items.text", &items.text, &mut add);
            if matches!(items.format, Format::Toy | Format::Sequences | Format::Windows) {
                add("items.format", "must be auto, delimited, parquet, ndjson or atomic".into());
            }
            if items.flags.as_ref().is_some_and(|flags| flags.first == 0) {
                add("items.flags.first", "columns are counted from 1, got 0".into());
            }
        }
        let filter = &self.filter;
        if filter.min_rating.is_some_and(|rating| !rating.is_finite()) {
            add("filter.min_rating", "wanted a finite number or null".into());
        }
        if filter.min_rating.is_some() && self.columns.rating.is_none() {
            add("filter.min_rating", "needs the column of the rating in `columns.rating`, which is null".into());
        }
        if filter.max_history == Some(0) {
            add("filter.max_history", "wanted at least 1 or null, got 0".into());
        }
        let split = &self.split;
        let sum: f64 = split.fractions.iter().sum();
        if split.fractions.iter().any(|share| !(0.0..=1.0).contains(share)) || (sum - 1.0).abs() > 1e-6 {
            let got = split.fractions;
            add("split.fractions", format!("wanted three shares from 0 to 1 that add up to 1, got {got:?}"));
        } else if split.fractions[0] == 0.0 {
            add("split.fractions", "the first share (train) must be above 0".into());
        }
        if split.window == 0 {
            add("split.window", "wanted at least 1, got 0".into());
        } else if split.min_len > split.window {
            add("split.min_len", format!("wanted at most split.window = {}, got {}", split.window, split.min_len));
        }
        self.check_format(&mut add);
        problems
    }
}

impl DatasetConfig {
    fn check_format(&self, add: &mut impl FnMut(&str, String)) {
        let windows = self.format == Format::Windows;
        if windows != (self.split.kind == SplitKind::Given) {
            let got = format!("format {:?} with split.kind {:?}", self.format, self.split.kind).to_lowercase();
            add("split.kind", format!("`given` goes with `format: windows` and only with it, got {got}"));
        }
        if windows && self.windows.is_none() {
            add("windows", "is null; `format: windows` needs its files there".into());
        }
        if self.windows.as_ref().is_some_and(|files| files.pad == 0) {
            add("windows.pad", "wanted the number of items, got 0".into());
        }
        if windows && self.filter.catalogue == Catalogue::Interactions {
            add("filter.catalogue", "windows keep the numbering of their source: write `all`".into());
        }
        let filter = &self.filter;
        if windows && (filter.user_core > 1 || filter.item_core > 1 || filter.max_history.is_some()) {
            add("filter", "windows cannot be filtered: set user_core=0, item_core=0 and max_history=null".into());
        }
        match &self.toy {
            None if self.format == Format::Toy => add("toy", "is null; `format: toy` needs its sizes there".into()),
            Some(toy) if !(50..=100_000).contains(&toy.n_items) => {
                add("toy.n_items", format!("wanted 50 to 100000, got {}", toy.n_items));
            }
            Some(toy) if toy.n_users == 0 || toy.n_users > 10_000_000 => {
                add("toy.n_users", format!("wanted 1 to 10000000, got {}", toy.n_users));
            }
            _ => {}
        }
        if matches!(self.format, Format::Toy | Format::Windows) {
            return;
        }
        match &self.path {
            None => add("path", "is null; wanted the file with the interactions".into()),
            Some(path) if path.is_empty() => add("path", "is empty; wanted the file with the interactions".into()),
            Some(_) => {}
        }
        if self.format != Format::Sequences {
            for (key, column) in [("columns.user", &self.columns.user), ("columns.item", &self.columns.item)] {
                if column.is_none() {
                    add(key, "is null; wanted the name or the number (from 1) of the column".into());
                }
            }
        }
    }
}

fn check_text(key: &str, text: &TextConfig, add: &mut impl FnMut(&str, String)) {
    if text.separator.as_ref().is_some_and(|s| s.is_empty() || s.contains(['\n', '\r', '"'])) {
        add(&format!("{key}.separator"), "wanted one or more characters other than a line end or a quote".into());
    }
    if text.max_columns == Some(0) {
        add(&format!("{key}.max_columns"), "wanted at least 1 or null, got 0".into());
    }
}

fn hint(key: &str, message: &str, hint: &str) -> Problem {
    Problem { hint: Some(hint.into()), ..Problem::new(key, message) }
}

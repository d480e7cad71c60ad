//! What the built-in model reads: a file, or the titles of a data set and questions about its training rows.

use std::fs;

use anyo_core::{
    Error, Result,
    data::{self, Dataset},
    seed::{Stream, derive},
};

use super::PretrainRunConfig;

/// Items named in a question.
const HISTORY: usize = 3;
/// Lines of a file that make one text.
const LINES: usize = 64;

/// The texts, in a fixed order.
///
/// # Errors
/// When the file or the data set cannot be read.
pub(super) fn texts(config: &PretrainRunConfig) -> Result<Vec<String>> {
    match &config.text {
        Some(path) => {
            let text = fs::read_to_string(path).map_err(Error::io(path, "read the text"))?;
            let lines: Vec<&str> = text.lines().collect();
            Ok(lines.chunks(LINES).map(|chunk| chunk.join("\n")).filter(|text| !text.trim().is_empty()).collect())
        }
        None => {
            let dataset = data::load(&config.dataset, &config.data, &mut |_| ())?;
            Ok(of_dataset(&dataset, config.prompts, config.builtin.seed))
        }
    }
}

/// Every title, then questions in the form of the chat template: some items of a training row, and the one that came
/// next. Validation and test rows are not read.
fn of_dataset(dataset: &Dataset, prompts: usize, seed: u64) -> Vec<String> {
    let title = |item: u32| dataset.items[item as usize].title.as_str();
    let mut texts: Vec<String> = dataset.items.iter().map(|item| item.title.clone()).collect();
    let rows: Vec<usize> = (0..dataset.train.len()).filter(|&row| dataset.train.items(row).len() > 1).collect();
    for i in 0..prompts as u64 {
        if rows.is_empty() {
            break;
        }
        let draw = |n: usize, which: u64| (derive(seed, Stream::Shuffle, i, which) % n as u64) as usize;
        let items = dataset.train.items(rows[draw(rows.len(), 0)]);
        let next = 1 + draw(items.len() - 1, 1);
        let seen: Vec<&str> = items[next.saturating_sub(HISTORY)..next].iter().map(|&item| title(item)).collect();
        texts.push(question(&seen.join("; "), title(items[next])));
    }
    texts
}

fn question(seen: &str, next: &str) -> String {
    format!("<|user|>I liked {seen}. What next?<|eos|><|assistant|>{next}")
}

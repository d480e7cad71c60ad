//! Token ids against Python's `tokenizers` (fixtures/prompts/make.py).

use std::fs;

use anyo_lm::Tokenizer;
use anyo_teacher::{Bos, PromptConfig, PromptMode, PromptSource, Prompted, Prompts, Template};
use serde_json::Value;

use crate::{byte, config, fixtures, items, shared, text};

fn wording(value: &Value) -> PromptConfig {
    let get = |key: &str| value[key].as_str().unwrap().to_owned();
    let mut c = config();
    c.separator = get("separator");
    c.candidate_separator = get("candidate_separator");
    c.no_history = get("no_history");
    c.title.open = get("open");
    c.title.close = get("close");
    c.bos = Bos::Always;
    c.templates = vec![Template { choice: get("choice"), open: get("open_form"), cue: get("cue") }];
    c
}

fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

fn made(prompts: &Prompts, case: &Value, cases: &Value) -> Prompted {
    let row = &cases["rows"][case["row"].as_u64().unwrap() as usize];
    let (history, candidates) = (numbers(&row[0]), numbers(&row[1]));
    let mode = if case["hybrid"].as_bool().unwrap() { PromptMode::Hybrid } else { PromptMode::TextOnly };
    match case["form"].as_str().unwrap() {
        "choice" => prompts.choice(&history, &candidates, 0, mode).unwrap(),
        _ => prompts.open(&history, 0, mode).unwrap(),
    }
}

/// Every prompt reads as Python's text, and has Python's ids. Where a piece's end may join the next piece's beginning
/// (no blank or marker between them: quotes, Japanese) the tokenizer may choose other tokens for the same text.
fn compare(tokenizer: &Tokenizer, name: &str, rows: usize) -> (usize, usize) {
    let cases: Value = serde_json::from_str(&fs::read_to_string(fixtures().join("cases.json")).unwrap()).unwrap();
    let titles: Vec<&str> = cases["titles"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    let (mut same, mut other) = (0, 0);
    for case in cases["cases"].as_array().unwrap().iter().filter(|case| case["tokenizer"] == name) {
        let kind = case["wording"].as_str().unwrap();
        let prompts = Prompts::new(&wording(&cases["wordings"][kind]), &items(&titles), tokenizer, rows, 4096).unwrap();
        let ids = made(&prompts, case, &cases).ids;
        let wanted: Vec<i64> = case["ids"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
        if kind == "en" {
            assert_eq!(ids, wanted, "{case}");
        }
        assert_eq!(text(&prompts, tokenizer, &ids), text(&prompts, tokenizer, &wanted), "{case}");
        if ids == wanted { same += 1 } else { other += 1 }
    }
    eprintln!("{name}: {same} prompts with the same ids, {other} with other ids for the same text");
    (same, other)
}

#[test]
fn byte_level() {
    let tokenizer = byte();
    let (same, other) = compare(&tokenizer, "byte", tokenizer.n_ids());
    assert_eq!(same + other, 36);
}

#[test]
fn llama_style() {
    let Some(folder) = shared("tokenizer-phi35") else { return };
    let (same, other) = compare(&Tokenizer::from_folder(&folder).unwrap(), "phi", 32064);
    assert_eq!(same + other, 36);
}

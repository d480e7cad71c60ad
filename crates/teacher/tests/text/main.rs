//! The text side of the teacher: prompts, candidate lists and metrics on real tokenizers and data.
#![allow(clippy::unwrap_used, reason = "tests: helpers outside of #[test] functions too")]

mod bad;
mod conf;
mod evaluate;
mod python;
mod real;
mod wordings;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyo_core::{config::load_saved, data::Item};
use anyo_lm::Tokenizer;
use anyo_teacher::{
    AnswerEnd, Bos, CandidatesConfig, MarkerNames, PromptConfig, Prompts, Repeated, Template, TitleShown,
};
use serde::de::DeserializeOwned;

/// The folder of shipped configurations.
fn conf() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf")
}

/// A file of `conf/` alone.
fn shipped<C: DeserializeOwned>(name: &str) -> C {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(conf().join(name), folder.path().join("config.yaml")).unwrap();
    load_saved(folder.path()).unwrap()
}

/// A folder of the shared real data, or `None` with a printed reason.
fn shared(name: &str) -> Option<PathBuf> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")).join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: {} is not there", folder.display());
    None
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/prompts")
}

/// The byte-level tokenizer of the fixture.
fn byte() -> Tokenizer {
    Tokenizer::from_folder(&fixtures().join("byte")).unwrap()
}

fn items(titles: &[&str]) -> Vec<Item> {
    let item = |(i, title): (usize, &&str)| Item { id: format!("id{i}"), title: (*title).into(), text: String::new() };
    titles.iter().enumerate().map(item).collect()
}

/// One short wording; `Seen: A[H], B[H]` and so on.
fn config() -> PromptConfig {
    PromptConfig {
        window: 10,
        separator: ", ".into(),
        candidate_separator: ", ".into(),
        no_history: "nothing".into(),
        title: TitleShown { open: String::new(), close: String::new(), max_tokens: None, repeated: Repeated::Keep },
        markers: MarkerNames { plain: "[PH]".into(), history: "[HistoryEmb]".into(), candidate: "[CansEmb]".into() },
        bos: Bos::Auto,
        second_bos: false,
        end: AnswerEnd::Newline,
        max_len: None,
        candidates: CandidatesConfig { n: 20, seed: 42 },
        templates: vec![Template {
            choice: "Seen: {history}\nOffer: {candidates}".into(),
            open: "Seen: {history}".into(),
            cue: "Next: ".into(),
        }],
    }
}

fn prompts(config: &PromptConfig, titles: &[&str], tokenizer: &Tokenizer, context: usize) -> Prompts {
    Prompts::new(config, &items(titles), tokenizer, tokenizer.n_ids(), context).unwrap()
}

/// Text of ids, markers by name.
fn text(prompts: &Prompts, tokenizer: &Tokenizer, ids: &[i64]) -> String {
    prompts.readable(tokenizer, ids).unwrap()
}

//! Bad input: one message that says what and what to do.

use anyo_lm::Tokenizer;
use anyo_teacher::{Bos, ChoiceRow, PromptMode, PromptSource, Prompts, evaluate_choices};

use crate::{byte, config, fixtures, items, prompts};

#[test]
fn items_and_templates_out_of_range() {
    let made = prompts(&config(), &["A", "B"], &byte(), 100);
    let message = made.open(&[0, 2], 0, PromptMode::TextOnly).unwrap_err().to_string();
    assert_eq!(message, "item 2 is outside of the catalogue of 2 items");
    assert!(made.choice(&[0], &[9], 0, PromptMode::Hybrid).is_err());
    assert!(made.choice(&[0], &[], 0, PromptMode::Hybrid).unwrap_err().to_string().contains("at least one"));
    assert!(made.open(&[0], 1, PromptMode::Hybrid).unwrap_err().to_string().contains("no template 1; there are 1"));
    assert!(made.example(&made.open(&[0], 0, PromptMode::Hybrid).unwrap(), 2).is_err());
}

#[test]
fn a_context_without_room() {
    let tokenizer = byte();
    let error = Prompts::new(&config(), &items(&["A rather long title"]), &tokenizer, 500, 8).unwrap_err();
    assert!(error.to_string().contains("the longest answer has") && error.hint().unwrap().contains("max_tokens"));
    let made = prompts(&config(), &["A", "B"], &tokenizer, 12);
    assert!(made.open(&[0], 0, PromptMode::TextOnly).unwrap_err().to_string().contains("does not fit"));
    // an empty history does not fit either
    assert!(made.open(&[], 0, PromptMode::TextOnly).unwrap_err().to_string().contains("does not fit"));
}

#[test]
fn a_wrong_configuration_is_refused_at_once() {
    let mut bad = config();
    bad.window = 0;
    let error = Prompts::new(&bad, &items(&["A"]), &byte(), 500, 100).unwrap_err();
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn a_tokenizer_without_bos() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixtures().join("byte/tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    let mut c = config();
    c.bos = Bos::Always;
    let error = Prompts::new(&c, &items(&["A"]), &tokenizer, 500, 100).unwrap_err();
    assert_eq!(error.to_string(), "the prompts need a bos token, but the tokenizer names none");
    assert!(error.hint().unwrap().contains("bos=auto"));
    c.bos = Bos::Auto;
    assert!(Prompts::new(&c, &items(&["A"]), &tokenizer, 500, 100).is_ok());
    c.end = anyo_teacher::AnswerEnd::Eos;
    assert!(Prompts::new(&c, &items(&["A"]), &tokenizer, 500, 100).unwrap_err().to_string().contains("eos token"));
}

#[test]
fn evaluation_names_the_row() {
    let made = prompts(&config(), &["Alpha", "Beta", "Gamma"], &byte(), 30);
    let row = |row, candidates: Vec<u32>| ChoiceRow { row, history: vec![0], target: 1, candidates, template: 0 };
    let run = |rows: &[ChoiceRow], n: usize| {
        evaluate_choices(&made, rows, PromptMode::TextOnly, 4, &mut |_, _| Ok(vec![String::new(); n]))
    };
    let message = run(&[row(17, vec![1, 2])], 1).unwrap_err().to_string();
    assert!(message.starts_with("row 17: a prompt of at least"), "{message}");
    let message = run(&[row(3, vec![0, 2])], 1).unwrap_err().to_string();
    assert!(message.starts_with("row 3: wanted 2 candidates with the target 1"), "{message}");
    let made = prompts(&config(), &["Alpha", "Beta", "Gamma"], &byte(), 100);
    let got = evaluate_choices(&made, &[row(3, vec![1, 2])], PromptMode::TextOnly, 4, &mut |_, _| Ok(vec![]));
    assert!(got.unwrap_err().to_string().contains("0 texts were generated for 1 prompts"));
}

//! The evaluation with made-up generators.

use std::cell::RefCell;

use anyo_core::data::Rows;
use anyo_teacher::{
    Candidates, CandidatesConfig, ChoiceRow, Draw, PromptMode, PromptSource, Prompts, evaluate_choices,
};

use crate::{byte, config, prompts};

fn world() -> (Prompts, Vec<ChoiceRow>) {
    let titles: Vec<String> = (0..40).map(|i| format!("The {} story", i * 7 + 100)).collect();
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    let made = prompts(&config(), &titles, &byte(), 2000);
    let mut rows = Rows::new();
    for row in 0..23u32 {
        let history: Vec<u32> = (0..row % 5).map(|i| (row + i * 3) % 40).collect();
        rows.push_eval(row, &history, (row + 20) % 40);
    }
    let draw = Candidates::new(40, &CandidatesConfig { n: 20, seed: 1 }).unwrap();
    let asked = draw.rows(Draw::Test, &rows, 0, made.n_templates()).unwrap();
    (made, asked)
}

/// Right in even rows, wrong in rows 3, 9, 15 and 21, several titles in rows 5, 11, 17, nothing in the others.
fn say(prompts: &Prompts, row: &ChoiceRow) -> String {
    let wrong: Vec<&str> =
        row.candidates.iter().filter(|&&i| i != row.target).map(|&i| prompts.titles().get(i)).collect();
    match (row.row % 2, row.row % 6) {
        (0, _) => format!(" {}\nand more", prompts.titles().get(row.target).to_uppercase()),
        (_, 3) => wrong[0].to_owned(),
        (_, 5) => format!("{} or {}", wrong[0], wrong[1]),
        _ => "I do not know".into(),
    }
}

#[test]
fn metrics_and_records_do_not_depend_on_the_batches() {
    let (made, rows) = world();
    assert_eq!(rows.len(), 23);
    let mut first = None;
    for batch in [1, 4, 23, 100] {
        let sizes = RefCell::new(Vec::new());
        let result = evaluate_choices(&made, &rows, PromptMode::Hybrid, batch, &mut |rows, prompted| {
            assert_eq!(rows.len(), prompted.len());
            for (row, prompted) in rows.iter().zip(prompted) {
                assert_eq!(prompted.marks.len(), row.history.len() + 20);
            }
            sizes.borrow_mut().extend(prompted.iter().map(|p| p.ids.len()));
            Ok(rows.iter().map(|row| say(&made, row)).collect())
        });
        let (metrics, answers) = result.unwrap();
        assert!(sizes.borrow().is_sorted_by(|a, b| a >= b), "batches of like length");
        assert_eq!((metrics.n_rows, metrics.n_candidates), (23, 20));
        // rows 0, 2 … 22; 3, 9, 15, 21; 5, 11, 17
        assert_eq!((metrics.robust.n_correct, metrics.robust.n_valid, metrics.robust.n_ambiguous), (12, 16, 3));
        assert_eq!((metrics.legacy.n_correct, metrics.legacy.n_valid), (12, 16));
        for (answer, row) in answers.iter().zip(&rows) {
            assert_eq!((answer.row, answer.target), (row.row, row.target));
            assert_eq!(answer.correct, row.row % 2 == 0);
            assert_eq!(answer.item.is_some(), answer.valid);
            assert_eq!(answer.ambiguous.len(), if row.row % 6 == 5 { 2 } else { 0 });
        }
        let json = serde_json::to_value(&answers[2]).unwrap();
        assert_eq!(json["candidates"].as_array().unwrap().len(), 20);
        let got = (metrics, answers);
        assert_eq!(&got, first.get_or_insert_with(|| got.clone()));
    }
}

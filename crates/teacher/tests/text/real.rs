//! The data of LLaRA and iLoRA: rows, titles, candidate lists. Section 9, test 16.

use std::{collections::BTreeSet, path::Path};

use anyo_core::data::{DataConfig, Dataset, DatasetConfig, load};
use anyo_lm::Tokenizer;
use anyo_teacher::{
    Bos, Candidates, ChoiceRow, Draw, PromptConfig, PromptMode, PromptSource, Prompts, TrainRows,
    metric::matcher::{Found, Matcher},
};

use crate::{byte, shared, shipped};

/// The data set as configured, or with the windows of less than three items too.
fn dataset(name: &str, folder: &str, short_too: bool) -> Option<Dataset> {
    let root = shared(folder)?.parent().map(Path::to_owned)?;
    let mut config: DatasetConfig = shipped(&format!("dataset/{name}.yaml"));
    if short_too {
        config.split.min_len = 0;
    }
    Some(load(&config, &DataConfig { root, cache: None }, &mut |_| {}).unwrap())
}

fn check_lists(rows: &[ChoiceRow], n_items: usize) {
    for row in rows {
        let distinct: BTreeSet<u32> = row.candidates.iter().copied().collect();
        assert_eq!((row.candidates.len(), distinct.len()), (20, 20));
        assert!(distinct.contains(&row.target) && distinct.last().is_some_and(|&i| (i as usize) < n_items));
        assert!(row.history.iter().all(|item| !distinct.contains(item)), "row {}", row.row);
    }
}

fn frozen(data: &Dataset, config: &PromptConfig) -> Vec<ChoiceRow> {
    let draw = Candidates::new(data.n_items(), &config.candidates).unwrap();
    draw.rows(Draw::Test, &data.test, 3, config.templates.len()).unwrap()
}

/// Prompts of all test rows in both modes, and of the first training rows, with counts that fit.
fn check_prompts(data: &Dataset, config: &PromptConfig, tokenizer: &Tokenizer, rows: &[ChoiceRow]) -> Prompts {
    let made = Prompts::new(config, &data.items, tokenizer, tokenizer.n_ids(), 4096).unwrap();
    let mut longest = 0;
    for row in rows {
        let hybrid = made.choice(&row.history, &row.candidates, row.template, PromptMode::Hybrid).unwrap();
        assert_eq!((hybrid.marks.len(), hybrid.left_out), (row.history.len() + 20, 0));
        let plain = made.choice(&row.history, &row.candidates, row.template, PromptMode::TextOnly).unwrap();
        assert_eq!((plain.marks.len(), plain.ids.len()), (0, hybrid.ids.len()));
        let example = made.example(&hybrid, row.target).unwrap();
        assert_eq!(example.n_targets(), made.answer(row.target).len());
        longest = longest.max(example.len());
        // the text of the answer is found again
        let said: Vec<u32> = made.answer(row.target).iter().map(|&id| id as u32).collect();
        let said = tokenizer.decode(&said, true).unwrap();
        let titles: Vec<&str> = row.candidates.iter().map(|&i| made.titles().get(i)).collect();
        match Matcher::new(titles).find(&said) {
            Found::One(i) => assert_eq!(row.candidates[i], row.target),
            other => panic!("row {}: {other:?} for {said:?}", row.row),
        }
    }
    eprintln!("{}: longest example {longest} tokens\n{}", data.name, made.summary());
    made
}

#[test]
fn lastfm() {
    let Some(data) = dataset("lastfm", "llara-lastfm", false) else { return };
    let config: PromptConfig = shipped("teacher/prompt/music.yaml");
    let all = dataset("lastfm", "llara-lastfm", true).unwrap();
    let kept = |rows, min_history| TrainRows::new(rows, min_history, 0, 0);
    let found = kept(&all.train, 3);
    assert_eq!((all.train.n_targets(), found.len(), found.too_short()), (50_800, 47_872, 2_928));
    assert_eq!(kept(&all.train, 1).too_short(), 976, "rows with an empty history");
    let kept = kept(&data.train, 3);
    assert_eq!((kept.len(), kept.too_short()), (47_872, 0), "the data set drops them itself");
    // T of the released recipe: rows · epochs / 128
    assert_eq!(kept.len() * 5 / 128, 1870);
    let rows = frozen(&data, &config);
    assert_eq!((rows.len(), data.test.len(), data.n_items()), (122, 122, 4606));
    check_lists(&rows, data.n_items());
    assert_eq!(rows, frozen(&data, &config), "two runs");
    // one row alone, and in another order
    let draw = Candidates::new(data.n_items(), &config.candidates).unwrap();
    for row in rows.iter().rev() {
        assert_eq!(draw.list(Draw::Test, row.row as u64, &row.history, row.target).unwrap(), row.candidates);
    }
    // training lists: every kept row of one epoch
    for i in (0..kept.len()).step_by(37) {
        let (history, target, key) = (kept.history(i), kept.target(i), kept.row(i).key());
        let draw_of = |epoch| draw.list(Draw::Train { seed: 1, epoch }, key, history, target).unwrap();
        let list = draw_of(0);
        let distinct: BTreeSet<u32> = list.iter().copied().collect();
        assert!(distinct.len() == 20 && distinct.contains(&target) && !history.iter().any(|i| distinct.contains(i)));
        assert_ne!(list, draw_of(1));
    }
    let made = check_prompts(&data, &config, &byte(), &rows);
    let r = made.titles().report();
    // the specification counts 261 names that are part of another (section 7, row 15)
    assert_eq!((r.n_items, r.contained, r.repeated, r.without_title), (4606, 261, 0, 0));
    if let Some(folder) = shared("tokenizer-phi35") {
        let config = PromptConfig { bos: Bos::Always, ..config };
        check_prompts(&data, &config, &Tokenizer::from_folder(&folder).unwrap(), &rows);
    }
}

#[test]
fn movielens() {
    let Some(data) = dataset("movielens-llara", "llara-movielens", false) else { return };
    let config: PromptConfig = shipped("teacher/prompt/movies.yaml");
    let all = dataset("movielens-llara", "llara-movielens", true).unwrap();
    assert_eq!((all.train.n_targets(), TrainRows::new(&all.train, 3, 0, 0).len()), (68_389, 66_127));
    assert_eq!(TrainRows::new(&data.train, 3, 0, 0).len(), 66_127);
    let rows = frozen(&data, &config);
    assert_eq!((rows.len(), data.n_items()), (95, 1682));
    check_lists(&rows, data.n_items());
    assert_eq!(rows, frozen(&data, &config));
    // Section 9, test 15, on the real file
    let made = check_prompts(&data, &config, &byte(), &rows);
    let title = |item: u32| made.titles().get(item);
    assert_eq!((title(11), title(266)), ("The Usual Suspects (1995)", "unknown"));
    assert!(made.titles().all().any(|t| t == "An American in Paris (1951)"));
    assert!(made.titles().all().all(|t| !t.is_empty()));
    let ja: PromptConfig = shipped("teacher/prompt/movies_ja.yaml");
    check_prompts(&data, &ja, &byte(), &rows);
    if let Some(folder) = shared("tokenizer-phi35") {
        let tokenizer = Tokenizer::from_folder(&folder).unwrap();
        for config in [config, ja] {
            check_prompts(&data, &PromptConfig { bos: Bos::Always, ..config }, &tokenizer, &rows);
        }
    }
}

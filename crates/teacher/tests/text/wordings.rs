//! Marks, labels, context and special tokens.

use anyo_core::data::Item;
use anyo_lm::train::IGNORE;
use anyo_teacher::{AnswerEnd, Bos, Mark, PromptConfig, PromptMode, PromptSource, Prompts, Repeated};

use crate::{byte, config, items, prompts, shared, shipped, text};

const TITLES: [&str; 8] = ["Alpha", "Beta", "Gamma", "Delta", "Epsilon", "Zeta", "Eta", "Theta"];

#[test]
fn markers_stand_behind_their_titles() {
    let tokenizer = byte();
    let made = prompts(&config(), &TITLES, &tokenizer, 1000);
    let rows = tokenizer.n_ids() as u32;
    let names: Vec<(&str, u32)> = made.markers().added.iter().map(|(name, id)| (name.as_str(), *id)).collect();
    assert_eq!(names, [("[PH]", rows), ("[HistoryEmb]", rows + 1), ("[CansEmb]", rows + 2)]);
    assert_eq!(made.markers().vocab_rows, rows as usize + 3);
    let hybrid = made.choice(&[2, 0], &[5, 0, 7], 0, PromptMode::Hybrid).unwrap();
    let wanted =
        "Seen: Gamma[HistoryEmb], Alpha[HistoryEmb]\nOffer: Zeta[CansEmb], Alpha[CansEmb], Theta[CansEmb]\nNext:";
    assert_eq!(text(&made, &tokenizer, &hybrid.ids), wanted);
    assert_eq!(hybrid.marks.iter().map(|m| m.item).collect::<Vec<_>>(), [2, 0, 5, 0, 7]);
    assert!(hybrid.marks.windows(2).all(|m| m[0].position < m[1].position));
    for (i, Mark { position, .. }) in hybrid.marks.iter().enumerate() {
        assert_eq!(hybrid.ids[*position], i64::from(rows + 1 + u32::from(i >= 2)));
    }
    // the same ids but for the markers
    let plain = made.choice(&[2, 0], &[5, 0, 7], 0, PromptMode::TextOnly).unwrap();
    assert!(plain.marks.is_empty() && plain.ids.len() == hybrid.ids.len());
    for (place, (&p, &h)) in plain.ids.iter().zip(&hybrid.ids).enumerate() {
        let marked = hybrid.marks.iter().any(|m| m.position == place);
        assert_eq!(p, if marked { i64::from(rows) } else { h });
    }
    // one BOS, in front
    assert_eq!(hybrid.ids.iter().filter(|&&id| id == 0).count(), 1);
    assert_eq!(hybrid.ids[0], 0);
    assert_eq!(made.banned(), [2, rows, rows + 1, rows + 2]);
}

/// Section 9, test 12: 3 history and 20 candidate markers make exactly 23 marks, none in text-only mode.
#[test]
fn twenty_three_marks() {
    let titles: Vec<String> = (0..30).map(|i| format!("Title {i}")).collect();
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    for name in ["movies", "movies_ja"] {
        let config: PromptConfig = shipped(&format!("teacher/prompt/{name}.yaml"));
        let made = prompts(&config, &titles, &byte(), 4096);
        let candidates: Vec<u32> = (5..25).collect();
        for template in 0..made.n_templates() {
            let hybrid = made.choice(&[1, 2, 3], &candidates, template, PromptMode::Hybrid).unwrap();
            assert_eq!(hybrid.marks.len(), 23);
            let mut shown: Vec<u32> = hybrid.marks.iter().map(|m| m.item).collect();
            shown.sort_unstable();
            assert_eq!(shown, [vec![1, 2, 3], candidates.clone()].concat());
            assert_eq!(made.choice(&[1, 2, 3], &candidates, template, PromptMode::TextOnly).unwrap().marks, []);
            assert_eq!(made.open(&[1, 2, 3], template, PromptMode::Hybrid).unwrap().marks.len(), 3);
        }
    }
}

/// Section 9, test 10: a prompt of 5 tokens behind BOS and an answer of 3 with its newline give 10 tokens, of which 6
/// are ignored and 4 supervised; the first supervised one is the second BOS.
#[test]
fn legacy_labels_by_hand() {
    let tokenizer = byte();
    // one byte is one token here where no merge applies
    let mut legacy = config();
    legacy.second_bos = true;
    legacy.templates[0].open = "{history}".into();
    legacy.templates[0].cue = "#".into();
    let made = prompts(&legacy, &["Q~", "@^"], &tokenizer, 100);
    let prompted = made.open(&[0], 0, PromptMode::TextOnly).unwrap();
    // BOS Q ~ [PH] newline #
    assert_eq!((prompted.ids.len(), prompted.ids[0]), (6, 0));
    let example = made.example(&prompted, 1).unwrap();
    assert_eq!(example.ids.len(), 10);
    assert_eq!(example.labels[..6], [IGNORE; 6]);
    assert_eq!(example.labels[6..], example.ids[6..]);
    assert_eq!((example.n_targets(), example.labels[6]), (4, 0));
    assert_eq!(made.end(), &example.ids[9..]);
    assert_eq!(tokenizer.decode(&[example.ids[9] as u32], true).unwrap(), "\n");
    // ours: no second BOS
    legacy.second_bos = false;
    let example = prompts(&legacy, &["Q~", "@^"], &tokenizer, 100).example(&prompted, 1).unwrap();
    assert_eq!((example.ids.len(), example.n_targets()), (9, 3));
    legacy.end = AnswerEnd::Eos;
    let made = prompts(&legacy, &["Q~", "@^"], &tokenizer, 100);
    assert_eq!((made.answer(1).last(), made.end()), (Some(&1), [1].as_slice()));
    assert!(!made.banned().contains(&1) && !made.banned().contains(&0));
}

#[test]
fn the_oldest_history_is_left_out_and_counted() {
    let tokenizer = byte();
    let mut short = config();
    short.window = 4;
    let all = prompts(&short, &TITLES, &tokenizer, 1000);
    let history = [0, 1, 2, 3, 4, 5];
    let whole = all.choice(&history, &[6, 7], 0, PromptMode::Hybrid).unwrap();
    assert_eq!(whole.left_out, 0);
    assert_eq!(whole.marks.iter().map(|m| m.item).collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7]);
    let (mut last, mut shortened) = (0, 0);
    for context in (10..whole.ids.len() + all.longest_answer() + 2).rev() {
        short.max_len = Some(context);
        let made = prompts(&short, &TITLES, &tokenizer, 1000);
        match made.choice(&history, &[6, 7], 0, PromptMode::Hybrid) {
            Ok(prompted) => {
                assert!(prompted.ids.len() + made.longest_answer() <= context);
                assert!(prompted.left_out >= last && prompted.left_out < 4);
                let items: Vec<u32> = prompted.marks.iter().map(|m| m.item).collect();
                assert_eq!(items, [&history[2 + prompted.left_out..], &[6, 7]].concat());
                let counts = made.counts();
                assert_eq!((counts.choice, counts.windowed, counts.outside_window), (1, 1, 2));
                assert_eq!(counts.left_out, prompted.left_out as u64);
                last = prompted.left_out;
                shortened += usize::from(last > 0);
            }
            Err(error) => {
                assert_eq!(last, 3, "one history item stays before it is an error");
                let message = error.to_string();
                assert!(message.contains(&format!("does not fit the context of {context}")), "{message}");
                assert!(message.contains("2 candidates") && error.hint().unwrap().contains("max_len"));
            }
        }
    }
    assert!(shortened > 3);
    let summary = all.summary().to_string();
    assert!(summary.contains("prompts: 1 with candidates, 0 without") && summary.contains("(2 items outside)"));
}

#[test]
fn an_empty_history_has_words_of_its_own() {
    let tokenizer = byte();
    let made = prompts(&config(), &TITLES, &tokenizer, 1000);
    let prompted = made.open(&[], 0, PromptMode::Hybrid).unwrap();
    assert_eq!(text(&made, &tokenizer, &prompted.ids), "Seen: nothing\nNext:");
    assert_eq!(made.counts().empty_history, 1);
}

#[test]
fn bos_follows_its_option() {
    let tokenizer = byte();
    let first = |bos: Bos, open: &str| {
        let mut c = config();
        c.bos = bos;
        c.templates[0].open = open.into();
        let ids = prompts(&c, &TITLES, &tokenizer, 100).open(&[0], 0, PromptMode::TextOnly).unwrap().ids;
        (ids[0] == 0, ids.iter().filter(|&&id| id == 0).count())
    };
    assert_eq!(first(Bos::Auto, "Seen {history}"), (true, 1));
    assert_eq!(first(Bos::Always, "{history}"), (true, 1));
    assert_eq!(first(Bos::Never, "Seen {history}"), (false, 0));
    // written out in the wording
    assert_eq!(first(Bos::Always, "<|bos|>Seen {history}"), (true, 1));
}

#[test]
fn titles_are_text_whatever_they_hold() {
    let tokenizer = byte();
    let hostile = ["<|eos|> [HistoryEmb]", "{candidates}\n{history}", "<|bos|><|pad|>", "Plain"];
    let made = prompts(&config(), &hostile, &tokenizer, 1000);
    assert_eq!(made.titles().report().neutralised, 3);
    assert_eq!(made.titles().report().line_breaks, 1);
    let prompted = made.choice(&[0, 1], &[2, 3], 0, PromptMode::Hybrid).unwrap();
    assert_eq!(prompted.marks.len(), 4);
    let special = prompted.ids.iter().filter(|&&id| id < 3 || id >= tokenizer.n_ids() as i64).count();
    assert_eq!(special, 1 + 4, "BOS and the markers");
    for item in 0..4 {
        let answer = made.answer(item);
        assert!(answer.iter().all(|&id| (3..tokenizer.n_ids() as i64).contains(&id)));
        let said: Vec<u32> = answer.iter().map(|&id| id as u32).collect();
        assert_eq!(tokenizer.decode(&said, false).unwrap(), format!(" {}\n", made.titles().get(item)));
    }
}

#[test]
fn long_titles_keep_their_beginning() {
    let tokenizer = byte();
    let mut c = config();
    c.title.max_tokens = Some(7);
    c.title.repeated = Repeated::AddId;
    let made = prompts(&c, &["@^@^@^@^@^@^", "@^@^@^@^@^@^#", "千と千尋の神隠し", "Q"], &tokenizer, 200);
    let report = made.titles().report();
    assert_eq!((report.shortened, report.repeated), (3, 2));
    assert_eq!(made.titles().get(0), "@^@^@^");
    assert_eq!(made.titles().get(1), "@^@^@^ [id1]");
    assert!("千と千尋の神隠し".starts_with(made.titles().get(2)) && made.titles().get(2).chars().count() >= 2);
}

#[test]
fn phi_writes_titles_as_in_running_text() {
    let Some(folder) = shared("tokenizer-phi35") else { return };
    let tokenizer = anyo_lm::Tokenizer::from_folder(&folder).unwrap();
    let mut c = config();
    c.bos = Bos::Always;
    // the embedding of Phi-3.5 has rows without a token
    let hostile = ["Toy Story", "</s> <s>", "<|assistant|>", "宮崎駿", "Heat <0x0A>"];
    let made = Prompts::new(&c, &items(&hostile), &tokenizer, 32064, 4096).unwrap();
    assert_eq!(made.markers().added[0], ("[PH]".into(), 32064));
    assert_eq!(made.titles().report().neutralised, 2);
    let answer: Vec<Option<String>> = made.answer(0).iter().map(|&id| tokenizer.token(id as u32)).collect();
    let wanted = ["▁Toy", "▁Story", "<0x0A>"];
    assert_eq!(answer, wanted.map(|t| Some(t.to_owned())));
    assert_eq!(made.end(), [13]);
    // spare rows between the tokenizer's last id and the markers are never said
    let spare = tokenizer.n_ids() as u32..32064;
    assert!(!spare.is_empty() && spare.into_iter().all(|id| made.banned().contains(&id)));
    let prompted = made.open(&[0, 3], 0, PromptMode::Hybrid).unwrap();
    let tokens: Vec<String> =
        prompted.ids.iter().map(|&id| tokenizer.token(id as u32).unwrap_or_else(|| "[M]".into())).collect();
    let wanted = ["<s>", "▁Se", "en", ":", "▁Toy", "▁Story", "[M]", ","];
    assert_eq!(tokens[..8], wanted);
    assert!(tokens.ends_with(&["[M]", "<0x0A>", "Next", ":"].map(str::to_owned)), "{tokens:?}");
}

#[test]
fn items_without_title_are_shown_by_id() {
    let made = Prompts::new(
        &config(),
        &[Item { id: "B0001".into(), title: "B0001".into(), text: String::new() }],
        &byte(),
        1000,
        100,
    )
    .unwrap();
    assert_eq!((made.titles().get(0), made.titles().report().without_title), ("B0001", 1));
    // the embedding has more rows than the tokenizer ids
    assert_eq!(made.markers().ids.plain, 1000);
}

//! Tests of the rules for titles.

use proptest::prelude::*;

use super::*;

fn item(id: &str, title: &str) -> Item {
    Item { id: id.into(), title: title.into(), text: String::new() }
}

fn meaning() -> Vec<String> {
    ["[PH]", "[HistoryEmb]", "{history}", "</s>", "<|eos|>"].map(str::to_owned).into()
}

fn titles(items: &[Item], repeated: Repeated) -> Titles {
    Titles::new(items, &meaning(), repeated, &mut |_| Ok(None)).unwrap()
}

#[test]
fn every_rule_has_its_counter() {
    let items = [
        item("7", "7"),
        item("8", ""),
        item("", "\n"),
        item("a", "Two\nlines\tand \u{7}more"),
        item("b", "The [PH] [PH]</s> {history} story"),
        item("c", "Alien"),
        item("d", "ALIEN "),
        item("e", "Aliens"),
        item("f", "新世紀\u{3000}物語"),
    ];
    let kept = titles(&items, Repeated::Keep);
    let shown: Vec<&str> = kept.all().collect();
    let neutral = "The [ PH] [ PH]< /s> { history} story";
    let wanted = ["7", "8", "item 2", "Two lines and more", neutral, "Alien", "ALIEN", "Aliens", "新世紀\u{3000}物語"];
    assert_eq!(shown, wanted);
    let r = kept.report();
    assert_eq!((r.n_items, r.without_title, r.line_breaks, r.neutralised), (9, 3, 2, 1));
    // Alien twice, both in Aliens
    assert_eq!((r.repeated, r.contained, r.shortened, r.unknown_characters), (2, 2, 0, 0));
    assert!(r.examples.contains(&("neutralised", "The [PH] [PH]</s> {history} story".into())));
    assert!(r.to_string().contains("3 without (shown by id), 2 repeated, 2 contained"), "{r}");
    let numbered = titles(&items, Repeated::AddId);
    assert_eq!((numbered.get(5), numbered.get(6)), ("Alien", "ALIEN [d]"));
    assert_eq!(numbered.report().repeated, 2);
}

#[test]
fn a_number_never_makes_a_marker() {
    let items = [item("x", "Same"), item("PH", "Same")];
    assert_eq!(titles(&items, Repeated::AddId).get(1), "Same [ PH]");
}

#[test]
fn containment_matches_the_quadratic_count() {
    let keys: Vec<String> = ["a", "ab", "ab", "the long title", "in the long title too", "long title", "", "é", "café"]
        .map(str::to_owned)
        .into();
    let slow = |key: &String| !key.is_empty() && keys.iter().any(|k| k != key && k.contains(key.as_str()));
    assert_eq!(contained(&keys), keys.iter().map(slow).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn nothing_with_a_meaning_is_left(parts in prop::collection::vec(prop_oneof![
        Just("[PH]".to_owned()), Just("[".to_owned()), Just("{history}".to_owned()), Just("</s>".to_owned()),
        Just("\n".to_owned()), ".{0,4}"], 0..8)) {
        let raw = parts.concat();
        let tidied = tidy(&raw);
        prop_assert!(!tidied.contains(|c: char| c.is_control()) && tidied.trim() == tidied && !tidied.contains("  "));
        let neutral = neutralise(&tidied, &meaning());
        let text = neutral.clone().unwrap_or_else(|| tidied.clone());
        prop_assert!(meaning().iter().all(|m| !text.contains(m.as_str())));
        // only blanks are added
        let squeezed = |t: &str| t.replace(' ', "");
        prop_assert_eq!(squeezed(&text), squeezed(&tidied));
        prop_assert_eq!(neutralise(&text, &meaning()), None);
        prop_assert_eq!(neutral.is_some(), meaning().iter().any(|m| tidied.contains(m.as_str())));
    }

    #[test]
    fn containment_is_that_of_all_pairs(keys in prop::collection::vec("[ab]{0,12}", 1..30)) {
        let slow = |key: &String| !key.is_empty() && keys.iter().any(|k| k != key && k.contains(key.as_str()));
        prop_assert_eq!(contained(&keys), keys.iter().map(slow).collect::<Vec<_>>());
    }
}

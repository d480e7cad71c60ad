//! Tests of finding titles in texts.

use proptest::prelude::*;

use super::*;

#[test]
fn the_original_counts_substrings() {
    let names = ["Alien", "Aliens", "Heat", "M"];
    assert_eq!(legacy_match(&names[..3], "heat\nAlien"), Some(2));
    // "Alien" is part of it
    assert_eq!(legacy_match(&names[..3], "Aliens"), None);
    assert_eq!(legacy_match(&["Alien", "Heat"], "Something else"), None);
    // the film `M` is in every word with an m
    assert_eq!(legacy_match(&["Alien", "Heat", "M"], "Something else"), Some(2));
    assert_eq!(legacy_match(&["Heat", "M"], " The film: HEAT! "), None);
    assert_eq!(legacy_match(&["Heat"], " The film: HEAT! "), Some(0));
    // the empty name of film 266 makes every sample with it invalid
    assert_eq!(legacy_match(&["Heat", ""], "Heat"), None);
    assert_eq!(legacy_match(&["Heat", "heat"], "Heat"), None);
    assert_eq!(legacy_match(&["Heat"], ""), None);
}

#[test]
fn the_robust_rules_in_order() {
    let titles =
        ["Alien", "Aliens", "Aliens 3", "M", "Mars Attacks!", "Help", "Help!", "Schindler’s List", "千と千尋の神隠し"];
    let matcher = Matcher::new(titles);
    for (text, wanted) in [
        // whole
        ("aliens", Found::One(1)),
        ("Help!", Found::One(6)),
        ("help", Found::One(5)),
        ("schindler's LIST", Found::One(7)),
        ("ＡＬＩＥＮ", Found::One(0)),
        // bare
        ("\"Mars Attacks\".", Found::One(4)),
        ("'Help?'", Found::Several(vec![5, 6])),
        // inside, the longest at its place
        ("I would watch Aliens 3 tonight", Found::One(2)),
        ("次は『千と千尋の神隠し』です", Found::One(8)),
        ("the answer is M", Found::One(3)),
        ("Alien or Aliens", Found::Several(vec![0, 1])),
        // no whole word
        ("I'm sure it is something else", Found::Nothing),
        ("alienated", Found::Nothing),
        ("", Found::Nothing),
        ("!", Found::Nothing),
        // only the first line counts
        ("\n Alien \nAliens", Found::One(0)),
    ] {
        assert_eq!(matcher.find(text), wanted, "{text}");
    }
}

#[test]
fn equal_titles_are_told_apart_by_nothing() {
    let matcher = Matcher::new(["Chasing Amy (1997)", "Heat", "chasing  amy (1997)", ""]);
    assert_eq!(matcher.find("Chasing Amy (1997)"), Found::Several(vec![0, 2]));
    assert_eq!(matcher.find("Heat"), Found::One(1));
}

#[test]
fn normal_form() {
    for (raw, wanted) in [
        (" A\u{a0}B\t C ", "a b c"),
        ("Ｆｕｌｌ　Ｗｉｄｔｈ！", "full width!"),
        ("“Dungeons™ & Dragons®” – it’s…", "\"dungeons & dragons\" - it's..."),
        ("ÉCOLE", "école"),
        ("İ", "i\u{307}"),
    ] {
        assert_eq!(normalise(raw), wanted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn the_normal_form_stays(text in ".{0,30}") {
        let once = normalise(&text);
        prop_assert_eq!(normalise(&once), once.clone());
        prop_assert!(once.trim() == once && !once.contains("  "));
    }

    /// A title alone is always found, and a sentence around it never names a title that is not in the sentence.
    #[test]
    fn titles_are_found(titles in prop::collection::vec("[a-c]{1,3}( [a-c]{1,3}){0,2}", 1..12), pick: prop::sample::Index) {
        let matcher = Matcher::new(titles.iter().map(String::as_str));
        let said = &titles[pick.index(titles.len())];
        let same: Vec<usize> = (0..titles.len()).filter(|&i| titles[i] == *said).collect();
        let wanted = if let [one] = same[..] { Found::One(one) } else { Found::Several(same) };
        prop_assert_eq!(matcher.find(&said.to_uppercase()), wanted.clone());
        // z and y are in no title
        prop_assert_eq!(matcher.find(&format!("zz {said}, y")), wanted);
    }

    /// Where the text is not a title as a whole, what is found are exactly the maximal word sequences in it.
    #[test]
    fn longest_at_each_place(titles in prop::collection::btree_set("[a-b]{1}( [a-b]{1}){0,2}", 1..8), text in "[a-bz]( [a-bz]){3,8}") {
        let titles: Vec<String> = titles.into_iter().collect();
        let words: Vec<&str> = text.split(' ').collect();
        let mut spans = Vec::new();
        for (i, title) in titles.iter().enumerate() {
            let t: Vec<&str> = title.split(' ').collect();
            spans.extend((0..words.len()).filter(|&a| words[a..].starts_with(&t)).map(|a| (a, a + t.len(), i)));
        }
        let longest: BTreeSet<usize> = spans.iter()
            .filter(|(a, b, _)| !spans.iter().any(|(c, d, _)| c <= a && b <= d && d - c > b - a))
            .map(|s| s.2).collect();
        prop_assert_eq!(Matcher::new(titles.iter().map(String::as_str)).find(&text), Found::of(longest));
    }
}

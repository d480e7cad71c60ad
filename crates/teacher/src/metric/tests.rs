//! Tests of the rates.

use super::*;

/// Section 9, test 14 of the specification: three clear answers of each kind but one are judged alike by both rules, the
/// fifth only by the robust one.
#[test]
fn five_outputs_by_hand() {
    let rows: [([&str; 3], &str, usize); 5] = [
        (["Heat", "Fargo", "Speed"], "Fargo", 1),
        (["Heat", "Fargo", "Speed"], "  heat\nand more", 0),
        (["Heat", "Fargo", "Speed"], "Speed", 0),
        (["Heat", "Fargo", "Speed"], "the film Fargo", 2),
        (["Alien", "Aliens", "Speed"], "Aliens", 1),
    ];
    let judged: Vec<(Judged, usize)> = rows.iter().map(|(titles, said, t)| (Judged::new(titles, said), *t)).collect();
    assert_eq!(judged[4].0, Judged { legacy: None, found: vec![1] });
    let m = ChoiceMetrics::new(3, judged.iter().map(|(j, t)| (j, *t)));
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
    near(m.legacy.valid_ratio, 0.8);
    near(m.legacy.hr_valid.unwrap(), 0.5);
    near(m.legacy.hr, 0.4);
    // √(.4·.6/5), √(.5·.5/4), √(.8·.2/5)
    near(m.legacy.hr_se, 0.048f64.sqrt());
    near(m.legacy.hr_valid_se.unwrap(), 0.25);
    near(m.legacy.valid_ratio_se, 0.032f64.sqrt());
    near(m.robust.valid_ratio, 1.0);
    near(m.robust.hr, 0.6);
    near(m.robust.hr_valid.unwrap(), 0.6);
    assert_eq!((m.robust.n_valid, m.robust.n_correct, m.robust.n_ambiguous), (5, 3, 0));
}

#[test]
fn ambiguous_and_empty_outputs_are_not_valid() {
    let titles = ["Heat", "Fargo"];
    let judged = [Judged::new(&titles, "Heat or Fargo"), Judged::new(&titles, "")];
    let m = ChoiceMetrics::new(2, judged.iter().map(|j| (j, 0)));
    assert_eq!((m.robust.n_valid, m.robust.n_ambiguous, m.robust.hr_valid), (0, 1, None));
    assert_eq!((m.legacy.n_valid, m.legacy.hr), (0, 0.0));
    assert_eq!(ChoiceMetrics::new(0, []).robust, Rates::new(0, 0, 0, 0));
}

/// The sizes of the published test sets: one standard error of HR@1 is 5.1 / 4.5 / 1.5 points (specification, 0.10).
#[test]
fn standard_errors_of_the_published_sets() {
    for (n, correct, points) in [(95, 43, 5.1), (122, 64, 4.5), (1186, 599, 1.5)] {
        let se = 100.0 * Rates::new(n, n, correct, 0).hr_se;
        assert!((se - points).abs() < 0.05, "{n}: {se}");
    }
}

#[test]
fn the_json_has_the_documented_keys() {
    let m = ChoiceMetrics::new(20, []);
    let json = serde_json::to_value(&m).unwrap();
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "n_rows",
            "n_candidates",
            "n_valid",
            "n_correct",
            "n_ambiguous",
            "valid_ratio",
            "valid_ratio_se",
            "hr@1",
            "hr@1_se",
            "hr@1_valid",
            "hr@1_valid_se",
            "legacy"
        ]
    );
    assert!(json["hr@1_valid"].is_null() && json["legacy"]["hr@1"] == 0.0);
    assert_eq!(serde_json::from_value::<ChoiceMetrics>(json).unwrap(), m);
}

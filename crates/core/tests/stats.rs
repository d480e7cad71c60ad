//! The statistics against values made with numpy from the definitions (`fixtures/stats/make.py`).
#![allow(clippy::unwrap_used, reason = "tests: helpers outside of #[test] functions too")]

use anyo_core::stats::{Paired, Zeros, cohens_dz, holm, rank_biserial, two_sided, wilcoxon};
use serde_json::Value;

fn values() -> Value {
    serde_json::from_str(include_str!("fixtures/stats/values.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[track_caller]
fn near(got: f64, want: &Value, tolerance: f64) {
    let want = want.as_f64().unwrap();
    assert!((got - want).abs() <= tolerance * want.abs().max(1e-300), "{got} instead of {want}");
}

#[test]
fn tails_of_the_normal_distribution() {
    for tail in values()["tails"].as_array().unwrap() {
        // 1e-11: `1 - erf` loses digits below 2.5 standard deviations of erfc's argument
        near(two_sided(tail["z"].as_f64().unwrap()), &tail["p"], 1e-11);
    }
}

#[test]
fn signed_rank_tests_and_effect_sizes() {
    let values = values();
    let cases = values["wilcoxon"].as_array().unwrap();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let d = numbers(&case["d"]);
        let zeros = if case["zeros"] == "drop" { Zeros::Drop } else { Zeros::Pratt };
        let test = wilcoxon(&d, zeros);
        assert_eq!(
            (test.n as u64, test.exact),
            (case["n"].as_u64().unwrap(), case["exact"] == true),
            "{}",
            case["name"]
        );
        near(test.w_plus, &case["w_plus"], 0.0);
        near(test.w_minus, &case["w_minus"], 0.0);
        near(test.p, &case["p"], 1e-10);
        near(rank_biserial(&test).unwrap(), &case["rank_biserial"], 1e-14);
        near(cohens_dz(&d).unwrap(), &case["d_z"], 1e-12);
    }
}

#[test]
fn corrected_p_values() {
    let values = values();
    let corrected = holm(&numbers(&values["holm"]["p"]));
    for (got, want) in corrected.iter().zip(values["holm"]["corrected"].as_array().unwrap()) {
        near(*got, want, 1e-14);
    }
}

/// Ours with 20,000 resamples, numpy's with 200,000: ends of intervals within 0.001 (widths are 0.08 and 0.03), p within
/// four standard errors of 20,000 draws.
#[test]
fn the_paired_bootstrap_agrees_with_another_generator() {
    let boot = &values()["bootstrap"];
    let users: Vec<u32> = numbers(&boot["users"]).iter().map(|&u| u as u32).collect();
    let (a, b) = (numbers(&boot["a"]), numbers(&boot["b"]));
    let paired = Paired::new(&users, &[&a, &b]);
    assert_eq!(paired.n_users(), 150);
    near(paired.means()[0], &boot["mean_a"], 1e-12);
    near(paired.means()[1], &boot["mean_b"], 1e-12);
    let draws = paired.draw(20_000, 3, 2).unwrap();
    let difference = draws.difference(0, 1, 0.95);
    let ends = |got: [f64; 2], want: &Value| {
        for (got, want) in got.iter().zip(numbers(want)) {
            assert!((got - want).abs() < 1e-3, "{got} instead of {want}");
        }
    };
    ends(draws.interval(0, 0.95), &boot["interval_a"]);
    ends(difference.interval, &boot["interval_difference"]);
    let p = boot["p"].as_f64().unwrap();
    assert!((difference.p - p).abs() < 4.0 * 2.0 * (p / 2.0 / 20_000.0).sqrt() + 1e-4, "{} {p}", difference.p);
    // the other way round is the same test
    let back = draws.difference(1, 0, 0.95);
    assert_eq!((back.p, back.value), (difference.p, -difference.value));
}

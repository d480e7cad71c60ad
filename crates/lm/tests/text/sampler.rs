use anyo_lm::generate::{Sampler, SamplingConfig, draw};
use proptest::prelude::*;

use crate::common::json;

fn floats(value: &serde_json::Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[test]
fn equal_to_transformers() {
    let data = json("sampler/cases.json");
    let (mut cases, mut worst) = (0, 0f64);
    for row in data["rows"].as_array().unwrap() {
        let logits: Vec<f32> = floats(&row["logits"]).into_iter().map(|x| x as f32).collect();
        let mut seen: Vec<u32> = floats(&row["history"]).into_iter().map(|x| x as u32).collect();
        seen.sort_unstable();
        seen.dedup();
        for case in row["cases"].as_array().unwrap() {
            let number = |key: &str| case[key].as_f64().unwrap();
            let config = SamplingConfig {
                temperature: number("temperature"),
                top_k: number("top_k") as usize,
                top_p: number("top_p"),
                min_p: number("min_p"),
                repetition_penalty: number("repetition_penalty"),
                ..SamplingConfig::sample(1, 0)
            };
            config.check().unwrap();
            let mut got = Sampler::new(&config).probabilities(&mut logits.clone(), &seen).unwrap();
            got.sort_by_key(|&(id, _)| id);
            let ids: Vec<f64> = got.iter().map(|&(id, _)| f64::from(id)).collect();
            assert_eq!(ids, floats(&case["ids"]), "{config:?}");
            for ((_, p), q) in got.iter().zip(floats(&case["probs"])) {
                worst = worst.max((p - q).abs());
            }
            cases += 1;
        }
    }
    assert_eq!(cases, 51);
    // transformers scales logits in f32
    assert!(worst < 1e-6, "{worst}");
    println!("largest difference to transformers {worst:e}");
}

#[test]
fn frequencies_follow_the_probabilities() {
    let config = SamplingConfig { top_k: 5, temperature: 1.3, ..SamplingConfig::sample(1, 0) };
    let logits: Vec<f32> = (0..40).map(|i| ((i * 17) % 40) as f32 / 8.0).collect();
    let mut sampler = Sampler::new(&config);
    let wanted = sampler.probabilities(&mut logits.clone(), &[]).unwrap();
    assert_eq!(wanted.len(), 5);
    let n = 20_000;
    let mut counts = [0; 40];
    for place in 0..n {
        counts[sampler.pick(&mut logits.clone(), &[], draw(11, place)).unwrap() as usize] += 1;
    }
    for (id, p) in wanted {
        let got = f64::from(counts[id as usize]) / n as f64;
        // five standard errors
        assert!((got - p).abs() < 5.0 * (p * (1.0 - p) / n as f64).sqrt(), "{id}: {got} {p}");
    }
}

#[test]
fn ranges_are_checked_together() {
    let bad = SamplingConfig {
        temperature: 0.0,
        top_p: 1.5,
        min_p: f64::NAN,
        repetition_penalty: -1.0,
        max_new_tokens: 0,
        stop_strings: vec![String::new()],
        ..SamplingConfig::sample(1, 0)
    };
    let error = bad.check().unwrap_err().to_string();
    for part in [
        "temperature is 0",
        "top_p is 1.5",
        "min_p is NaN",
        "repetition_penalty is -1",
        "max_new_tokens is 0",
        "empty string",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn filters_keep_the_smallest_head(
        logits in prop::collection::vec(-8f32..8.0, 1..400),
        top_k in 0usize..300,
        top_p in 0.01f64..1.0,
        min_p in prop_oneof![Just(0.0), 0.0f64..1.0],
        temperature in 0.2f64..3.0,
    ) {
        let config = SamplingConfig { temperature, top_k, top_p, min_p, ..SamplingConfig::sample(1, 0) };
        let got = Sampler::new(&config).probabilities(&mut logits.clone(), &[]).unwrap();
        // by definition, with a full sort
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        if top_k > 0 && top_k < order.len() {
            let floor = logits[order[top_k - 1]];
            order.retain(|&i| logits[i] >= floor);
        }
        let weight = |i: usize| (f64::from(logits[i]) / temperature).exp();
        let total: f64 = order.iter().map(|&i| weight(i)).sum();
        let mut above = 0.0;
        let max = weight(order[0]);
        let kept: Vec<usize> = order.iter().copied().take_while(|&i| {
            let stays = above < top_p * total;
            above += weight(i);
            stays
        }).filter(|&i| weight(i) >= min_p * max * (1.0 - 1e-9)).collect();
        let ids: Vec<usize> = got.iter().map(|&(id, _)| id as usize).collect();
        // one token more or less where rounding decides
        prop_assert!(ids.len().abs_diff(kept.len()) <= 1, "{} {}", ids.len(), kept.len());
        let n = ids.len().min(kept.len());
        prop_assert_eq!(&ids[..n], &kept[..n]);
        let sum: f64 = got.iter().map(|&(_, p)| p).sum();
        prop_assert!((sum - 1.0).abs() < 1e-9);
        if min_p == 0.0 {
            // the mass is reached, and without the last token it is not
            let mass: f64 = ids.iter().map(|&i| weight(i) / total).sum();
            prop_assert!(mass >= top_p - 1e-9);
            prop_assert!(mass - weight(*ids.last().unwrap()) / total < top_p + 1e-9);
        }
    }
}

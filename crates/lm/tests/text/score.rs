use anyo_lm::{
    Pass,
    generate::{score, score_text},
};
use tch::{Kind, Tensor};

use crate::common::{Scripted, Tiny, tokenizer};

/// ln p of the tokens behind `prompt`, from one pass over the concatenation.
fn plain(model: &Tiny, prompt: &[u32], continuation: &[u32]) -> Vec<f32> {
    let log_p = model.plain(&[prompt, continuation].concat()).log_softmax(-1, Kind::Double);
    let at = |i: usize| log_p.double_value(&[(prompt.len() + i - 1) as i64, i64::from(continuation[i])]);
    (0..continuation.len()).map(|i| at(i) as f32).collect()
}

#[test]
fn equal_to_the_concatenation_without_cache() {
    let model = Tiny::new(50, 40, 3);
    let prompt = [4, 8, 15, 16, 23, 42];
    let continuations: Vec<Vec<u32>> =
        vec![vec![1, 2, 3], vec![9], vec![7, 7, 7, 7, 7, 7, 7, 7], vec![49], vec![1, 2, 4], (0..34).collect()];
    let mut worst = 0f32;
    for rows in [1, 2, 3, 100] {
        let scores = score(&model, &prompt, &continuations, rows, &Pass::default()).unwrap();
        assert_eq!(scores.len(), continuations.len());
        for (got, ids) in scores.iter().zip(&continuations) {
            let wanted = plain(&model, &prompt, ids);
            assert_eq!(got.log_probs.len(), ids.len());
            for (a, b) in got.log_probs.iter().zip(&wanted) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
                worst = worst.max((a - b).abs());
            }
            let sum: f64 = wanted.iter().map(|&p| f64::from(p)).sum();
            assert!((got.sum() - sum).abs() < 1e-4 && (got.mean() - sum / ids.len() as f64).abs() < 1e-5);
        }
    }
    println!("largest difference to the concatenation {worst:e}");
    assert!(score(&model, &prompt, &[], 4, &Pass::default()).unwrap().is_empty());
}

#[test]
fn a_gate_of_one_row_serves_all() {
    let model = Tiny::new(50, 40, 3);
    let gate = Tensor::from_slice(&[1f32]).view([1, 1]);
    let pass = Pass { gate: Some(&gate), ..Pass::default() };
    let continuations = vec![vec![1, 2, 3], vec![9, 5]];
    let with = score(&model, &[1, 2], &continuations, 2, &pass).unwrap();
    assert_eq!(with, score(&model, &[1, 2], &continuations, 2, &Pass::default()).unwrap());
}

#[test]
fn hand_computed() {
    // logits are 50 for the scripted token and 0 for the other 9: ln p = -ln(1 + 9 e^-50) = 0, or -50
    let model = Scripted::new(vec![vec![3, 4, 5]], 10);
    let scores = score(&model, &[0], &[vec![3], vec![6]], 8, &Pass::default()).unwrap();
    assert!(scores[0].sum().abs() < 1e-6 && (scores[1].mean() + 50.0).abs() < 1e-4, "{scores:?}");
}

#[test]
fn texts_are_tokenised_apart() {
    let (tokenizer, model) = (tokenizer("spm"), Tiny::new(720, 64, 8));
    let got = score_text(&model, &tokenizer, "the cat", &["sat", "the mat"], 2, &Pass::default()).unwrap();
    let prompt = tokenizer.encode("the cat", true).unwrap();
    assert_eq!(prompt[0], 1);
    for (text, got) in ["sat", "the mat"].iter().zip(got) {
        let wanted = plain(&model, &prompt, &tokenizer.encode(text, false).unwrap());
        assert!(got.log_probs.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}

#[test]
fn bad_requests_are_one_message() {
    let model = Tiny::new(50, 8, 3);
    let refused = |prompt: &[u32], continuation: &[u32], rows: usize| {
        score(&model, prompt, &[vec![1], continuation.to_vec()], rows, &Pass::default()).unwrap_err().to_string()
    };
    assert!(refused(&[1], &[], 2).contains("continuation 1 is empty"));
    assert!(refused(&[], &[1], 2).contains("the prompt is empty"));
    assert!(refused(&[1], &[50], 2).contains("continuation 1 holds token id 50"));
    assert!(refused(&[1], &[2], 0).contains("0 continuations"));
    let error = refused(&[1, 2, 3], &[1, 2, 3, 4, 5, 6], 2);
    assert!(
        error.contains("3 tokens and continuation 1 of 6 need 9 positions") && error.contains("context has 8"),
        "{error}"
    );
    // the context is just enough
    score(&model, &[1, 2, 3], &[vec![1, 2, 3, 4, 5]], 2, &Pass::default()).unwrap();
}

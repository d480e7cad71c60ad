//! The ranking terms of one target (spec section 2): what its candidates' scores cost, and the derivatives.

use crate::{
    config::NegativeTerm,
    pairs::{sigmoid, softplus},
};

/// `Σ_k w_k [-log σ(s_k)] + (Σ_k w_k) · mean over the negatives of f(s_n)`; the weights come with λ and everything else
/// that multiplies the row. The first `weights.len()` scores are the candidates', the others the negatives'.
///
/// Differs: the released negative term is `-log σ(1 - s_n)` where `-log σ(-s_n)` must have been meant; the paper has
/// positives only.
pub fn pointwise(weights: &[f32], term: NegativeTerm, scores: &[f32], by_score: &mut [f32]) -> f64 {
    let (candidates, negatives) = scores.split_at(weights.len());
    let (by_candidate, by_negative) = by_score.split_at_mut(weights.len());
    let (mut loss, mut all) = (0.0, 0.0);
    for ((&w, &s), g) in weights.iter().zip(candidates).zip(by_candidate) {
        let (w, s) = (f64::from(w), f64::from(s));
        loss += w * softplus(-s);
        *g = (-w * sigmoid(-s)) as f32;
        all += w;
    }
    let shift = if term == NegativeTerm::Released { 1.0 } else { 0.0 };
    let each = all / negatives.len().max(1) as f64;
    for (&s, g) in negatives.iter().zip(by_negative) {
        let s = f64::from(s) - shift;
        loss += each * softplus(s);
        *g = (each * sigmoid(s)) as f32;
    }
    loss
}

/// `w T² KL(q ‖ softmax(s / T))` over the list's items, q summing to 1.
pub fn listwise(q: &[f32], weight: f32, temperature: f64, scores: &[f32], by_score: &mut [f32]) -> f64 {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let scaled = |&s: &f32| f64::from(s - max) / temperature;
    let log_sum = scores.iter().map(|s| scaled(s).exp()).sum::<f64>().ln();
    let weight = f64::from(weight);
    let mut loss = 0.0;
    for ((&q, s), g) in q.iter().zip(scores).zip(by_score) {
        let (q, log_p) = (f64::from(q), scaled(s) - log_sum);
        if q > 0.0 {
            loss += q * (q.ln() - log_p);
        }
        *g = (weight * temperature * (log_p.exp() - q)) as f32;
    }
    weight * temperature * temperature * loss
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn item_5_losses() {
        // specs/dllm2rec.md section 13, item 5: s_pos = 2, s_neg = -1.
        let of = |term, scores: &[f32]| pointwise(&[1.0], term, scores, &mut [0.0; 2][..scores.len()]);
        assert!((of(NegativeTerm::Released, &[2.0, -1.0]) - 0.253_856).abs() < 1e-6);
        assert!((of(NegativeTerm::Fixed, &[2.0, -1.0]) - 0.440_190).abs() < 1e-6);
        assert!((of(NegativeTerm::Fixed, &[2.0]) - 0.126_928).abs() < 1e-6);
    }

    #[test]
    fn item_6_gradients() {
        for (term, wanted) in [(NegativeTerm::Fixed, 0.25), (NegativeTerm::Released, 0.134_471)] {
            let mut grad = [0.0; 2];
            pointwise(&[0.5], term, &[0.0, 0.0], &mut grad);
            assert!((grad[0] + 0.25).abs() < 1e-6 && (grad[1] - wanted).abs() < 1e-6, "{grad:?}");
        }
        // At s_n = 0 the terms are 0.693 and 0.313.
        let negative = |term| pointwise(&[1.0], term, &[100.0, 0.0], &mut [0.0; 2]);
        assert!((negative(NegativeTerm::Fixed) - std::f64::consts::LN_2).abs() < 1e-6);
        assert!((negative(NegativeTerm::Released) - 0.313_262).abs() < 1e-6);
    }

    #[test]
    fn listwise_by_differences() {
        let (q, scores) = ([0.6f32, 0.3, 0.1, 0.0], [0.5f32, -1.0, 2.0, 0.1]);
        let mut grad = [0.0; 4];
        let loss = listwise(&q, 0.7, 2.0, &scores, &mut grad);
        assert!(loss > 0.0);
        for k in 0..4 {
            let at = |by: f32| {
                let mut moved = scores;
                moved[k] += by;
                listwise(&q, 0.7, 2.0, &moved, &mut [0.0; 4])
            };
            let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((slope - f64::from(grad[k])).abs() < 1e-4, "{k}: {slope} {}", grad[k]);
        }
        // The teacher's own distribution costs nothing.
        let same: Vec<f32> = [0.5f32, 0.3, 0.2].iter().map(|q| 2.0 * q.ln()).collect();
        assert!(listwise(&[0.5, 0.3, 0.2], 1.0, 2.0, &same, &mut [0.0; 3]).abs() < 1e-6);
    }
}

//! Importance of the items of a teacher's list (spec section 1): position, confidence, consistency, and their mix.
//!
//! k counts the places of a list from 0; a list may be shorter than K. Weights carry no gradient.

use anyo_core::bundle::{deviation, gap_softmax};

use crate::config::{ConfidenceForm, WeightsConfig};

/// What the released code adds so that nothing is 0.
const RELEASED_FLOOR: f32 = 1e-8;

/// `w_k ∝ exp(-(k + 1) / β)`, sum 1 (DLLM2Rec, Eq. 6).
pub fn position(len: usize, beta: f64) -> Vec<f32> {
    let raw: Vec<f64> = (1..=len).map(|rank| (-(rank as f64) / beta).exp()).collect();
    let sum: f64 = raw.iter().sum();
    raw.iter().map(|w| (w / sum) as f32).collect()
}

/// Weights by distance, small is good, sum 1.
///
/// Differs: the paper takes one distance a row, that of the true item; the released code takes the candidates', as here.
/// Its `exp(-d)` (kept as [`ConfidenceForm::Released`]) gives all items the same weight as soon as distances are large;
/// [`ConfidenceForm::Gap`] depends on the gaps inside the row alone. A row whose distances are all alike has equal weights.
pub fn confidence(distances: &[f32], form: ConfidenceForm, tau: Option<f64>) -> Vec<f32> {
    match form {
        ConfidenceForm::Released => {
            let raw: Vec<f32> = distances.iter().map(|d| (-d).exp() + RELEASED_FLOOR).collect();
            let sum: f32 = raw.iter().sum();
            raw.iter().map(|w| w / sum).collect()
        }
        ConfidenceForm::Gap => gap_softmax(distances, tau.unwrap_or_else(|| deviation(distances))),
    }
}

/// Entropy of weights that sum to 1, in nats: log of their number when all are alike.
pub fn entropy(weights: &[f32]) -> f32 {
    weights.iter().filter(|w| **w > 0.0).map(|w| -w * w.ln()).sum()
}

/// The parts of the mix that the student has no say in: `γ_p w^p + γ_c w^c`.
pub fn fixed_part(distances: &[f32], position: &[f32], config: &WeightsConfig) -> (Vec<f32>, f32) {
    let by_distance = confidence(distances, config.form, config.tau);
    let (p, c) = (config.position as f32, config.confidence as f32);
    let mixed = position.iter().zip(&by_distance).map(|(wp, wc)| p * wp + c * wc).collect();
    (mixed, entropy(&by_distance))
}

/// The mix of a row, sum 1: what the student has no say in, plus γ_o for each item of which the bit in `both` says that
/// it is in the student's list too. All 0 where nothing has any weight.
///
/// Differs: the released code adds 1e-8 to each item's consistency, which only `released` does.
pub fn mix(fixed: &[f32], both: u64, consistency: f32, form: ConfidenceForm, out: &mut [f32]) {
    let floor = if form == ConfidenceForm::Released { RELEASED_FLOOR } else { 0.0 };
    let mut sum = 0.0;
    for (k, (w, &fixed)) in out.iter_mut().zip(fixed).enumerate() {
        let agreed = k < 64 && both >> k & 1 == 1;
        *w = fixed + consistency * (f32::from(u8::from(agreed)) + floor);
        sum += *w;
    }
    if sum > 0.0 {
        out.iter_mut().for_each(|w| *w /= sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: &[f32], want: &[f32]) {
        assert_eq!(got.len(), want.len());
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1.5e-6), "{got:?} against {want:?}");
    }

    // The hand values of specs/dllm2rec.md section 13.

    #[test]
    fn item_1_position() {
        near(&position(3, 1.0), &[0.665_241, 0.244_728, 0.090_031]);
        near(&position(10, 1.0)[..3], &[0.632_149, 0.232_555, 0.085_552]);
    }

    #[test]
    fn item_2_confidence() {
        let (released, gap) = (ConfidenceForm::Released, ConfidenceForm::Gap);
        near(&confidence(&[1.0, 2.0, 4.0], released, None), &[0.705_384, 0.259_496, 0.035_119]);
        near(&confidence(&[95.0, 96.0, 98.0], gap, Some(1.0)), &[0.705_385, 0.259_496, 0.035_119]);
        near(&confidence(&[95.0, 96.0, 98.0], released, None), &[1.0 / 3.0; 3]);
        // Units do not matter with the row's own deviation.
        let row = |unit: f32| confidence(&[1.0 * unit, 2.0 * unit, 4.0 * unit], gap, None);
        near(&row(1.0), &row(1000.0));
        near(&confidence(&[7.0; 4], gap, None), &[0.25; 4]);
        assert!((entropy(&[0.25; 4]) - 4f32.ln()).abs() < 1e-6 && entropy(&[1.0, 0.0]) == 0.0);
    }

    #[test]
    fn item_4_mix() {
        let config = |scale: f64| WeightsConfig {
            position: 0.3 * scale,
            confidence: 0.5 * scale,
            consistency: 0.1 * scale,
            beta: 1.0,
            form: ConfidenceForm::Gap,
            tau: Some(1.0),
        };
        let mixed = |config: &WeightsConfig, both: u64| {
            let (fixed, _) = fixed_part(&[1.0, 2.0, 4.0], &position(3, 1.0), config);
            let mut out = [0.0; 3];
            mix(&fixed, both, config.consistency as f32, config.form, &mut out);
            out
        };
        near(&mixed(&config(1.0), 0b010), &[0.613_627, 0.336_852, 0.049_521]);
        near(&mixed(&config(7.0), 0b010), &mixed(&config(1.0), 0b010));
        let released = WeightsConfig { form: ConfidenceForm::Released, ..config(1.0) };
        near(&mixed(&released, 0b010), &[0.613_627, 0.336_852, 0.049_521]);
        for both in 0..8 {
            assert!((mixed(&config(1.0), both).iter().sum::<f32>() - 1.0).abs() < 1e-6);
        }
        // Consistency alone and nothing in common: no weight, but as released all alike.
        let mut out = [1.0; 3];
        mix(&[0.0; 3], 0, 0.1, ConfidenceForm::Gap, &mut out);
        assert_eq!(out, [0.0; 3]);
        mix(&[0.0; 3], 0, 0.1, ConfidenceForm::Released, &mut out);
        near(&out, &[1.0 / 3.0; 3]);
    }
}

//! Cross-entropy of one row of logits on the CPU, in place: one read and one write of the row for loss and gradient.

use anyo_core::{
    best_of_machine,
    vecmath::{exp_in_place, max_of},
};

/// Numbers of the loss that are the same for every row.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowLoss {
    /// Factor of the gradient.
    pub(super) scale: f32,
    /// 1 / temperature.
    pub(super) inv_temperature: f32,
    /// ε of label smoothing.
    pub(super) smoothing: f32,
}

const LANES: usize = 16;
/// Elements that are summed in f32 before the sum goes into an f64: a vocabulary of 200000 loses no digits.
const PIECE: usize = 1024;

best_of_machine! {
    /// Loss of one row in nats; `scale · ∂loss/∂logit` is left in the row.
    pub(super) fn cross_entropy_row(row: &mut [f32], target: usize, c: RowLoss) -> f64 {
        let n = row.len() as f32;
        if c.inv_temperature != 1.0 {
            row.iter_mut().for_each(|x| *x *= c.inv_temperature);
        }
        let positive = row[target];
        let max = max_of(row);
        // Around the maximum, so that the sum of a large vocabulary loses no digits to a common offset.
        // Loops, not an iterator's sum: a closure would be compiled without the wide instructions.
        let mut rest = 0f64;
        if c.smoothing != 0.0 {
            for piece in row.chunks(PIECE) {
                rest += f64::from(sum_below(piece, max));
            }
        }
        let mut sum = 0f64;
        for piece in row.chunks_mut(PIECE) {
            sum += f64::from(exp_in_place(piece, max));
        }
        let outer = c.scale * c.inv_temperature;
        let (factor, uniform) = ((f64::from(outer) / sum) as f32, outer * c.smoothing / n);
        row.iter_mut().for_each(|x| *x = *x * factor - uniform);
        row[target] -= outer * (1.0 - c.smoothing);
        // (1−ε)(lse − z_y) + ε(lse − mean z), each difference taken around the maximum.
        let (log_sum, smoothing) = (sum.ln(), f64::from(c.smoothing));
        log_sum - (1.0 - smoothing) * f64::from(positive - max) - smoothing * rest / f64::from(n)
    }
}

/// Sum of `x − max`.
#[inline(always)]
fn sum_below(row: &[f32], max: f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|x| x - max).sum();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += x - max;
        }
    }
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: RowLoss = RowLoss { scale: 1.0, inv_temperature: 1.0, smoothing: 0.0 };

    #[test]
    fn smoothing_matches_the_hand_values() {
        // specs/so8t.md section 7 number 8: K = 4, logits (2,0,0,0), y = 0.
        for (smoothing, want) in [(0.0, 0.340_753_0), (0.1, 0.490_753_0)] {
            let loss = cross_entropy_row(&mut [2.0, 0.0, 0.0, 0.0], 0, RowLoss { smoothing, ..PLAIN });
            assert!((loss - want).abs() < 1e-6, "{loss} against {want}");
        }
        for smoothing in [0.0, 0.3] {
            let mut row = [1.5f32; 37];
            let loss = cross_entropy_row(&mut row, 36, RowLoss { smoothing, ..PLAIN });
            assert!((loss - 37f64.ln()).abs() < 1e-6, "{loss}");
            let want = 1.0 / 37.0 - smoothing / 37.0;
            assert!((row[3] - want).abs() < 1e-7 && (row[36] - (want - 1.0 + smoothing)).abs() < 1e-6);
        }
    }

    #[test]
    fn a_confident_prediction_at_a_large_vocabulary_has_the_floor_of_smoothing() {
        // specs/so8t.md section 2.8: K = 200064, ε = 0.1, floor 1.5457 at p_y = 1 − ε + ε/K.
        let k = 200_064usize;
        let (high, low) = (0.9 + 0.1 / k as f64, 0.1 / k as f64);
        let mut row = vec![low.ln() as f32; k];
        row[77] = high.ln() as f32;
        let loss = cross_entropy_row(&mut row, 77, RowLoss { smoothing: 0.1, ..PLAIN });
        assert!((loss - 1.545_715).abs() < 2e-5, "{loss}");
    }

    #[test]
    fn what_is_not_finite_shows_in_the_loss() {
        for bad in [f32::NAN, f32::INFINITY] {
            assert!(!cross_entropy_row(&mut [0.0, bad, 1.0], 0, PLAIN).is_finite());
        }
        let loss = cross_entropy_row(&mut [1e4, -1e4, 0.0], 1, PLAIN);
        assert!((loss - 2e4).abs() < 1.0);
    }
}

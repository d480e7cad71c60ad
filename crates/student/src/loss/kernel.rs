//! Loops over f32 rows on the CPU: several passes of libtorch fused into one while the row is in the first-level cache.
//!
//! Each is compiled twice, see [`best_of_machine`].

use anyo_core::{
    best_of_machine,
    vecmath::{exp_in_place, max_of},
};

best_of_machine! {
    /// Cross-entropy of one row of scores against `target`, in place: returns the loss in nats and leaves
    /// `scale * d loss / d score` in the row. Scores are multiplied by `1 / temperature` first.
    pub(crate) fn cross_entropy_row(row: &mut [f32], target: usize, scale: f32, inv_temperature: f32) -> f64 {
        if inv_temperature != 1.0 {
            row.iter_mut().for_each(|x| *x *= inv_temperature);
        }
        let positive = row[target];
        let max = max_of(row);
        let sum = exp_in_place(row, max);
        let factor = scale * inv_temperature / sum;
        row.iter_mut().for_each(|x| *x *= factor);
        row[target] -= scale * inv_temperature;
        f64::from(max) + f64::from(sum).ln() - f64::from(positive)
    }
}

best_of_machine! {
    /// DROS's term of one row (`specs`: log of the sum over the catalogue of `exp(p (s - y)^2 / beta)`, y one-hot), in
    /// place: returns the loss and leaves `scale * d loss / d score` in the row. `work` has the row's length.
    pub(crate) fn dros_row(
        row: &mut [f32],
        propensity: &[f32],
        target: usize,
        beta: f32,
        scale: f32,
        work: &mut [f32],
    ) -> f64 {
        let inv_beta = 1.0 / beta;
        row[target] -= 1.0;
        for ((a, &s), &p) in work.iter_mut().zip(row.iter()).zip(propensity) {
            *a = p * s * s * inv_beta;
        }
        let max = max_of(work);
        let sum = exp_in_place(work, max);
        let factor = 2.0 * scale * inv_beta / sum;
        for ((s, &e), &p) in row.iter_mut().zip(work.iter()).zip(propensity) {
            *s *= e * p * factor;
        }
        f64::from(max) + f64::from(sum).ln()
    }
}

best_of_machine! {
    /// Inner product of two vectors of equal length.
    pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
        let mut lanes = [0f32; 8];
        let (ca, cb) = (a.chunks_exact(8), b.chunks_exact(8));
        let rest: f32 = ca.remainder().iter().zip(cb.remainder()).map(|(x, y)| x * y).sum();
        for (x, y) in ca.zip(cb) {
            for i in 0..8 {
                lanes[i] = x[i].mul_add(y[i], lanes[i]);
            }
        }
        lanes.iter().sum::<f32>() + rest
    }
}

best_of_machine! {
    /// `y += a x`.
    pub(crate) fn axpy(y: &mut [f32], a: f32, x: &[f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = a.mul_add(x, *y);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_of_equal_scores_is_log_n() {
        let mut row = vec![2.0f32; 37];
        let loss = cross_entropy_row(&mut row, 5, 1.0, 1.0);
        assert!((loss - 37f64.ln()).abs() < 1e-6);
        assert!((row[0] - 1.0 / 37.0).abs() < 1e-7 && (row[5] - (1.0 / 37.0 - 1.0)).abs() < 1e-6);
    }

    #[test]
    fn dros_matches_the_hand_values() {
        // specs/dllm2rec.md section 13, item 7.
        let mut work = [0f32; 4];
        for (row, p, want) in [
            (vec![0.0f32; 4], vec![1.0f32; 4], 1.743_668),
            (vec![1.0, 0.0, 0.0, 0.0], vec![1.0; 4], 1.386_294),
            (vec![0.5, -1.0, 2.0], vec![0.6, 0.7, 0.8], 3.321_725),
        ] {
            let mut row = row;
            let n = row.len();
            let got = dros_row(&mut row, &p, 0, 1.0, 1.0, &mut work[..n]);
            assert!((got - want).abs() < 1e-5, "{got} against {want}");
        }
        let mut big = vec![100.0f32, 0.0];
        let got = dros_row(&mut big, &[1.0, 1.0], 0, 1.0, 1.0, &mut work[..2]);
        assert!((got - 9801.0).abs() < 1e-2 && big.iter().all(|x| x.is_finite()));
    }
}

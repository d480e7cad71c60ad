//! Loops over f32 rows on the CPU: several passes of libtorch fused into one while the row is in the first-level cache.
//!
//! Each loop is compiled twice, for any x86-64 and for AVX2 with FMA, and the better one the machine has is called.

/// Defines `$name` that calls the body compiled for the best instruction set present.
macro_rules! best_of_machine {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        #[inline]
        #[allow(clippy::too_many_arguments, reason = "loops over flat buffers")]
        pub(crate) fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, reason = "loops over flat buffers")]
            fn generic($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments, reason = "loops over flat buffers")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    generic($($arg),*)
                }
                if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
                    // SAFETY: both features were found just now.
                    return unsafe { avx2($($arg),*) };
                }
            }
            generic($($arg),*)
        }
    };
}
pub(crate) use best_of_machine;

const LANES: usize = 16;

/// `e^x` to about 2 units in the last place, with `x` first brought into -87..=88.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // e^x = 2^n · e^f with n = round(x / ln 2); adding 1.5·2^23 rounds and leaves n in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let f = n.mul_add(-1.428_606_8e-6, n.mul_add(-0.693_145_75, x));
    let mut p = 1.987_569_1e-4_f32;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p.mul_add(f, c);
    }
    let e = p.mul_add(f * f, f) + 1.0;
    let scale = f32::from_bits(
        ((shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32).wrapping_add(127) << 23) as u32,
    );
    e * scale
}

/// Largest value of a row.
#[inline(always)]
fn max_of(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            // Written so that it becomes one instruction; a NaN is caught later by the sum.
            *lane = if x > *lane { x } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
}

/// Replaces a row by `e^(x - max)` and returns the sum.
#[inline(always)]
fn exp_in_place(row: &mut [f32], max: f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let mut chunks = row.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *x = exp(*x - max);
            *lane += *x;
        }
    }
    let mut sum: f32 = lanes.iter().sum();
    for x in chunks.into_remainder() {
        *x = exp(*x - max);
        sum += *x;
    }
    sum
}

best_of_machine! {
    /// Cross-entropy of one row of scores against `target`, in place: returns the loss in nats and leaves
    /// `scale * d loss / d score` in the row. Scores are multiplied by `1 / temperature` first.
    fn cross_entropy_row(row: &mut [f32], target: usize, scale: f32, inv_temperature: f32) -> f64 {
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
    fn dros_row(row: &mut [f32], propensity: &[f32], target: usize, beta: f32, scale: f32, work: &mut [f32]) -> f64 {
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
    fn dot(a: &[f32], b: &[f32]) -> f32 {
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
    fn axpy(y: &mut [f32], a: f32, x: &[f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = a.mul_add(x, *y);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_exact_to_a_few_units() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let want = f64::from(x).exp();
            assert!((f64::from(exp(x)) - want).abs() <= want * 3e-7, "e^{x}: {} against {want}", exp(x));
        }
        assert_eq!(exp(-200.0), exp(-87.0));
    }

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

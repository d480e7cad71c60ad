//! Loops over f32 rows on the CPU that are compiled for the vector units of the machine they run on.

/// Defines a function whose body is compiled twice, for any x86-64 and for AVX2 with FMA, and which calls the better
/// form that the machine has.
///
/// Both give the same bits: rustc does not fuse a multiplication with an addition by itself, and `f32::mul_add` is one
/// rounding everywhere (on machines without FMA slowly). Functions that the body calls should be `#[inline(always)]`,
/// or they stay compiled for any x86-64.
#[macro_export]
macro_rules! best_of_machine {
    ($(#[$doc:meta])* $vis:vis fn $name:ident $(<$t:ident: $bound:path>)? ($($arg:ident: $ty:ty),* $(,)?)
        $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        #[inline]
        #[allow(clippy::too_many_arguments, reason = "loops over flat buffers")]
        $vis fn $name $(<$t: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, reason = "loops over flat buffers")]
            fn generic $(<$t: $bound>)? ($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments, reason = "loops over flat buffers")]
                fn avx2 $(<$t: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
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

const LANES: usize = 16;

/// `e^x` to about two units in the last place, with `x` first brought into −87..=88.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
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

/// Largest value of a row; −∞ of an empty one. A NaN is passed over: the sum of [`exp_in_place`] shows it.
#[inline(always)]
pub fn max_of(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            // Written so that it becomes one instruction.
            *lane = if x > *lane { x } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
}

/// Replaces each x of a row by `e^(x − max)` and returns the sum.
#[inline(always)]
pub fn exp_in_place(row: &mut [f32], max: f32) -> f32 {
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
    fn rows_of_any_length() {
        for n in [0usize, 1, 15, 16, 17, 40] {
            let mut row: Vec<f32> = (0..n).map(|i| ((i * 7) % 11) as f32 - 20.0).collect();
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(max_of(&row), max);
            let want: f64 = row.iter().map(|x| f64::from(x - max).exp()).sum();
            assert!((f64::from(exp_in_place(&mut row, max)) - want).abs() <= want * 1e-6, "{n}");
        }
    }
}

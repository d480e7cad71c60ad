//! Tail of the normal distribution.

/// Terms and steps beyond which nothing changes in f64.
const STEPS: usize = 200;

/// The complementary error function, relative error below 1e-11 where it is not subnormal.
///
/// Below 2.5 the series `erf x = 2/√π · e^(−x²) · Σ 2ⁿ x^(2n+1) / (2n+1)!!`, whose terms are all positive; above it the
/// continued fraction `x + (1/2)/(x + 1/(x + (3/2)/(x + …)))`, evaluated from its end (Abramowitz and Stegun 7.1.6, 7.1.14).
pub fn erfc(x: f64) -> f64 {
    if x.is_nan() {
        return f64::NAN;
    }
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    let root = std::f64::consts::PI.sqrt();
    if x < 2.5 {
        let (mut term, mut sum) = (x, x);
        for n in 1..STEPS {
            term *= 2.0 * x * x / (2 * n + 1) as f64;
            sum += term;
            if term < sum * 1e-17 {
                break;
            }
        }
        return 1.0 - 2.0 / root * (-x * x).exp() * sum;
    }
    let fraction = (1..STEPS).rev().fold(x, |below, n| x + n as f64 / 2.0 / below);
    (-x * x).exp() / (root * fraction)
}

/// Probability that a standard normal number is at least as far from 0 as `z`.
pub fn two_sided(z: f64) -> f64 {
    erfc(z.abs() / std::f64::consts::SQRT_2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of Abramowitz and Stegun, table 7.1, and of the normal table.
    #[test]
    fn published_values() {
        assert_eq!(erfc(0.0), 1.0);
        assert!((erfc(0.5) - 0.479_500_122_186_953_5).abs() < 1e-15);
        assert!((erfc(-1.0) - 1.842_700_792_949_714_8).abs() < 1e-15);
        assert!((erfc(2.0) / 4.677_734_981_047_266e-3 - 1.0).abs() < 1e-12);
        assert!((two_sided(1.959_963_984_540_054) - 0.05).abs() < 1e-14);
        assert!((two_sided(-2.575_829_303_548_901) - 0.01).abs() < 1e-14);
        assert!(erfc(40.0) == 0.0 && erfc(f64::INFINITY) == 0.0 && erfc(f64::NAN).is_nan());
    }
}

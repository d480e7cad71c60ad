//! How large a difference is, and how much a figure moves with the seed.

use super::Wilcoxon;

/// Cohen's d of paired differences, `mean / sample deviation` (Cohen 1988, d_z); `None` with fewer than two
/// differences or when all are equal.
pub fn cohens_dz(differences: &[f64]) -> Option<f64> {
    let spread = Spread::of(differences)?;
    let deviation = spread.deviation?;
    // Differences that are all equal have rounding left in their deviation.
    (deviation > 1e-12 * spread.mean.abs()).then(|| spread.mean / deviation)
}

/// The matched-pairs rank-biserial correlation `(W⁺ − W⁻) / (W⁺ + W⁻)`, −1 to 1 (Kerby 2014); `None` when no pair
/// differs.
pub fn rank_biserial(test: &Wilcoxon) -> Option<f64> {
    let total = test.w_plus + test.w_minus;
    (total > 0.0).then(|| (test.w_plus - test.w_minus) / total)
}

/// A figure over several seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Number of values.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Sample deviation (divisor n − 1); `None` with one value.
    pub deviation: Option<f64>,
}

impl Spread {
    /// Mean and deviation; `None` without values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Some(Self { n, mean, deviation: (n > 1).then(|| (squares / (n - 1) as f64).sqrt()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Zeros, wilcoxon};

    #[test]
    fn by_hand() {
        // 1 2 3 6: mean 3, squares 4 + 1 + 0 + 9 = 14, deviation √(14/3)
        let values = [1.0, 2.0, 3.0, 6.0];
        let spread = Spread::of(&values).unwrap();
        assert_eq!((spread.n, spread.mean), (4, 3.0));
        assert!((spread.deviation.unwrap() - (14.0f64 / 3.0).sqrt()).abs() < 1e-15);
        assert!((cohens_dz(&values).unwrap() - 3.0 / (14.0f64 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!(cohens_dz(&[0.1; 7]), None);
        assert_eq!(cohens_dz(&[1.0]), None);
        assert_eq!(Spread::of(&[]), None);
        // ranks 1 2 3, the second negative: (4 − 2) / 6
        let test = wilcoxon(&[0.1, -0.2, 0.3], Zeros::Drop);
        assert!((rank_biserial(&test).unwrap() - 1.0 / 3.0).abs() < 1e-15);
        assert_eq!(rank_biserial(&wilcoxon(&[0.0, 0.0], Zeros::Drop)), None);
    }
}

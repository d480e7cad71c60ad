//! Wilcoxon's signed-rank test of paired differences.

use super::two_sided;

/// So many differing pairs are tested exactly, more by the normal approximation.
pub const EXACT_UP_TO: usize = 25;
/// Differences are compared on this grid: averages over seeds carry rounding that would break ties and hide zeros.
const GRID: f64 = (1u64 << 40) as f64;
/// Doubled ranks whose sum is above this are not tabulated (few differences among very many zeros under Pratt).
const TABLE: usize = 1 << 16;

/// What becomes of pairs that do not differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zeros {
    /// They are left out before ranking (Wilcoxon 1945).
    Drop,
    /// They are ranked with the others and left out afterwards (Pratt 1959).
    Pratt,
}

/// Outcome of [`wilcoxon`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wilcoxon {
    /// Pairs that differ.
    pub n: usize,
    /// Sum of the ranks of positive differences.
    pub w_plus: f64,
    /// Sum of the ranks of negative differences.
    pub w_minus: f64,
    /// Two-sided p value, 0..=1; 1 when no pair differs.
    pub p: f64,
    /// Whether `p` comes from the exact distribution.
    pub exact: bool,
}

/// Tests whether `differences` lie symmetrically around 0. Equal sizes share the mean of their ranks.
///
/// Up to [`EXACT_UP_TO`] differing pairs the distribution over all sign changes is counted, ties included. Above, `W⁺` is
/// taken as normal with mean `Σr/2` and variance `Σr²/4`, which is `n(n+1)(2n+1)/24` less the usual terms for ties and
/// zeros; no continuity correction (as scipy's default). Differences are read on a grid of 2⁻⁴⁰; they must be finite
/// and of the size of metrics.
pub fn wilcoxon(differences: &[f64], zeros: Zeros) -> Wilcoxon {
    let mut sizes: Vec<(f64, bool)> =
        differences.iter().map(|d| (d * GRID).round()).map(|d| (d.abs(), d > 0.0)).collect();
    if zeros == Zeros::Drop {
        sizes.retain(|(size, _)| *size > 0.0);
    }
    sizes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut ranks = Vec::with_capacity(sizes.len());
    let (mut w_plus, mut w_minus, mut start) = (0.0, 0.0, 0);
    while start < sizes.len() {
        let end = start + sizes[start..].partition_point(|(size, _)| *size == sizes[start].0);
        // places start + 1 ..= end share their mean; doubled it is whole
        let doubled = (start + 1 + end) as u64;
        for (size, positive) in &sizes[start..end] {
            if *size > 0.0 {
                ranks.push(doubled);
                *(if *positive { &mut w_plus } else { &mut w_minus }) += doubled as f64 / 2.0;
            }
        }
        start = end;
    }
    let n = ranks.len();
    let total: u64 = ranks.iter().sum();
    let exact = n <= EXACT_UP_TO && total < TABLE as u64;
    let p = match (n, exact) {
        (0, _) => 1.0,
        (_, true) => exact_p(&ranks, total, f64::min(w_plus, w_minus)),
        (_, false) => {
            let squares: f64 = ranks.iter().map(|&r| (r as f64 / 2.0).powi(2)).sum();
            two_sided((w_plus - total as f64 / 4.0) / (squares / 4.0).sqrt())
        }
    };
    Wilcoxon { n, w_plus, w_minus, p: p.min(1.0), exact }
}

/// Twice the share of the 2ⁿ sign patterns whose positive ranks sum to at most `smaller`.
fn exact_p(doubled: &[u64], total: u64, smaller: f64) -> f64 {
    let mut ways = vec![0.0; total as usize + 1];
    ways[0] = 1.0;
    for &rank in doubled {
        let rank = rank as usize;
        for sum in (rank..ways.len()).rev() {
            ways[sum] += ways[sum - rank];
        }
    }
    let limit = (smaller * 2.0).round() as usize;
    2.0 * ways[..=limit.min(total as usize)].iter().sum::<f64>() / 2f64.powi(doubled.len() as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // all five positive: only one of 32 patterns is as extreme on each side
        let all = wilcoxon(&[0.1, 0.2, 0.3, 0.4, 0.5], Zeros::Drop);
        assert_eq!((all.n, all.w_plus, all.w_minus, all.p, all.exact), (5, 15.0, 0.0, 2.0 / 32.0, true));
        // sizes 1 1 2 with the 2 negative: ranks 1.5 1.5 3, W⁻ = 3; sums ≤ 3 are {}, {1.5}, {1.5}, {3}, {1.5, 1.5}: 5 of 8
        let tied = wilcoxon(&[0.25, 0.25, -0.5], Zeros::Drop);
        assert_eq!((tied.w_plus, tied.w_minus, tied.p), (3.0, 3.0, 1.0));
        // a zero takes rank 1 under Pratt
        let pratt = wilcoxon(&[0.0, 0.25, -0.5], Zeros::Pratt);
        assert_eq!((pratt.n, pratt.w_plus, pratt.w_minus), (2, 2.0, 3.0));
        assert_eq!(wilcoxon(&[0.0; 40], Zeros::Pratt).p, 1.0);
        assert_eq!(wilcoxon(&[], Zeros::Drop).n, 0);
    }

    #[test]
    fn rounding_breaks_no_tie() {
        let third = (0.1 + 0.2 + 0.3) / 3.0 - 0.2;
        assert_eq!(wilcoxon(&[third, 0.3 - 0.2, -0.1], Zeros::Drop).n, 2);
        assert_eq!(wilcoxon(&[0.3 - 0.2, -0.1], Zeros::Drop).w_plus, 1.5);
    }
}

//! Holm's step-down correction.

/// The corrected p value of each test, in the order given: `max over the smaller ones of min(1, (m − rank + 1)·p)`
/// (Holm 1979). Below α it may be called significant, whatever the tests' dependence, with a chance of at most α for
/// any false one among all m.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut corrected = vec![0.0; p.len()];
    let mut largest: f64 = 0.0;
    for (place, &test) in order.iter().enumerate() {
        largest = largest.max((p.len() - place) as f64 * p[test]).min(1.0);
        corrected[test] = largest;
    }
    corrected
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0.01·4, 0.005·… by hand: sorted 0.005, 0.01, 0.03, 0.04 → 0.02, 0.03, 0.06, max(0.06, 0.04).
    #[test]
    fn by_hand() {
        let got = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (got, want) in got.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((got - want).abs() < 1e-15, "{got} {want}");
        }
        assert!(holm(&[]).is_empty());
        assert_eq!(holm(&[0.7, 0.6, 1.0]), [1.0, 1.0, 1.0]);
        assert_eq!(holm(&[0.2]), [0.2]);
    }
}

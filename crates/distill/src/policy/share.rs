//! Keeping a share of a batch.

/// 1 for the `⌈share·N⌉` targets with the largest keys, 0 for the others.
///
/// Equal keys go by the target's number, the smaller first, so the choice does not depend on the order of the batch. A
/// share above 0 keeps at least one target of any batch: a batch of one is always kept. NaN counts as the smallest key.
pub(super) fn keep_largest(keys: impl Iterator<Item = f32>, targets: &[u32], share: f64) -> Vec<f32> {
    let mut order: Vec<(f32, usize)> =
        keys.map(|key| if key.is_nan() { f32::NEG_INFINITY } else { key }).zip(0..targets.len()).collect();
    debug_assert_eq!(order.len(), targets.len(), "a signal that was asked for is not there");
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(targets[a.1].cmp(&targets[b.1])).then(a.1.cmp(&b.1)));
    let mut weights = vec![0.0; targets.len()];
    for &(_, at) in order.iter().take(n_kept(share, targets.len())) {
        weights[at] = 1.0;
    }
    weights
}

/// `⌈share·n⌉`, safe against `0.1 · 30 = 3.0000000000000004`.
fn n_kept(share: f64, n: usize) -> usize {
    if share <= 0.0 || n == 0 {
        return 0;
    }
    ((share * n as f64 - 1e-9).ceil().max(1.0) as usize).min(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_small_batches_and_rounding() {
        let keep = |keys: &[f32], targets: &[u32], share| keep_largest(keys.iter().copied(), targets, share);
        assert_eq!(keep(&[0.1, 0.9, 0.5, 0.7], &[0, 1, 2, 3], 0.5), [0.0, 1.0, 0.0, 1.0]);
        assert_eq!(keep(&[2.0, 2.0, 2.0], &[9, 4, 7], 0.5), [0.0, 1.0, 1.0], "ties: the smaller number");
        assert_eq!(keep(&[f32::NAN, -5.0], &[0, 1], 0.5), [0.0, 1.0]);
        assert_eq!(keep(&[3.0], &[8], 0.01), [1.0]);
        assert_eq!(keep(&[3.0, 1.0], &[8, 9], 0.0), [0.0, 0.0]);
        assert_eq!(keep(&[3.0, 1.0], &[8, 9], 1.0), [1.0, 1.0]);
        assert!(keep(&[], &[], 0.5).is_empty());
        let counts = [(0.1, 30), (0.3, 10), (0.7, 10), (0.25, 5), (1.0, 7), (0.5, 1)].map(|(s, n)| n_kept(s, n));
        assert_eq!(counts, [3, 3, 7, 2, 7, 1]);
    }
}

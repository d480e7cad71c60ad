//! Percentile bootstrap over users for the means of many figures at once.

use std::thread;

use rand::Rng;

use crate::seed::{self, Stream};

/// Sums per cluster (user), one column per figure and the number of rows as the last column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sums {
    /// Number of columns, the row count included.
    pub width: usize,
    /// `[clusters · width]`.
    pub values: Vec<f64>,
}

impl Sums {
    pub(crate) fn n_clusters(&self) -> usize {
        self.values.len() / self.width
    }

    /// The mean of each figure over all rows, `[width - 1]`.
    pub(crate) fn means(&self) -> Vec<f64> {
        let mut total = vec![0.0; self.width];
        for cluster in self.values.chunks_exact(self.width) {
            add(&mut total, cluster);
        }
        divide(total)
    }

    /// Standard error of each mean, users drawn independently: `√(U/(U−1) · Σᵤ (sᵤ − m·nᵤ)²) / Σ n`, which is the
    /// usual `s/√U` when every user has one row. `None` with fewer than two users.
    pub(crate) fn standard_errors(&self, means: &[f64]) -> Option<Vec<f64>> {
        let users = self.n_clusters() as f64;
        if users < 2.0 {
            return None;
        }
        let mut squares = vec![0.0; means.len()];
        let mut rows = 0.0;
        for cluster in self.values.chunks_exact(self.width) {
            let count = cluster[means.len()];
            rows += count;
            for ((square, &sum), &mean) in squares.iter_mut().zip(cluster).zip(means) {
                *square += (sum - mean * count).powi(2);
            }
        }
        Some(squares.into_iter().map(|square| (square * users / (users - 1.0)).sqrt() / rows).collect())
    }

    /// Percentile interval `[low, high]` of each mean over `resamples` draws of the users with replacement.
    ///
    /// Resample `i` has a random stream of its own, so the result does not depend on `threads`. `None` without
    /// resamples or with fewer than two users.
    pub(crate) fn intervals(
        &self,
        resamples: usize,
        confidence: f64,
        seed: u64,
        threads: usize,
    ) -> Option<Vec<[f64; 2]>> {
        if resamples == 0 || self.n_clusters() < 2 {
            return None;
        }
        let figures = self.width - 1;
        let mut draws = vec![0.0; resamples * figures];
        let share = resamples.div_ceil(threads.max(1));
        thread::scope(|scope| {
            for (part, out) in draws.chunks_mut(share * figures).enumerate() {
                scope.spawn(move || {
                    for (i, out) in out.chunks_exact_mut(figures).enumerate() {
                        out.copy_from_slice(&self.resample(seed, (part * share + i) as u64));
                    }
                });
            }
        });
        let tail = (1.0 - confidence) / 2.0;
        let interval = |figure: usize| {
            let mut column: Vec<f64> = draws.iter().skip(figure).step_by(figures).copied().collect();
            column.sort_unstable_by(f64::total_cmp);
            [quantile(&column, tail), quantile(&column, 1.0 - tail)]
        };
        Some((0..figures).map(interval).collect())
    }

    fn resample(&self, seed: u64, resample: u64) -> Vec<f64> {
        let mut rng = seed::rng(seed, Stream::Bootstrap, 0, resample);
        let users = self.n_clusters() as u64;
        let mut total = vec![0.0; self.width];
        for _ in 0..users {
            // multiply and shift: its bias is below users / 2³², far under the noise of a resample
            let user = ((u64::from(rng.next_u32()) * users) >> 32) as usize;
            add(&mut total, &self.values[user * self.width..(user + 1) * self.width]);
        }
        divide(total)
    }
}

fn add(total: &mut [f64], part: &[f64]) {
    for (total, part) in total.iter_mut().zip(part) {
        *total += part;
    }
}

/// Sums over the last column, which goes.
fn divide(mut total: Vec<f64>) -> Vec<f64> {
    let rows = total.pop().unwrap_or(0.0);
    total.iter_mut().for_each(|sum| *sum = if rows > 0.0 { *sum / rows } else { 0.0 });
    total
}

/// The quantile with linear interpolation between the two nearest of `sorted`, which must not be empty.
pub(crate) fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q * (sorted.len() - 1) as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_row_each(values: &[f64]) -> Sums {
        Sums { width: 2, values: values.iter().flat_map(|&v| [v, 1.0]).collect() }
    }

    #[test]
    fn quantiles_interpolate() {
        let sorted = [1.0, 2.0, 4.0, 8.0, 16.0];
        assert_eq!(quantile(&sorted, 0.0), 1.0);
        assert_eq!(quantile(&sorted, 0.5), 4.0);
        assert_eq!(quantile(&sorted, 0.625), 6.0);
        assert_eq!(quantile(&sorted, 1.0), 16.0);
        assert_eq!(quantile(&[3.0], 0.3), 3.0);
    }

    #[test]
    fn the_standard_error_is_the_textbook_one() {
        // 1 2 3 4: s² = 5/3, s/√4 = 0.645497
        let sums = one_row_each(&[1.0, 2.0, 3.0, 4.0]);
        let error = sums.standard_errors(&sums.means()).unwrap();
        assert!((error[0] - 0.645_497_224).abs() < 1e-9);
        assert!(one_row_each(&[1.0]).standard_errors(&[1.0]).is_none());
    }

    #[test]
    fn rows_of_one_user_are_drawn_together() {
        // two users, three rows: means (1 + 1 + 0) / 3; a resample holds user 0 twice, both, or user 1 twice
        let sums = Sums { width: 2, values: vec![2.0, 2.0, 0.0, 1.0] };
        assert_eq!(sums.means(), [2.0 / 3.0]);
        for i in 0..50 {
            let mean = sums.resample(3, i)[0];
            assert!([0.0, 2.0 / 3.0, 1.0].contains(&mean), "{mean}");
        }
    }

    /// 400 users of which 120 hit: the normal interval is 0.3 ± 1.96·√(0.21/400) = [0.2551, 0.3449].
    #[test]
    fn the_interval_of_a_share_agrees_with_the_normal_one() {
        let hits: Vec<f64> = (0..400).map(|i| f64::from(u8::from(i < 120))).collect();
        let sums = one_row_each(&hits);
        let [low, high] = sums.intervals(2000, 0.95, 1, 2).unwrap()[0];
        assert!((low - 0.2551).abs() < 0.006 && (high - 0.3449).abs() < 0.006, "{low} {high}");
        assert_eq!(sums.intervals(50, 0.95, 1, 1), sums.intervals(50, 0.95, 1, 7));
        assert_ne!(sums.intervals(50, 0.95, 1, 1), sums.intervals(50, 0.95, 2, 1));
        assert!(sums.intervals(0, 0.95, 1, 1).is_none());
        assert_eq!(one_row_each(&[0.5; 9]).intervals(20, 0.9, 1, 3).unwrap(), [[0.5, 0.5]]);
    }
}

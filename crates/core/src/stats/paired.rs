//! Values of several methods on the same rows, resampled by user.

use std::{collections::HashMap, thread};

use rand::Rng;

use crate::{
    eval::bootstrap::{Sums, quantile},
    seed::{self, Stream},
};

/// Values on the same rows, one column for each method and metric, summed for each user.
///
/// Every mean is over rows; users are what is drawn, with all their rows, since the rows of one user are alike.
#[derive(Debug, Clone)]
pub struct Paired {
    sums: Sums,
    /// Rows of each user, `[users]`: the last column of `sums` once more, close together.
    rows: Vec<f64>,
}

/// A difference of two means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// The difference on the rows themselves.
    pub value: f64,
    /// Percentile interval `[low, high]`.
    pub interval: [f64; 2],
    /// Two-sided p value, never below `2 / (resamples + 1)`.
    pub p: f64,
}

/// The means of every column under each resample of the users.
#[derive(Debug, Clone)]
pub struct Draws {
    /// `[resamples · columns]`
    values: Vec<f64>,
    means: Vec<f64>,
}

impl Paired {
    /// From the user of each row, `[rows]`, and columns of values, `[rows]` each.
    pub fn new(users: &[u32], columns: &[&[f64]]) -> Self {
        let width = columns.len() + 1;
        let mut place: HashMap<u32, usize> = HashMap::with_capacity(users.len());
        let mut values: Vec<f64> = Vec::with_capacity(users.len() * width);
        for (row, &user) in users.iter().enumerate() {
            let next = place.len();
            let start = *place.entry(user).or_insert(next) * width;
            values.resize(values.len().max(start + width), 0.0);
            for (sum, column) in values[start..].iter_mut().zip(columns) {
                *sum += column[row];
            }
            values[start + width - 1] += 1.0;
        }
        let rows = values.chunks_exact(width).map(|user| user[width - 1]).collect();
        Self { sums: Sums { width, values }, rows }
    }

    /// Number of different users.
    pub fn n_users(&self) -> usize {
        self.sums.n_clusters()
    }

    /// Mean of each column over the rows, `[columns]`; 0 without rows.
    pub fn means(&self) -> Vec<f64> {
        self.sums.means()
    }

    /// Column `a` less column `b` for each user: the mean over the user's rows, `[users]`.
    pub fn user_differences(&self, a: usize, b: usize) -> Vec<f64> {
        let width = self.sums.width;
        self.sums.values.chunks_exact(width).map(|user| (user[a] - user[b]) / user[width - 1]).collect()
    }

    /// Draws the users `resamples` times with replacement, all columns together; `None` without resamples or columns or with
    /// fewer than two users. The result depends on `seed` and not on `threads`.
    pub fn draw(&self, resamples: usize, seed: u64, threads: usize) -> Option<Draws> {
        let columns = self.sums.width - 1;
        if resamples == 0 || columns == 0 || self.n_users() < 2 {
            return None;
        }
        // Most users miss everything: of them only the rows count.
        let users = self.sums.values.chunks_exact(self.sums.width).enumerate();
        let hit: Vec<usize> =
            users.filter(|(_, user)| user[..columns].iter().any(|&v| v != 0.0)).map(|(at, _)| at).collect();
        let mut values = vec![0.0; resamples * columns];
        let share = resamples.div_ceil(threads.max(1));
        thread::scope(|scope| {
            for (part, out) in values.chunks_mut(share * columns).enumerate() {
                let hit = &hit;
                scope.spawn(move || {
                    let mut times = vec![0; self.n_users()];
                    for (i, out) in out.chunks_exact_mut(columns).enumerate() {
                        self.resample(hit, seed, (part * share + i) as u64, &mut times, out);
                    }
                });
            }
        });
        Some(Draws { values, means: self.means() })
    }

    /// One resample: `times` `[users]` is room to count how often each user was drawn, `out` `[columns]` gets the means. Users
    /// are added in their order and not in that of the draws, so that memory is read once from front to back.
    fn resample(&self, hit: &[usize], seed: u64, number: u64, times: &mut [u32], out: &mut [f64]) {
        let width = self.sums.width;
        let mut rng = seed::rng(seed, Stream::Bootstrap, 0, number);
        let users = times.len() as u64;
        times.fill(0);
        for _ in 0..users {
            // multiply and shift: its bias is below users / 2³², far under the noise of a resample
            times[((u64::from(rng.next_u32()) * users) >> 32) as usize] += 1;
        }
        let rows: f64 = times.iter().zip(&self.rows).map(|(&times, rows)| f64::from(times) * rows).sum();
        out.fill(0.0);
        for &user in hit.iter().filter(|&&user| times[user] > 0) {
            let weight = f64::from(times[user]);
            for (sum, value) in out.iter_mut().zip(&self.sums.values[user * width..]) {
                *sum += weight * value;
            }
        }
        out.iter_mut().for_each(|sum| *sum /= rows);
    }
}

impl Draws {
    fn sorted(&self, value: impl Fn(&[f64]) -> f64) -> Vec<f64> {
        let mut drawn: Vec<f64> = self.values.chunks_exact(self.means.len()).map(value).collect();
        drawn.sort_unstable_by(f64::total_cmp);
        drawn
    }

    /// Percentile interval of a column's mean at `confidence`.
    pub fn interval(&self, column: usize, confidence: f64) -> [f64; 2] {
        percentiles(&self.sorted(|draw| draw[column]), confidence)
    }

    /// The mean of column `a` less that of column `b`, from the same resamples (the paired bootstrap).
    ///
    /// `p = 2·min(#{d* ≤ 0} + 1, #{d* ≥ 0} + 1) / (resamples + 1)`, at most 1: the level at which the percentile interval
    /// just touches 0 (Efron and Tibshirani 1993, chapter 13; the added ones as Davison and Hinkley 1997, 4.2.3).
    pub fn difference(&self, a: usize, b: usize, confidence: f64) -> Difference {
        let drawn = self.sorted(|draw| draw[a] - draw[b]);
        let not_above = drawn.partition_point(|&d| d <= 0.0);
        let not_below = drawn.len() - drawn.partition_point(|&d| d < 0.0);
        let p = 2.0 * (not_above.min(not_below) + 1) as f64 / (drawn.len() + 1) as f64;
        Difference { value: self.means[a] - self.means[b], interval: percentiles(&drawn, confidence), p: p.min(1.0) }
    }
}

fn percentiles(sorted: &[f64], confidence: f64) -> [f64; 2] {
    let tail = (1.0 - confidence) / 2.0;
    [quantile(sorted, tail), quantile(sorted, 1.0 - tail)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_user_stay_together() {
        // user 7 has two rows, user 3 one
        let paired = Paired::new(&[7, 3, 7], &[&[1.0, 0.0, 0.5], &[0.0, 1.0, 0.5]]);
        assert_eq!(paired.n_users(), 2);
        assert_eq!(paired.means(), [0.5, 0.5]);
        assert_eq!(paired.user_differences(0, 1), [0.5, -1.0]);
        let draws = paired.draw(200, 1, 1).unwrap();
        // a resample holds user 7 twice (0.75 − 0.25), both (0), or user 3 twice (−1)
        let all = draws.sorted(|d| d[0] - d[1]);
        assert!(all.iter().all(|d| [-1.0, 0.0, 0.5].iter().any(|x| (x - d).abs() < 1e-12)));
        assert_eq!(draws.difference(0, 1, 0.95).p, 1.0);
        assert!(paired.draw(0, 1, 1).is_none());
    }

    #[test]
    fn a_method_against_itself_and_one_that_always_wins() {
        let users: Vec<u32> = (0..50).collect();
        let (a, b) = (vec![0.3; 50], vec![0.2; 50]);
        let paired = Paired::new(&users, &[&a, &b]);
        let draws = paired.draw(999, 5, 3).unwrap();
        let same = draws.difference(0, 0, 0.95);
        assert_eq!((same.value, same.interval, same.p), (0.0, [0.0, 0.0], 1.0));
        let won = draws.difference(0, 1, 0.95);
        assert!((won.value - 0.1).abs() < 1e-12 && (won.interval[0] - 0.1).abs() < 1e-12);
        assert_eq!(won.p, 2.0 / 1000.0);
        assert_eq!(draws.values, paired.draw(999, 5, 1).unwrap().values);
    }
}

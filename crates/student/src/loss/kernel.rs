//! Loops over f32 rows on the CPU: several passes of libtorch fused into one while the row is in the first-level cache.
//!
//! Each is compiled twice, see [`best_of_machine`].

use anyo_core::{
    best_of_machine,
    vecmath::{exp, exp_in_place, max_of},
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
    /// [`cross_entropy_row`] against several items with weights, `slots[0]` being the row's own: returns the loss of that
    /// one and that of the others together, and leaves the gradient of both.
    pub(crate) fn cross_entropy_slots_row(
        row: &mut [f32],
        slots: &[(u32, f32)],
        scale: f32,
        inv_temperature: f32,
    ) -> (f64, f64) {
        if inv_temperature != 1.0 {
            row.iter_mut().for_each(|x| *x *= inv_temperature);
        }
        let max = max_of(row);
        let mut linear = [0f64; 2];
        let mut weight = [0f64; 2];
        for (i, &(item, w)) in slots.iter().enumerate() {
            linear[usize::from(i > 0)] += f64::from(w) * f64::from(row[item as usize]);
            weight[usize::from(i > 0)] += f64::from(w);
        }
        let sum = exp_in_place(row, max);
        let factor = scale * inv_temperature * (weight[0] + weight[1]) as f32 / sum;
        row.iter_mut().for_each(|x| *x *= factor);
        for &(item, w) in slots {
            row[item as usize] -= scale * inv_temperature * w;
        }
        let log_sum = f64::from(max) + f64::from(sum).ln();
        (weight[0] * log_sum - linear[0], weight[1] * log_sum - linear[1])
    }
}

best_of_machine! {
    /// [`dros_row`] for several targets with weights in one pass, `slots[0]` being the row's own: returns the loss of that
    /// one and that of the others together, and leaves the gradient of both.
    ///
    /// All terms share one sum over the catalogue, from which each takes its own item out. Where that would cancel (an
    /// item with half of the sum, of which there is one at most) the term gets a pass of its own.
    pub(crate) fn dros_slots_row(
        row: &mut [f32],
        propensity: &[f32],
        slots: &[(u32, f32)],
        beta: f32,
        scale: f32,
        work: &mut [f32],
    ) -> (f64, f64) {
        let inv_beta = 1.0 / beta;
        for ((a, &s), &p) in work.iter_mut().zip(row.iter()).zip(propensity) {
            *a = p * s * s * inv_beta;
        }
        let max = max_of(work);
        let sum = exp_in_place(work, max);
        let mut losses = [0f64; 2];
        let mut alone: Option<Vec<f32>> = None;
        // (item, share of its term's weight in the common sum, gradient of the item's own summand)
        let mut own = Vec::with_capacity(slots.len());
        let mut common = 0f32;
        for (i, &(item, w)) in slots.iter().enumerate() {
            if w == 0.0 {
                continue;
            }
            let item = item as usize;
            let (s, p, e) = (row[item], propensity[item], work[item]);
            let shifted = p * (s - 1.0) * (s - 1.0) * inv_beta;
            let loss = if e > 0.5 * sum || shifted > max + 20.0 {
                let (mut copy, mut scratch) = (row.to_vec(), vec![0.0; row.len()]);
                let loss = dros_row(&mut copy, propensity, item, beta, scale * w, &mut scratch);
                match &mut alone {
                    Some(total) => total.iter_mut().zip(&copy).for_each(|(a, b)| *a += b),
                    None => alone = Some(copy),
                }
                loss
            } else {
                let e_shifted = exp(shifted - max);
                let rest = (sum - e) + e_shifted;
                let share = w / rest;
                common += share;
                own.push((item, share * (e_shifted * (s - 1.0) - e * s) * p));
                f64::from(max) + f64::from(rest).ln()
            };
            losses[usize::from(i > 0)] += f64::from(w) * loss;
        }
        let factor = 2.0 * scale * inv_beta;
        let common = common * factor;
        for ((s, &e), &p) in row.iter_mut().zip(work.iter()).zip(propensity) {
            *s *= e * p * common;
        }
        for (item, grad) in own {
            row[item] += grad * factor;
        }
        if let Some(alone) = alone {
            row.iter_mut().zip(&alone).for_each(|(a, b)| *a += b);
        }
        (losses[0], losses[1])
    }
}

best_of_machine! {
    /// Inner product of two vectors of equal length.
    pub fn dot(a: &[f32], b: &[f32]) -> f32 {
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
    pub fn axpy(y: &mut [f32], a: f32, x: &[f32]) {
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

    /// Loss and gradient of each slot from the kernel of one target, added up.
    fn slot_by_slot(
        row: &[f32],
        slots: &[(u32, f32)],
        of_one: impl Fn(&mut [f32], usize, f32) -> f64,
    ) -> (f64, Vec<f64>) {
        let mut loss = 0.0;
        let mut grad = vec![0f64; row.len()];
        for &(item, w) in slots {
            let mut copy = row.to_vec();
            loss += f64::from(w) * of_one(&mut copy, item as usize, w);
            grad.iter_mut().zip(&copy).for_each(|(g, &x)| *g += f64::from(x));
        }
        (loss, grad)
    }

    #[test]
    fn several_targets_in_one_pass_are_the_sum_of_each() {
        let n = 40;
        for spread in [0.1f32, 1.0, 4.0, 60.0] {
            let row: Vec<f32> = (0..n).map(|i| ((i * 17 % 23) as f32 - 11.0) / 11.0 * spread).collect();
            let p: Vec<f32> = (0..n).map(|i| 0.5 + 0.01 * i as f32).collect();
            let best = (0..n).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as u32;
            // The item with the largest share of the sum, and a repeat, among them.
            let slots = [(5u32, 1.0f32), (best, 0.3), (17, 0.2), (5, 0.4), (22, 0.1)];
            let mut got = row.clone();
            let mut work = vec![0.0; n];
            let (own, others) = dros_slots_row(&mut got, &p, &slots, 0.7, 0.25, &mut work);
            let (want, grad) =
                slot_by_slot(&row, &slots, |row, item, w| dros_row(row, &p, item, 0.7, 0.25 * w, &mut vec![0.0; n]));
            assert!((own + others - want).abs() < 1e-4 * want.abs(), "{spread}: {} against {want}", own + others);
            let size = grad.iter().fold(0f64, |a, b| a.max(b.abs()));
            for (g, w) in got.iter().zip(&grad) {
                assert!((f64::from(*g) - w).abs() < 1e-5 * size, "dros {spread}: {g} against {w}");
            }

            let mut got = row.clone();
            let (own, others) = cross_entropy_slots_row(&mut got, &slots, 0.25, 0.5);
            let (want, grad) = slot_by_slot(&row, &slots, |row, item, w| cross_entropy_row(row, item, 0.25 * w, 0.5));
            assert!((own + others - want).abs() < 1e-5 * want.abs().max(1.0), "{spread}: {} {want}", own + others);
            for (g, w) in got.iter().zip(&grad) {
                assert!((f64::from(*g) - w).abs() < 1e-6, "ce {spread}: {g} against {w}");
            }
        }
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

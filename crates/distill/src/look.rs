//! What is read off a target's scores over the catalogue: which candidates are in the student's own top K, and the
//! signals of selection policies.

use anyo_core::{
    best_of_machine,
    vecmath::{exp, max_of},
};

best_of_machine! {
    /// The `k`-th largest of the scores (k at least 1; −∞ where there are fewer).
    ///
    /// One pass in runs of 32: a run whose largest score is below the k-th best so far is passed over, and after the first
    /// few hundred scores nearly all are. Nothing is sorted.
    pub fn kth_largest(scores: &[f32], best: &mut Vec<f32>, k: usize) -> f32 {
        best.clear();
        best.resize(k, f32::NEG_INFINITY);
        let mut least = f32::NEG_INFINITY;
        for run in scores.chunks(32) {
            if max_of(run) <= least {
                continue;
            }
            for &score in run {
                if score > least {
                    let mut place = k - 1;
                    while place > 0 && best[place - 1] < score {
                        best[place] = best[place - 1];
                        place -= 1;
                    }
                    best[place] = score;
                    least = best[k - 1];
                }
            }
        }
        least
    }
}

/// One bit for each candidate (the first 64): whether fewer than `k` items score above it.
pub fn in_top_k(scores: &[f32], candidates: &[u32], k: usize, best: &mut Vec<f32>) -> u64 {
    let least = kth_largest(scores, best, k);
    let bits = candidates.iter().take(64).enumerate();
    bits.fold(0, |mask, (i, &item)| mask | u64::from(scores[item as usize] >= least) << i)
}

/// What the student says of one target.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Said {
    /// Entropy of the softmax, in nats.
    pub entropy: f32,
    /// Largest minus second largest probability.
    pub margin: f32,
    /// 1-based rank of the target, ties counted against it.
    pub true_rank: u32,
    /// -log softmax of the target, in nats.
    pub loss: f32,
}

best_of_machine! {
    /// Reads all signals off one row of scores.
    pub fn say(scores: &[f32], target: u32) -> Said {
        let max = max_of(scores);
        let own = scores[target as usize];
        let (mut sum, mut weighted) = (0f64, 0f64);
        let mut rank = 0u32;
        let mut second = f32::NEG_INFINITY;
        let mut at_max = 0u32;
        for run in scores.chunks(256) {
            let (mut part, mut part_weighted) = (0f32, 0f32);
            for &score in run {
                let x = score - max;
                let e = exp(x);
                part += e;
                part_weighted += e * x;
                rank += u32::from(score >= own);
                at_max += u32::from(score == max);
                second = if score < max && score > second { score } else { second };
            }
            sum += f64::from(part);
            weighted += f64::from(part_weighted);
        }
        let second = if at_max > 1 { max } else { second };
        Said {
            entropy: (sum.ln() - weighted / sum) as f32,
            margin: ((1.0 - f64::from((second - max).exp())) / sum) as f32,
            true_rank: rank.max(1),
            loss: (sum.ln() - f64::from(own - max)) as f32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn item_3_consistency() {
        // specs/dllm2rec.md section 13, item 3: teacher [7,3,9], student's top 3 is {3,5,7}.
        let mut scores = [0.0f32; 12];
        (scores[3], scores[5], scores[7]) = (0.5, 2.0, 1.0);
        assert_eq!(in_top_k(&scores, &[7, 3, 9], 3, &mut Vec::new()), 0b011);
    }

    #[test]
    fn counting_agrees_with_sorting() {
        let mut state = 1u32;
        let mut draw = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 16
        };
        for n in [1usize, 7, 31, 32, 33, 500] {
            for _ in 0..20 {
                // few different values, so that there are ties
                let scores: Vec<f32> = (0..n).map(|_| (draw() % 40) as f32 - 20.0).collect();
                for k in [1, 2, 10] {
                    let candidates: Vec<u32> = (0..n.min(64) as u32).collect();
                    let mask = in_top_k(&scores, &candidates, k, &mut Vec::new());
                    for &c in &candidates {
                        let above = scores.iter().filter(|&&s| s > scores[c as usize]).count();
                        assert_eq!(mask >> c & 1 == 1, above < k, "{n} {k} {c}");
                    }
                }
                let target = draw() % n as u32;
                let said = say(&scores, target);
                let max = scores.iter().copied().fold(f32::MIN, f32::max);
                let z: f64 = scores.iter().map(|s| f64::from(s - max).exp()).sum();
                let mut p: Vec<f64> = scores.iter().map(|s| f64::from(s - max).exp() / z).collect();
                let entropy: f64 = p.iter().map(|p| -p * p.ln()).sum();
                assert!((f64::from(said.entropy) - entropy).abs() < 1e-4, "{} {entropy}", said.entropy);
                assert!((f64::from(said.loss) + p[target as usize].ln()).abs() < 1e-4);
                let rank = scores.iter().filter(|&&s| s >= scores[target as usize]).count();
                assert_eq!(said.true_rank as usize, rank);
                p.sort_by(|a, b| b.total_cmp(a));
                let margin = p[0] - p.get(1).copied().unwrap_or(0.0);
                assert!((f64::from(said.margin) - margin).abs() < 1e-6, "{} {margin}", said.margin);
            }
        }
    }
}

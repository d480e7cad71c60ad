//! From logits to a token: filters, and a draw that depends on seed and place only.

use std::cmp::Ordering;

use anyo_core::{Error, Result};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use super::SamplingConfig;

/// First piece of the sorted head of a distribution; it grows fourfold until it holds the mass of top-p.
const HEAD: usize = 64;

/// Filters logits as `transformers`' processors do and keeps its work space between tokens.
///
/// Differs: ids of pads are not penalised; of equal logits at the edge of top-p the lower ids stay, where `transformers`
/// leaves it open.
#[derive(Debug)]
pub struct Sampler {
    temperature: f64,
    top_k: usize,
    top_p: f64,
    min_p: f64,
    repetition_penalty: f32,
    greedy: bool,
    banned: Vec<u32>,
    largest: Vec<f32>,
    kept: Vec<(u32, f32)>,
    weights: Vec<f64>,
}

impl Sampler {
    /// A sampler with these settings, which were checked.
    pub fn new(config: &SamplingConfig) -> Self {
        Self {
            temperature: config.temperature,
            top_k: config.top_k,
            top_p: config.top_p,
            min_p: config.min_p,
            repetition_penalty: config.repetition_penalty as f32,
            greedy: config.greedy,
            banned: config.banned_ids.clone(),
            largest: Vec::new(),
            kept: Vec::new(),
            weights: Vec::new(),
        }
    }

    /// Whether a plain argmax over the ids that are not banned gives the token.
    pub fn is_argmax(&self) -> bool {
        self.greedy && !self.penalises()
    }

    /// Whether the tokens so far matter.
    pub fn penalises(&self) -> bool {
        self.repetition_penalty != 1.0
    }

    /// The next token for `logits` `[V]`, which are changed. `seen` are the ids so far, each once; `draw` is uniform in
    /// [0, 1).
    ///
    /// # Errors
    /// When the logits hold NaN or infinity, or nothing but minus infinity.
    pub fn pick(&mut self, logits: &mut [f32], seen: &[u32], draw: f64) -> Result<u32> {
        if self.greedy {
            self.ban(logits);
            self.penalise(logits, seen);
            return Ok(argmax(logits)?.0);
        }
        let total = self.filter(logits, seen)?;
        let mut left = draw * total;
        for (&(id, _), weight) in self.kept.iter().zip(&self.weights) {
            left -= weight;
            if left < 0.0 {
                return Ok(id);
            }
        }
        // rounding: the last token with any mass
        let last = self.weights.iter().rposition(|&w| w > 0.0).unwrap_or(0);
        Ok(self.kept[last].0)
    }

    /// Ids that the filters leave and their probabilities, for `logits` `[V]`, which are changed.
    ///
    /// # Errors
    /// As [`Sampler::pick`].
    pub fn probabilities(&mut self, logits: &mut [f32], seen: &[u32]) -> Result<Vec<(u32, f64)>> {
        let total = self.filter(logits, seen)?;
        Ok(self.kept.iter().zip(&self.weights).map(|(&(id, _), weight)| (id, weight / total)).collect())
    }

    /// Fills `kept` and `weights` (probabilities times the returned sum).
    fn filter(&mut self, logits: &mut [f32], seen: &[u32]) -> Result<f64> {
        self.ban(logits);
        self.penalise(logits, seen);
        let (_, max) = argmax(logits)?;
        let floor = if self.top_k > 0 && self.top_k < logits.len() {
            kth_largest(logits, self.top_k, &mut self.largest)
        } else {
            f32::NEG_INFINITY
        };
        self.kept.clear();
        let ids = logits.iter().enumerate().filter(|&(_, &l)| l >= floor && l > f32::NEG_INFINITY);
        self.kept.extend(ids.map(|(id, &l)| (id as u32, l)));
        let temperature = self.temperature;
        let weight = |logit: f32| (f64::from(logit - max) / temperature).exp();
        if self.top_p < 1.0 {
            let total: f64 = self.kept.iter().map(|&(_, l)| weight(l)).sum();
            self.min_p_cut(max);
            keep_mass(&mut self.kept, self.top_p * total, weight);
        } else {
            self.min_p_cut(max);
        }
        self.weights.clear();
        self.weights.extend(self.kept.iter().map(|&(_, l)| weight(l)));
        Ok(self.weights.iter().sum())
    }

    /// A token stays where exp((logit - max) / T) >= min_p. The set is a head of the order by logits, as top-p's is, so
    /// the two filters may come in either order once top-p's total is known.
    fn min_p_cut(&mut self, max: f32) {
        if self.min_p > 0.0 {
            let least = self.min_p.ln() * self.temperature;
            self.kept.retain(|&(_, l)| f64::from(l - max) >= least);
        }
    }

    fn ban(&self, logits: &mut [f32]) {
        for &id in &self.banned {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    fn penalise(&self, logits: &mut [f32], seen: &[u32]) {
        if self.penalises() {
            for &id in seen {
                if let Some(logit) = logits.get_mut(id as usize) {
                    *logit =
                        if *logit < 0.0 { *logit * self.repetition_penalty } else { *logit / self.repetition_penalty };
                }
            }
        }
    }
}

/// Uniform in [0, 1) for the token number `place` of a row: it depends on nothing else, so neither the batch nor rows
/// that ended earlier change a text.
pub fn draw(seed: u64, place: u64) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_word_pos(u128::from(place) * 2);
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// The first of the largest logits.
fn argmax(logits: &[f32]) -> Result<(u32, f32)> {
    let mut best = (0, f32::NEG_INFINITY);
    let mut has_nan = false;
    for (id, &logit) in logits.iter().enumerate() {
        has_nan |= logit.is_nan();
        if logit > best.1 {
            best = (id as u32, logit);
        }
    }
    if has_nan || !best.1.is_finite() {
        return Err(bad_logits());
    }
    Ok(best)
}

pub(super) fn bad_logits() -> Error {
    Error::Run {
        message: "the model's logits hold NaN or infinity, so no token can be chosen".into(),
        hint: Some("check the weights; in half precision try bf16 or f32".into()),
    }
}

/// The k-th largest value; one pass that mostly compares with the least value still of interest.
fn kth_largest(logits: &[f32], k: usize, largest: &mut Vec<f32>) -> f32 {
    let descending = |a: &f32, b: &f32| b.total_cmp(a);
    let room = (2 * k).max(HEAD);
    let mut floor = f32::NEG_INFINITY;
    largest.clear();
    for &logit in logits {
        if logit > floor {
            largest.push(logit);
            if largest.len() == room {
                largest.select_nth_unstable_by(k - 1, descending);
                largest.truncate(k);
                floor = largest[k - 1];
            }
        }
    }
    if largest.len() < k {
        return f32::NEG_INFINITY;
    }
    *largest.select_nth_unstable_by(k - 1, descending).1
}

/// Cuts `kept` to the shortest head, in falling order, whose weight reaches `mass`; sorts no more than about that.
fn keep_mass(kept: &mut Vec<(u32, f32)>, mass: f64, weight: impl Fn(f32) -> f64) {
    let order = |a: &(u32, f32), b: &(u32, f32)| -> Ordering { b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)) };
    let (mut sorted, mut piece, mut above) = (0, HEAD, 0.0);
    while sorted < kept.len() {
        let rest = &mut kept[sorted..];
        let n = piece.min(rest.len());
        if n < rest.len() {
            rest.select_nth_unstable_by(n - 1, order);
        }
        rest[..n].sort_unstable_by(order);
        for i in sorted..sorted + n {
            above += weight(kept[i].1);
            if above >= mass {
                kept.truncate(i + 1);
                return;
            }
        }
        sorted += n;
        piece *= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(change: impl FnOnce(&mut SamplingConfig)) -> SamplingConfig {
        let mut config = SamplingConfig::sample(1, 0);
        change(&mut config);
        config
    }

    #[test]
    fn kth_largest_agrees_with_sorting() {
        let logits: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 613) as f32 / 10.0).collect();
        let mut sorted = logits.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        for k in [1, 2, 31, 32, 33, 500, 999, 1000] {
            assert_eq!(kth_largest(&logits, k, &mut Vec::new()), sorted[k - 1], "k {k}");
        }
    }

    #[test]
    fn hand_computed_probabilities() {
        // weights 1, 2, 4, 8 of 15
        let logits = [1f32, 2.0, 4.0, 8.0].map(f32::ln);
        let run = |config: &SamplingConfig| {
            let mut rows = Sampler::new(config).probabilities(&mut logits.clone(), &[3]).unwrap();
            rows.sort_by_key(|r| r.0);
            rows.into_iter().map(|(id, p)| (id, (p * 1e5).round() / 1e5)).collect::<Vec<_>>()
        };
        assert_eq!(run(&config(|_| ())), [(0, 0.06667), (1, 0.13333), (2, 0.26667), (3, 0.53333)]);
        assert_eq!(run(&config(|c| c.top_k = 2)), [(2, 0.33333), (3, 0.66667)]);
        // 8/15 = 0.533 is below 0.6, so the second stays too
        assert_eq!(run(&config(|c| c.top_p = 0.6)), [(2, 0.33333), (3, 0.66667)]);
        assert_eq!(run(&config(|c| c.top_p = 0.5)), [(3, 1.0)]);
        // 2/8 reaches 0.2, 1/8 does not
        assert_eq!(run(&config(|c| c.min_p = 0.2)), [(1, 0.14286), (2, 0.28571), (3, 0.57143)]);
        // squared: 1, 4, 16, 64 of 85
        assert_eq!(run(&config(|c| c.temperature = 0.5)), [(0, 0.01176), (1, 0.04706), (2, 0.18824), (3, 0.75294)]);
        // 8 -> 8^(1/3) = 2: weights 1, 2, 4, 2 of 9
        assert_eq!(
            run(&config(|c| c.repetition_penalty = 3.0)),
            [(0, 0.11111), (1, 0.22222), (2, 0.44444), (3, 0.22222)]
        );
    }

    #[test]
    fn a_draw_walks_the_distribution() {
        let logits = [1f32, 2.0, 4.0, 8.0].map(f32::ln);
        let mut sampler = Sampler::new(&config(|_| ()));
        let mut at = |draw: f64| sampler.pick(&mut logits.clone(), &[], draw).unwrap();
        assert_eq!(
            [at(0.0), at(0.066), at(0.067), at(0.199), at(0.201), at(0.46), at(0.47), at(0.999_999_999)],
            [0, 0, 1, 1, 2, 2, 3, 3]
        );
    }

    #[test]
    fn greedy_takes_the_first_of_equals_and_penalises() {
        let mut greedy = Sampler::new(&SamplingConfig::greedy(1));
        assert!(greedy.is_argmax());
        assert_eq!(greedy.pick(&mut [0.0, 3.0, 3.0], &[], 0.0).unwrap(), 1);
        let mut penalty = Sampler::new(&SamplingConfig { repetition_penalty: 2.0, ..SamplingConfig::greedy(1) });
        assert_eq!(penalty.pick(&mut [0.5, 3.0, 2.0], &[1], 0.0).unwrap(), 2);
        // a negative logit moves away from zero
        assert_eq!(penalty.pick(&mut [-1.0, -1.5, -3.0], &[0], 0.0).unwrap(), 1);
    }

    #[test]
    fn banned_ids_never_come() {
        // weights 1, 2, 4, 8: without the last they are of 7
        let logits = [1f32, 2.0, 4.0, 8.0].map(f32::ln);
        let ban = |config: SamplingConfig| Sampler::new(&SamplingConfig { banned_ids: vec![3, 3, 900], ..config });
        let greedy = SamplingConfig::greedy(1);
        assert_eq!(ban(greedy.clone()).pick(&mut logits.clone(), &[], 0.0).unwrap(), 2);
        // a penalty must not bring a banned id back
        let penalty = SamplingConfig { repetition_penalty: 0.01, ..greedy };
        assert_eq!(ban(penalty).pick(&mut logits.clone(), &[3], 0.0).unwrap(), 2);
        let run = |config: SamplingConfig| {
            let mut rows = ban(config).probabilities(&mut logits.clone(), &[3]).unwrap();
            rows.sort_by_key(|r| r.0);
            rows.into_iter().map(|(id, p)| (id, (p * 1e5).round() / 1e5)).collect::<Vec<_>>()
        };
        let all = [(0, 0.14286), (1, 0.28571), (2, 0.57143)];
        assert_eq!(run(config(|_| ())), all);
        assert_eq!(run(config(|c| (c.top_k, c.repetition_penalty) = (4, 5.0))), all);
        assert_eq!(run(config(|c| c.top_k = 2)), [(1, 0.33333), (2, 0.66667)]);
        assert_eq!(run(config(|c| c.top_p = 0.5)), [(2, 1.0)]);
        assert_eq!(run(config(|c| c.min_p = 0.4)), [(1, 0.33333), (2, 0.66667)]);
        let mut sampler = ban(config(|_| ()));
        assert_eq!(sampler.pick(&mut logits.clone(), &[], 0.999_999_999).unwrap(), 2);
    }

    #[test]
    fn bad_logits_are_an_error() {
        let mut sampler = Sampler::new(&config(|c| c.top_k = 2));
        for bad in [f32::NAN, f32::INFINITY] {
            let error = sampler.pick(&mut [0.0, bad, 1.0], &[], 0.5).unwrap_err().to_string();
            assert!(error.contains("NaN"), "{error}");
        }
        assert!(sampler.pick(&mut [f32::NEG_INFINITY; 3], &[], 0.5).is_err());
        assert_eq!(sampler.pick(&mut [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY], &[], 0.5).unwrap(), 1);
    }

    #[test]
    fn draws_depend_on_seed_and_place_only() {
        let draws: Vec<f64> = (0..2000).map(|place| draw(3, place)).collect();
        assert_eq!(draws[7], draw(3, 7));
        assert_ne!(draws[7], draw(4, 7));
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        // standard error 0.0065
        assert!((mean - 0.5).abs() < 0.03 && draws.iter().all(|d| (0.0..1.0).contains(d)), "{mean}");
    }
}

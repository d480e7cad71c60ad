//! How the next token is chosen and when a text ends.

use anyo_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::tokenizer::GenerationDefaults;

/// Settings of a generation. Filters apply in the order of `transformers`: banned ids, repetition penalty, temperature,
/// top-k, top-p, min-p.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingConfig {
    /// Take the likeliest token always; then only the repetition penalty changes anything.
    pub greedy: bool,
    /// Divides the logits; above 0.
    pub temperature: f64,
    /// Keep that many of the likeliest tokens, and those equal to the last of them; 0: all.
    pub top_k: usize,
    /// Keep the likeliest tokens until their mass reaches this, above 0 to 1; 1: all.
    pub top_p: f64,
    /// Keep tokens of at least this times the probability of the likeliest, 0 to 1; 0: all.
    pub min_p: f64,
    /// Divides positive logits and multiplies negative ones of tokens in the prompt or the text so far; above 0; 1: none.
    pub repetition_penalty: f64,
    /// Seed of the draws; a prompt may have its own.
    pub seed: u64,
    /// Most tokens to generate for a prompt; at least 1.
    pub max_new_tokens: usize,
    /// Ids that end a text and are no part of it.
    pub stop_ids: Vec<u32>,
    /// Strings that end a text and are no part of it; the one that is complete first counts.
    pub stop_strings: Vec<String>,
    /// Ids that never come, whatever the other settings: their logits are minus infinity. Ids outside the vocabulary have
    /// no effect; a stop id that is banned ends nothing. Configurations saved before this key existed ban none.
    #[serde(default)]
    pub banned_ids: Vec<u32>,
}

impl SamplingConfig {
    /// The likeliest token always, without stops.
    pub fn greedy(max_new_tokens: usize) -> Self {
        Self {
            greedy: true,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: 0,
            max_new_tokens,
            stop_ids: Vec::new(),
            stop_strings: Vec::new(),
            banned_ids: Vec::new(),
        }
    }

    /// Draws from the model's own distribution, without filters and stops.
    pub fn sample(max_new_tokens: usize, seed: u64) -> Self {
        Self { greedy: false, seed, ..Self::greedy(max_new_tokens) }
    }

    /// What a model folder proposes.
    ///
    /// Differs: a filter that the file does not name is off; `transformers` has a top-k of 50 then.
    pub fn from_defaults(defaults: &GenerationDefaults, max_new_tokens: usize, seed: u64) -> Self {
        let plain = Self::sample(max_new_tokens, seed);
        Self {
            greedy: !defaults.do_sample.unwrap_or(false),
            temperature: defaults.temperature.unwrap_or(plain.temperature),
            top_k: defaults.top_k.unwrap_or(plain.top_k),
            top_p: defaults.top_p.unwrap_or(plain.top_p),
            min_p: defaults.min_p.unwrap_or(plain.min_p),
            repetition_penalty: defaults.repetition_penalty.unwrap_or(plain.repetition_penalty),
            stop_ids: defaults.eos_ids.clone(),
            ..plain
        }
    }

    /// All values out of range, each as one line.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |fine: bool, name: &str, got: f64, wanted: &str| {
            if !fine {
                problems.push(format!("{name} is {got}, must be {wanted}"));
            }
        };
        let positive = |x: f64| x > 0.0 && x.is_finite();
        check(
            positive(self.temperature),
            "temperature",
            self.temperature,
            "above 0 (greedy=true takes the likeliest token)",
        );
        check(self.top_p > 0.0 && self.top_p <= 1.0, "top_p", self.top_p, "above 0 and at most 1");
        check((0.0..=1.0).contains(&self.min_p), "min_p", self.min_p, "from 0 to 1");
        check(positive(self.repetition_penalty), "repetition_penalty", self.repetition_penalty, "above 0");
        check(self.max_new_tokens > 0, "max_new_tokens", 0.0, "at least 1");
        if self.stop_strings.iter().any(String::is_empty) {
            problems.push("stop_strings has an empty string, which would end every text at once".into());
        }
        problems
    }

    /// Refuses values out of range.
    ///
    /// # Errors
    /// Lists all [`SamplingConfig::problems`].
    pub fn check(&self) -> Result<()> {
        let problems = self.problems();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Error::invalid(format!("cannot generate: {}", problems.join("; "))))
        }
    }
}

//! The rotary part of the configuration, in the spelling of transformers 4 (`rope_theta`, `rope_scaling`) and 5
//! (`rope_parameters`).

use std::path::Path;

use anyo_core::Result;
use serde_json::{Map, Value, json};

use super::{Architecture, read::Keys, wrong};

/// Base and scaling of the rotary position embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Base of the wavelengths.
    pub theta: f64,
    /// How the wavelengths are stretched for longer contexts.
    pub scaling: RopeScaling,
}

/// Stretching of the rotary wavelengths; names as in `rope_type`.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// None.
    Default,
    /// All frequencies divided by `factor`.
    Linear {
        /// At least 1.
        factor: f64,
    },
    /// Llama 3.1's: long wavelengths divided by `factor`, short ones kept, a ramp between.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above `original / low` are divided.
        low_freq_factor: f64,
        /// Wavelengths below `original / high` are kept.
        high_freq_factor: f64,
        /// Context length of the pretraining.
        original_max_positions: usize,
    },
    /// LongRoPE (arXiv:2402.13753): a divisor for each frequency, one list up to the original length and one beyond.
    LongRope {
        /// Divisors for sequences up to `original_max_positions`, one for each frequency.
        short_factor: Vec<f64>,
        /// Divisors beyond.
        long_factor: Vec<f64>,
        /// Context length of the pretraining.
        original_max_positions: usize,
        /// Multiplies cosine and sine.
        attention_factor: f64,
    },
}

/// Reads the rotary settings and the rotated part of each head.
pub(super) fn read(path: &Path, map: &Map<String, Value>, architecture: Architecture) -> Result<(RopeConfig, f64)> {
    let top = Keys::new(path, map, "");
    let null = Map::new();
    // As in transformers: `rope_scaling`, where it says something, comes before `rope_parameters`.
    let (inner, prefix) = match (object(path, map, "rope_scaling")?, object(path, map, "rope_parameters")?) {
        (Some(scaling), _) if !scaling.is_empty() => (scaling, "rope_scaling."),
        (_, Some(parameters)) => (parameters, "rope_parameters."),
        _ => (&null, "rope_scaling."),
    };
    let keys = Keys::new(path, inner, prefix);
    let theta = match (keys.number("rope_theta")?, top.number("rope_theta")?) {
        (Some(theta), _) | (None, Some(theta)) => theta,
        (None, None) => 10_000.0,
    };
    if !(theta.is_finite() && theta > 1.0) {
        return Err(wrong(path, format!("`rope_theta` must be a number above 1, got {theta}"), None));
    }
    let partial = match architecture {
        Architecture::Phi3 => {
            keys.number("partial_rotary_factor")?.or(top.number("partial_rotary_factor")?).unwrap_or(1.0)
        }
        _ => 1.0,
    };
    if !(partial > 0.0 && partial <= 1.0) {
        return Err(wrong(path, format!("`partial_rotary_factor` must be in (0, 1], got {partial}"), None));
    }
    let name = keys.text("rope_type")?.or(keys.text("type")?).unwrap_or("default");
    let original = |architecture: Architecture| -> Result<usize> {
        let own = top.size("original_max_position_embeddings")?;
        // Phi-3's class has a default of its own, which comes before the value among the rope parameters.
        let own = own.or((architecture == Architecture::Phi3).then_some(4096));
        match own.or(keys.size("original_max_position_embeddings")?) {
            Some(n) => Ok(n),
            None => Ok(top.size("max_position_embeddings")?.unwrap_or(2048)),
        }
    };
    let positive = |key: &str| -> Result<f64> {
        let value = keys.wanted(key)?;
        if value.is_finite() && value > 0.0 {
            return Ok(value);
        }
        Err(wrong(path, format!("`{prefix}{key}` must be above 0, got {value}"), None))
    };
    let scaling = match name {
        "default" => RopeScaling::Default,
        "linear" => RopeScaling::Linear { factor: positive("factor")? },
        "llama3" => {
            let (low, high) = (positive("low_freq_factor")?, positive("high_freq_factor")?);
            if low >= high {
                let message = format!("`{prefix}low_freq_factor` must be below high_freq_factor, got {low} and {high}");
                return Err(wrong(path, message, None));
            }
            RopeScaling::Llama3 {
                factor: positive("factor")?,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_positions: original(architecture)?,
            }
        }
        "longrope" => long_rope(path, &keys, &top, original(architecture)?)?,
        // Early Phi-3 files call it so.
        "su" | "yarn" if architecture == Architecture::Phi3 => long_rope(path, &keys, &top, original(architecture)?)?,
        other => {
            let message =
                format!("rope scaling `{other}` is not supported, only default, linear, llama3 and longrope are");
            return Err(wrong(path, message, Some("use a model without it, or without its extended context")));
        }
    };
    Ok((RopeConfig { theta, scaling }, partial))
}

fn object<'a>(path: &Path, map: &'a Map<String, Value>, key: &str) -> Result<Option<&'a Map<String, Value>>> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(inner)) => Ok(Some(inner)),
        Some(other) => Err(wrong(path, format!("`{key}` must be an object, got {other}"), None)),
    }
}

fn long_rope(path: &Path, keys: &Keys<'_>, top: &Keys<'_>, original: usize) -> Result<RopeScaling> {
    let max = top.size("max_position_embeddings")?.unwrap_or(4096);
    let factor = keys.number("factor")?.unwrap_or(max as f64 / original as f64);
    let attention_factor = match keys.number("attention_factor")? {
        Some(given) => given,
        None if factor <= 1.0 => 1.0,
        None => (1.0 + factor.ln() / (original as f64).ln()).sqrt(),
    };
    if !attention_factor.is_finite() {
        let message = format!("the attention factor of longrope is {attention_factor} with original length {original}");
        return Err(wrong(path, message, None));
    }
    Ok(RopeScaling::LongRope {
        short_factor: keys.factors("short_factor")?,
        long_factor: keys.factors("long_factor")?,
        original_max_positions: original,
        attention_factor,
    })
}

/// The value of `rope_scaling` in the spelling that transformers 4 and 5 both read.
pub(super) fn scaling_json(scaling: &RopeScaling) -> Value {
    match scaling {
        RopeScaling::Default => Value::Null,
        RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_positions,
        }),
        RopeScaling::LongRope { short_factor, long_factor, original_max_positions, attention_factor } => json!({
            "rope_type": "longrope",
            "short_factor": short_factor,
            "long_factor": long_factor,
            "original_max_position_embeddings": original_max_positions,
            "attention_factor": attention_factor,
        }),
    }
}

//! From the keys of a `config.json` to [`LmConfig`], with the defaults of `transformers`.

use std::path::Path;

use anyo_core::Result;
use serde_json::{Map, Value};
use tch::Kind;

use super::{Architecture, LmConfig, RopeScaling, rope, wrong};

/// No dimension of a real model comes near; keeps every product of two sizes inside 64 bits.
const LARGEST: u64 = 1 << 28;
const MOST_LAYERS: usize = 4096;

/// Typed look-ups in one JSON object; messages carry file and key. A `null` counts as absent.
pub(super) struct Keys<'a> {
    path: &'a Path,
    map: &'a Map<String, Value>,
    prefix: &'a str,
}

impl<'a> Keys<'a> {
    pub(super) fn new(path: &'a Path, map: &'a Map<String, Value>, prefix: &'a str) -> Self {
        Self { path, map, prefix }
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn bad<T>(&self, key: &str, wanted: &str, got: &Value) -> Result<T> {
        let mut got = got.to_string();
        if got.len() > 60 {
            got = got.chars().take(57).chain("...".chars()).collect();
        }
        Err(wrong(self.path, format!("`{}{key}` must be {wanted}, got {got}", self.prefix), None))
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().map_or_else(|| self.bad(key, "a number", value), |x| Ok(Some(x)))
    }

    pub(super) fn wanted(&self, key: &str) -> Result<f64> {
        match self.number(key)? {
            Some(value) => Ok(value),
            None => Err(wrong(self.path, format!("`{}{key}` is missing", self.prefix), None)),
        }
    }

    /// A size from 1 on.
    pub(super) fn size(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64() {
            Some(n) if (1..=LARGEST).contains(&n) => Ok(Some(n as usize)),
            _ => self.bad(key, &format!("a whole number from 1 to {LARGEST}"), value),
        }
    }

    fn wanted_size(&self, key: &str) -> Result<usize> {
        match self.size(key)? {
            Some(n) => Ok(n),
            None => Err(wrong(self.path, format!("`{}{key}` is missing", self.prefix), None)),
        }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map_or_else(|| self.bad(key, "a text", value), |x| Ok(Some(x)))
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map_or_else(|| self.bad(key, "true or false", value), |x| Ok(Some(x)))
    }

    /// One token id or a list of them.
    fn ids(&self, key: &str) -> Result<Vec<i64>> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let list = match value {
            Value::Array(list) => list.iter().map(Value::as_i64).collect(),
            one => one.as_i64().map(|id| vec![id]),
        };
        list.map_or_else(|| self.bad(key, "a token id or a list of them", value), Ok)
    }

    /// A list of positive numbers.
    pub(super) fn factors(&self, key: &str) -> Result<Vec<f64>> {
        let Some(value) = self.get(key) else {
            return Err(wrong(self.path, format!("`{}{key}` is missing", self.prefix), None));
        };
        let list: Option<Vec<f64>> = value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
        match list {
            Some(list) if list.iter().all(|&x| x.is_finite() && x > 0.0) => Ok(list),
            _ => self.bad(key, "a list of positive numbers", value),
        }
    }
}

pub(super) fn config(path: &Path, map: &Map<String, Value>) -> Result<LmConfig> {
    let keys = Keys::new(path, map, "");
    let architecture = architecture(&keys)?;
    if let Some(value) = keys.get("quantization_config") {
        let method = value.get("quant_method").and_then(Value::as_str).unwrap_or("unknown");
        let message = format!("the weights are already quantised (quantization_config, method `{method}`)");
        let hint = "use the model's folder with plain bf16, f16 or f32 weights; quantise it here with int8 or nf4";
        return Err(wrong(path, message, Some(hint)));
    }
    activation(&keys)?;
    let (hidden_size, n_heads) = (keys.wanted_size("hidden_size")?, keys.wanted_size("num_attention_heads")?);
    let default_kv = if architecture == Architecture::Mistral { 8 } else { n_heads };
    // Mistral's class has 8 where the key is absent, and as many as query heads where it is null.
    let n_kv_heads = match map.get("num_key_value_heads") {
        Some(Value::Null) => n_heads,
        _ => keys.size("num_key_value_heads")?.unwrap_or(default_kv),
    };
    if !n_heads.is_multiple_of(n_kv_heads) {
        let message =
            format!("`num_key_value_heads` must divide num_attention_heads, got {n_kv_heads} for {n_heads} heads");
        return Err(wrong(path, message, None));
    }
    let head_dim = match keys.size("head_dim")? {
        Some(n) => n,
        None if hidden_size.is_multiple_of(n_heads) => hidden_size / n_heads,
        None => {
            let message = format!("`num_attention_heads` must divide hidden_size, got {n_heads} for {hidden_size}");
            return Err(wrong(path, message, None));
        }
    };
    let n_layers = keys.wanted_size("num_hidden_layers")?;
    if n_layers > MOST_LAYERS || n_heads.saturating_mul(head_dim) as u64 > LARGEST {
        let message = format!("absurd sizes: {n_layers} layers, {n_heads} heads of width {head_dim}");
        return Err(wrong(path, message, None));
    }
    let default_max = match architecture {
        Architecture::Llama => 2048,
        Architecture::Mistral => 4096 * 32,
        Architecture::Qwen2 => 32768,
        Architecture::Phi3 => 4096,
    };
    let (rope, partial_rotary) = rope::read(path, map, architecture)?;
    let bias = keys.flag("attention_bias")?.unwrap_or(false) && architecture == Architecture::Llama;
    let (sliding_window, sliding_layers) = sliding(&keys, architecture, n_layers)?;
    let default_eps = if architecture == Architecture::Phi3 { 1e-5 } else { 1e-6 };
    let config = LmConfig {
        architecture,
        vocab_size: keys.wanted_size("vocab_size")?,
        hidden_size,
        intermediate_size: keys.wanted_size("intermediate_size")?,
        n_layers,
        n_heads,
        n_kv_heads,
        head_dim,
        max_positions: keys.size("max_position_embeddings")?.unwrap_or(default_max),
        rms_eps: keys.number("rms_norm_eps")?.unwrap_or(default_eps),
        rope,
        partial_rotary,
        sliding_window,
        sliding_layers,
        tie_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(false),
        attention_bias: bias || architecture == Architecture::Qwen2,
        attention_out_bias: bias,
        mlp_bias: keys.flag("mlp_bias")?.unwrap_or(false) && architecture == Architecture::Llama,
        bos: keys.ids("bos_token_id")?.first().copied(),
        eos: keys.ids("eos_token_id")?,
        pad: keys.ids("pad_token_id")?.first().copied(),
        initializer_range: keys.number("initializer_range")?.unwrap_or(0.02),
        stored_kind: match keys.text("dtype")?.or(keys.text("torch_dtype")?) {
            Some("float32") => Some(Kind::Float),
            Some("bfloat16") => Some(Kind::BFloat16),
            Some("float16") => Some(Kind::Half),
            _ => None,
        },
    };
    check(path, &config)?;
    Ok(config)
}

fn architecture(keys: &Keys<'_>) -> Result<Architecture> {
    let named = keys.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
    let found = match named {
        Some(name) => Architecture::ALL.into_iter().find(|a| a.name() == name),
        None => match keys.text("model_type")? {
            Some(kind) => Architecture::ALL.into_iter().find(|a| a.model_type() == kind),
            None => None,
        },
    };
    found.ok_or_else(|| {
        let got = named.or(keys.text("model_type").ok().flatten()).unwrap_or("none");
        let known = Architecture::ALL.map(Architecture::name).join(", ");
        wrong(keys.path, format!("architecture `{got}` is not supported, only {known} are"), None)
    })
}

fn activation(keys: &Keys<'_>) -> Result<()> {
    match keys.text("hidden_act")? {
        None | Some("silu" | "swish") => Ok(()),
        Some(other) => {
            let message = format!("`hidden_act` is `{other}`, only silu is supported");
            Err(wrong(keys.path, message, None))
        }
    }
}

/// The window and which layers have it.
fn sliding(keys: &Keys<'_>, architecture: Architecture, n_layers: usize) -> Result<(Option<usize>, Vec<bool>)> {
    let given = keys.size("sliding_window")?;
    Ok(match architecture {
        Architecture::Llama => (None, Vec::new()),
        Architecture::Phi3 => (given, Vec::new()),
        // Absent, the class has 4096; null switches it off.
        Architecture::Mistral if keys.map.contains_key("sliding_window") => (given, Vec::new()),
        Architecture::Mistral => (Some(4096), Vec::new()),
        Architecture::Qwen2 if !keys.flag("use_sliding_window")?.unwrap_or(false) => (None, Vec::new()),
        Architecture::Qwen2 => {
            let first = match keys.get("max_window_layers") {
                None => 28,
                Some(value) => match value.as_u64() {
                    Some(n) => n as usize,
                    None => return keys.bad("max_window_layers", "a whole number", value),
                },
            };
            let window = if keys.map.contains_key("sliding_window") { given } else { Some(4096) };
            let layers = match keys.get("layer_types") {
                None => (0..n_layers).map(|i| i >= first).collect(),
                Some(value) => layer_types(keys, value, n_layers)?,
            };
            (window.filter(|_| layers.contains(&true)), layers)
        }
    })
}

fn layer_types(keys: &Keys<'_>, value: &Value, n_layers: usize) -> Result<Vec<bool>> {
    let kinds: Option<Vec<bool>> = value.as_array().and_then(|list| {
        list.iter()
            .map(|kind| match kind.as_str() {
                Some("sliding_attention") => Some(true),
                Some("full_attention") => Some(false),
                _ => None,
            })
            .collect()
    });
    match kinds {
        Some(kinds) if kinds.len() == n_layers => Ok(kinds),
        _ => keys.bad("layer_types", &format!("{n_layers} of sliding_attention or full_attention"), value),
    }
}

/// What one key alone does not show.
fn check(path: &Path, config: &LmConfig) -> Result<()> {
    if !(config.rms_eps.is_finite() && config.rms_eps > 0.0) {
        return Err(wrong(path, format!("`rms_norm_eps` must be above 0, got {}", config.rms_eps), None));
    }
    if !(config.initializer_range.is_finite() && config.initializer_range >= 0.0) {
        let message = format!("`initializer_range` must be at least 0, got {}", config.initializer_range);
        return Err(wrong(path, message, None));
    }
    let rotated = config.rotary_dim();
    if rotated == 0 || !rotated.is_multiple_of(2) {
        let message = format!(
            "the rotated part of a head must be even, got {rotated} (head_dim {}, partial_rotary_factor {})",
            config.head_dim, config.partial_rotary
        );
        return Err(wrong(path, message, None));
    }
    if let RopeScaling::LongRope { short_factor, long_factor, .. } = &config.rope.scaling {
        for (key, list) in [("short_factor", short_factor), ("long_factor", long_factor)] {
            if list.len() != rotated / 2 {
                let message = format!("`{key}` of longrope must have {} numbers, got {}", rotated / 2, list.len());
                return Err(wrong(path, message, None));
            }
        }
    }
    let mut tokens = config.bos.iter().chain(&config.eos).chain(&config.pad);
    if let Some(id) = tokens.find(|&&id| id >= config.vocab_size as i64) {
        let message = format!("token id {id} (bos, eos or pad) is not below vocab_size {}", config.vocab_size);
        return Err(wrong(path, message, None));
    }
    Ok(())
}

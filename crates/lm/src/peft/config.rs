//! `adapter_config.json` of PEFT: what of it is understood, what is ignored and what is refused.

use std::{fs, path::Path};

use anyo_core::{Error, Result};
use serde_json::{Map, Value, json};

use crate::attach::{LoraConfig, Targets};

/// Keys that change nothing about an adapter whose tensors are at hand: notes, choices of the initial values, and which
/// layers were meant (the tensors' names say it).
const IGNORED: &[&str] = &[
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];

/// Initial values after which the base weights are still those of the base model.
const HARMLESS_INIT: &[&str] = &["gaussian", "eva", "orthogonal"];

/// What `adapter_config.json` in `folder` says, and the base model's name.
pub(super) fn read(path: &Path) -> Result<(LoraConfig, Option<String>)> {
    let text = fs::read_to_string(path).map_err(Error::io(path, "read the adapter's settings"))?;
    let bad = |line: Option<u64>, message: String, hint: &str| Error::Data {
        path: path.to_owned(),
        line,
        message,
        hint: Some(hint.into()),
    };
    let map: Map<String, Value> = serde_json::from_str(&text).map_err(|error| {
        bad(Some(error.line() as u64), format!("not the JSON of a PEFT adapter: {error}"), "copy the folder again")
    })?;
    let get = |key: &str| map.get(key).unwrap_or(&Value::Null);
    if get("peft_type") != "LORA" {
        let message = format!("peft_type must be \"LORA\", got {}", get("peft_type"));
        return Err(bad(None, message, "only LoRA adapters are read"));
    }
    let refused = refused(&map);
    if !refused.is_empty() {
        let hint = "merge the adapter with peft (merge_and_unload) and load the merged model";
        return Err(bad(None, format!("the adapter uses what is not supported: {}", refused.join(", ")), hint));
    }
    let wrong = |key: &str, wanted: &str| {
        bad(
            None,
            format!("`{key}` must be {wanted}, got {}", get(key)),
            "the file was changed by hand or by another program",
        )
    };
    let number = |key: &str| get(key).as_f64().ok_or_else(|| wrong(key, "a number"));
    let pattern = |key: &str| -> Result<Vec<(String, f64)>> {
        match get(key) {
            Value::Null => Ok(Vec::new()),
            Value::Object(map) => map
                .iter()
                .map(|(name, value)| Ok((name.clone(), value.as_f64().ok_or_else(|| wrong(key, "a map to numbers"))?)))
                .collect(),
            _ => Err(wrong(key, "a map to numbers")),
        }
    };
    let targets = match get("target_modules") {
        Value::Array(names) => Targets::Names(
            names
                .iter()
                .map(|name| name.as_str().map(str::to_owned).ok_or_else(|| wrong("target_modules", "a list of names")))
                .collect::<Result<_>>()?,
        ),
        Value::String(word) if word == "all-linear" => Targets::AllLinear,
        Value::String(regex) => Targets::Regex(regex.clone()),
        _ => return Err(wrong("target_modules", "a list of names or a regular expression")),
    };
    let whole = |(name, rank): (String, f64)| {
        let exact = rank.fract() == 0.0 && rank.abs() < f64::from(i32::MAX);
        if exact { Ok((name, rank as i64)) } else { Err(wrong("rank_pattern", "a map to whole numbers")) }
    };
    let rank = get("r").as_i64().ok_or_else(|| wrong("r", "a whole number"))?;
    let config = LoraConfig {
        rank,
        alpha: number("lora_alpha")?,
        dropout: if map.contains_key("lora_dropout") { number("lora_dropout")? } else { 0.0 },
        rslora: get("use_rslora") == true,
        targets,
        rank_pattern: pattern("rank_pattern")?.into_iter().map(whole).collect::<Result<_>>()?,
        alpha_pattern: pattern("alpha_pattern")?,
        experts: None,
    };
    let problems = config.problems();
    if !problems.is_empty() {
        return Err(bad(None, problems.join("; "), "the file was changed by hand or by another program"));
    }
    Ok((config, get("base_model_name_or_path").as_str().map(str::to_owned)))
}

/// What the settings ask for beyond plain LoRA, in words.
fn refused(map: &Map<String, Value>) -> Vec<String> {
    let mut refused = Vec::new();
    for (key, value) in map {
        let unset = match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        let fine = match key.as_str() {
            "peft_type" | "r" | "lora_alpha" | "lora_dropout" | "use_rslora" | "target_modules" | "rank_pattern"
            | "alpha_pattern" => true,
            "bias" => value == "none",
            "init_lora_weights" => {
                unset || value == true || value.as_str().is_some_and(|word| HARMLESS_INIT.contains(&word))
            }
            key => unset || IGNORED.contains(&key),
        };
        if !fine {
            let what = match key.as_str() {
                "use_dora" => "DoRA ".to_owned(),
                "modules_to_save" => "whole modules saved with the adapter ".to_owned(),
                "bias" => "trained biases ".to_owned(),
                "init_lora_weights" => "an initialisation that changes the base weights ".to_owned(),
                _ => String::new(),
            };
            refused.push(format!("{what}(`{key}`: {value})"));
        }
    }
    refused
}

/// The text of `adapter_config.json` as peft 0.21 writes it.
pub(super) fn text(config: &LoraConfig, base_model: Option<&str>) -> Result<String> {
    // Whole numbers as such: PEFT declares alpha as an int.
    let number = |x: f64| if x.fract() == 0.0 && x.abs() < 1e15 { json!(x as i64) } else { json!(x) };
    let targets = serde_json::to_value(&config.targets).map_err(|e| Error::invalid(e.to_string()))?;
    let ranks: Map<_, _> = config.rank_pattern.iter().map(|(name, rank)| (name.clone(), json!(rank))).collect();
    let alphas: Map<_, _> = config.alpha_pattern.iter().map(|(name, alpha)| (name.clone(), number(*alpha))).collect();
    let all = json!({
        "alora_invocation_tokens": null,
        "alpha_pattern": alphas,
        "arrow_config": null,
        "auto_mapping": null,
        "base_model_name_or_path": base_model,
        "bias": "none",
        "corda_config": null,
        "ensure_weight_tying": false,
        "eva_config": null,
        "exclude_modules": null,
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "kasa_config": null,
        "layer_replication": null,
        "layers_pattern": null,
        "layers_to_transform": null,
        "loftq_config": {},
        "lora_alpha": number(config.alpha),
        "lora_bias": false,
        "lora_dropout": config.dropout,
        "lora_ga_config": null,
        "megatron_config": null,
        "megatron_core": "megatron.core",
        "modules_to_save": null,
        "monteclora_config": null,
        "peft_type": "LORA",
        "peft_version": "0.21.2",
        "qalora_group_size": 16,
        "r": config.rank,
        "rank_pattern": ranks,
        "revision": null,
        "target_modules": targets,
        "target_parameters": null,
        "task_type": "CAUSAL_LM",
        "trainable_token_indices": null,
        "use_bdlora": null,
        "use_dora": false,
        "use_qalora": false,
        "use_rslora": config.rslora,
        "velora_config": null,
    });
    Ok(format!("{all:#}"))
}

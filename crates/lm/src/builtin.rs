//! The built-in small model: tokenizer and Llama-architecture weights trained in place on a given text, kept as an
//! ordinary Hugging Face folder under the hash of what made it.

mod pretrain;
mod tokenizer;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use anyo_core::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tch::{Device, Kind};

use crate::{CausalLm, LmConfig, train::StepFigures};
pub use pretrain::{PretrainConfig, head_weight, pretrain};
pub use tokenizer::{BOS, EOS, PAD, SMALLEST_VOCAB, SPECIAL, token_stream, train_tokenizer};

/// Changes whenever the same settings would give another model.
const VERSION: u32 = 1;
const MANIFEST: &str = "builtin.json";
const FILES: [&str; 5] =
    ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json"];

/// Sizes and training of a built-in model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuiltinConfig {
    /// Most tokens; at least [`SMALLEST_VOCAB`]. A short text gives fewer.
    pub vocab_size: usize,
    /// D.
    pub d_model: usize,
    /// Decoder layers.
    pub n_layers: usize,
    /// H; divides `d_model` into even widths.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Tokens of a training window and of the context.
    pub seq_len: usize,
    /// Windows of a step.
    pub batch: usize,
    /// Updates.
    pub steps: u64,
    /// Peak learning rate.
    pub lr: f64,
    /// Weights and order of the windows.
    pub seed: u64,
}

/// A built-in model on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Builtin {
    /// Its folder, in Hugging Face format.
    pub folder: PathBuf,
    /// Whether it was there already.
    pub cached: bool,
    /// Mean loss of each step that trained it, in nats.
    pub losses: Vec<f64>,
}

impl BuiltinConfig {
    /// Width inside the MLP: 8/3 of the model's, up to a multiple of 32.
    pub fn d_ff(&self) -> usize {
        (self.d_model * 8 / 3).next_multiple_of(32)
    }

    /// Hash of these settings and `texts`, in hex.
    ///
    /// # Errors
    /// When the settings cannot be written as JSON (a rate that is not a number).
    pub fn hash(&self, texts: &[&str]) -> Result<String> {
        let settings = serde_json::to_string(self).map_err(|e| Error::invalid(format!("settings: {e}")))?;
        let mut hash = Sha256::new();
        let mut put = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        put(format!("anyo-builtin-{VERSION}").as_bytes());
        put(settings.as_bytes());
        texts.iter().for_each(|text| put(text.as_bytes()));
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The model's configuration for a tokenizer of `vocab_size` tokens.
    fn model(&self, vocab_size: usize) -> Result<LmConfig> {
        let Self { d_model, n_layers, n_heads, n_kv_heads, seq_len, .. } = *self;
        if n_heads == 0 || d_model % (2 * n_heads) != 0 {
            return Err(Error::invalid(format!(
                "d_model must be a multiple of 2 · n_heads, got {d_model} for {n_heads} heads"
            )));
        }
        let config = json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": vocab_size,
            "hidden_size": d_model,
            "intermediate_size": self.d_ff(),
            "num_hidden_layers": n_layers,
            "num_attention_heads": n_heads,
            "num_key_value_heads": n_kv_heads,
            "head_dim": d_model / n_heads,
            "max_position_embeddings": seq_len,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "attention_bias": false,
            "mlp_bias": false,
            "tie_word_embeddings": true,
            "initializer_range": 0.02,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
            "pad_token_id": PAD,
            "torch_dtype": "float32",
        });
        LmConfig::from_text(Path::new("the built-in model's config.json"), &config.to_string())
    }
}

/// The built-in model for `texts` and `config` below the folder `cache`: loaded if it is there, trained if not.
///
/// It appears under its final name only when complete. `report` gets the number and the figures of each step.
///
/// # Errors
/// When a setting is out of range, the texts are empty, training diverges or is stopped ([`Error::Interrupted`]; nothing
/// stays behind), or the folder cannot be written.
pub fn builtin(
    texts: &[&str],
    config: &BuiltinConfig,
    cache: &Path,
    device: Device,
    report: &mut dyn FnMut(u64, &StepFigures),
    stop: &AtomicBool,
) -> Result<Builtin> {
    let hash = config.hash(texts)?;
    let folder = cache.join(format!("builtin-{}", &hash[..16]));
    if folder.exists() {
        return cached(folder, &hash);
    }
    let tokenizer = train_tokenizer(texts.iter().copied(), config.vocab_size)?;
    let stream = token_stream(&tokenizer, texts.iter().copied())?;
    let model = CausalLm::random(config.model(tokenizer.get_vocab_size(true))?, device, Kind::Float, config.seed)?;
    let BuiltinConfig { seq_len, batch, steps, lr, seed, .. } = *config;
    let mut losses = Vec::new();
    let mut keep = |step: u64, figures: &StepFigures| {
        losses.push(figures.loss);
        report(step, figures);
    };
    pretrain(&model, &stream, &PretrainConfig { seq_len, batch, steps, lr, seed }, &mut keep, stop)?;

    let temporary = cache.join(format!(".tmp_builtin-{}_{}", &hash[..16], std::process::id()));
    let manifest = json!({
        "version": VERSION, "sha256": hash, "settings": config, "tokens": stream.len(), "losses": losses,
    });
    let written = write(&temporary, &model, &tokenizer, config, &manifest)
        .and_then(|()| fs::rename(&temporary, &folder).map_err(Error::io(&folder, "put the finished model in place")));
    if let Err(error) = written {
        // What stays of it is of no use; that it may stay is no reason for another error.
        let _ = fs::remove_dir_all(&temporary);
        // Another process may have finished the same model first.
        return if folder.join(MANIFEST).exists() { cached(folder, &hash) } else { Err(error) };
    }
    Ok(Builtin { folder, cached: false, losses })
}

fn write(
    folder: &Path,
    model: &CausalLm,
    tokenizer: &tokenizers::Tokenizer,
    config: &BuiltinConfig,
    manifest: &Value,
) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(Error::io(folder, "clear what an earlier process left"))?;
    }
    model.save(folder)?;
    let put = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text + "\n").map_err(Error::io(&path, "write the built-in model"))
    };
    let tokens =
        tokenizer.to_string(true).map_err(|e| Error::invalid(format!("the tokenizer cannot be written: {e}")))?;
    put("tokenizer.json", tokens)?;
    put("tokenizer_config.json", format!("{:#}", tokenizer::tokenizer_config(config.seq_len)))?;
    let generation = json!({ "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD, "do_sample": false });
    put("generation_config.json", format!("{generation:#}"))?;
    put(MANIFEST, format!("{manifest:#}"))
}

/// Checks that the folder is what its name says.
fn cached(folder: PathBuf, hash: &str) -> Result<Builtin> {
    let broken = |message: String| Error::Checkpoint {
        path: folder.clone(),
        message,
        hint: Some("remove the folder; the model is trained again then".into()),
    };
    let path = folder.join(MANIFEST);
    let text = fs::read_to_string(&path).map_err(Error::io(&path, "read the built-in model's manifest"))?;
    let manifest: Value = serde_json::from_str(&text).map_err(|e| broken(format!("{MANIFEST} is not JSON: {e}")))?;
    if manifest["sha256"] != hash {
        return Err(broken(format!("{MANIFEST} has the hash {}, wanted {hash}", manifest["sha256"])));
    }
    if let Some(missing) = FILES.iter().find(|name| !folder.join(name).is_file()) {
        return Err(broken(format!("{missing} is missing")));
    }
    let losses = manifest["losses"].as_array().map(|all| all.iter().filter_map(Value::as_f64).collect());
    Ok(Builtin { losses: losses.unwrap_or_default(), folder, cached: true })
}

#[cfg(test)]
mod tests;

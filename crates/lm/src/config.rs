//! Sizes and switches of a model, read from a Hugging Face `config.json`.

mod read;
mod rope;
mod write;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyo_core::{Error, Result};
use serde_json::{Map, Value};
use tch::Kind;

pub use rope::{RopeConfig, RopeScaling};

/// The file name that [`LmConfig::from_folder`] reads.
pub const CONFIG_FILE: &str = "config.json";

/// Families of decoders that can be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// `LlamaForCausalLM`: Llama 2, 3, 3.2, TinyLlama.
    Llama,
    /// `MistralForCausalLM`.
    Mistral,
    /// `Qwen2ForCausalLM`: Qwen 2 and 2.5.
    Qwen2,
    /// `Phi3ForCausalLM`: Phi-3, Phi-3.5, Phi-4, Phi-4-mini; projections are fused.
    Phi3,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Llama, Self::Mistral, Self::Qwen2, Self::Phi3];

    /// The name in `architectures`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Phi3 => "Phi3ForCausalLM",
        }
    }

    /// The name in `model_type`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Phi3 => "phi3",
        }
    }

    /// Whether q, k and v are one matrix, and gate and up another.
    pub fn fused(self) -> bool {
        self == Self::Phi3
    }
}

/// Everything about a model but its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct LmConfig {
    /// Which family.
    pub architecture: Architecture,
    /// Rows of the embedding, `V`.
    pub vocab_size: usize,
    /// Width of the residual stream, `D`.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub n_layers: usize,
    /// Query heads, `H`.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Longest sequence, `max_position_embeddings`.
    pub max_positions: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_eps: f64,
    /// Rotary position embedding.
    pub rope: RopeConfig,
    /// Part of each head that is rotated, in (0, 1]; below 1 only for Phi-3 models.
    pub partial_rotary: f64,
    /// A token sees this many tokens, itself included, in the layers that [`LmConfig::window`] names.
    pub sliding_window: Option<usize>,
    /// The layers with a window where not all have one (Qwen 2); empty: all.
    pub sliding_layers: Vec<bool>,
    /// The output layer is the embedding.
    pub tie_embeddings: bool,
    /// q, k and v have a bias.
    pub attention_bias: bool,
    /// The output projection of the attention has a bias.
    pub attention_out_bias: bool,
    /// The feed-forward projections have a bias.
    pub mlp_bias: bool,
    /// First token of a text.
    pub bos: Option<i64>,
    /// Tokens that end a text.
    pub eos: Vec<i64>,
    /// Token for padding.
    pub pad: Option<i64>,
    /// Standard deviation of new weights.
    pub initializer_range: f64,
    /// Number type of the weight files as the configuration tells it.
    pub stored_kind: Option<Kind>,
}

impl LmConfig {
    /// Reads `folder/config.json`.
    ///
    /// # Errors
    /// When the file is missing or not JSON, the architecture is none of [`Architecture::ALL`], a size is missing, absurd or
    /// does not divide, or the rope scaling or activation is one that is not implemented; the message names the key.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let path = folder.join(CONFIG_FILE);
        let text = fs::read_to_string(&path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::Checkpoint {
                path: folder.to_owned(),
                message: format!("no {CONFIG_FILE} in this folder"),
                hint: Some(
                    "give the folder of a model in Hugging Face format (config.json, tokenizer.json, *.safetensors)".into(),
                ),
            },
            _ => Error::io(&path, "read the model's configuration")(source),
        })?;
        Self::from_text(&path, &text)
    }

    /// Reads the text of a `config.json`; `path` is for messages.
    ///
    /// # Errors
    /// As [`LmConfig::from_folder`].
    pub fn from_text(path: &Path, text: &str) -> Result<Self> {
        match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(map)) => read::config(path, &map),
            Ok(_) => Err(wrong(path, "is not a JSON object".into(), None)),
            Err(e) => Err(wrong(path, format!("is not JSON: {e}"), None)),
        }
    }

    /// The window of layer `layer`, if it has one.
    pub fn window(&self, layer: usize) -> Option<usize> {
        self.sliding_window.filter(|_| self.sliding_layers.get(layer).copied().unwrap_or(true))
    }

    /// Number of rotated values of each head; even.
    pub fn rotary_dim(&self) -> usize {
        (self.head_dim as f64 * self.partial_rotary) as usize
    }

    /// The content of a `config.json` that `transformers` 4 and 5 load; `kind` is the number type of the weights beside.
    pub fn to_json(&self, kind: Kind) -> Map<String, Value> {
        write::json(self, kind)
    }

    /// Every wanted tensor: name and shape, in the order of the layers. A tied output layer is not among them.
    pub fn tensors(&self) -> Vec<(String, Vec<i64>)> {
        let [v, d, f] = [self.vocab_size, self.hidden_size, self.intermediate_size].map(|n| n as i64);
        let (q, kv) = ((self.n_heads * self.head_dim) as i64, (self.n_kv_heads * self.head_dim) as i64);
        let mut list = vec![("model.embed_tokens.weight".to_owned(), vec![v, d])];
        let linear = |list: &mut Vec<(String, Vec<i64>)>, name: String, n_out: i64, n_in: i64, bias: bool| {
            list.push((format!("{name}.weight"), vec![n_out, n_in]));
            if bias {
                list.push((format!("{name}.bias"), vec![n_out]));
            }
        };
        for i in 0..self.n_layers {
            let at = |part: &str| format!("model.layers.{i}.{part}");
            list.push((at("input_layernorm.weight"), vec![d]));
            if self.architecture.fused() {
                linear(&mut list, at("self_attn.qkv_proj"), q + 2 * kv, d, self.attention_bias);
            } else {
                linear(&mut list, at("self_attn.q_proj"), q, d, self.attention_bias);
                linear(&mut list, at("self_attn.k_proj"), kv, d, self.attention_bias);
                linear(&mut list, at("self_attn.v_proj"), kv, d, self.attention_bias);
            }
            linear(&mut list, at("self_attn.o_proj"), d, q, self.attention_out_bias);
            list.push((at("post_attention_layernorm.weight"), vec![d]));
            if self.architecture.fused() {
                linear(&mut list, at("mlp.gate_up_proj"), 2 * f, d, self.mlp_bias);
            } else {
                linear(&mut list, at("mlp.gate_proj"), f, d, self.mlp_bias);
                linear(&mut list, at("mlp.up_proj"), f, d, self.mlp_bias);
            }
            linear(&mut list, at("mlp.down_proj"), d, f, self.mlp_bias);
        }
        list.push(("model.norm.weight".to_owned(), vec![d]));
        if !self.tie_embeddings {
            list.push(("lm_head.weight".to_owned(), vec![v, d]));
        }
        list
    }

    /// Number of weights.
    pub fn n_parameters(&self) -> u64 {
        self.tensors().iter().map(|(_, shape)| shape.iter().map(|&n| n as u64).product::<u64>()).sum()
    }
}

pub(crate) fn wrong(path: &Path, message: String, hint: Option<&str>) -> Error {
    Error::Checkpoint { path: PathBuf::from(path), message, hint: hint.map(str::to_owned) }
}

#[cfg(test)]
mod tests;

//! From [`LmConfig`] to the keys of a `config.json`.

use serde_json::{Map, Value, json};
use tch::Kind;

use super::{Architecture, LmConfig, RopeScaling, rope};

pub(super) fn json(config: &LmConfig, kind: Kind) -> Map<String, Value> {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| {
        let _ = map.insert(key.to_owned(), value);
    };
    let architecture = config.architecture;
    put("architectures", json!([architecture.name()]));
    put("model_type", json!(architecture.model_type()));
    put("vocab_size", json!(config.vocab_size));
    put("hidden_size", json!(config.hidden_size));
    put("intermediate_size", json!(config.intermediate_size));
    put("num_hidden_layers", json!(config.n_layers));
    put("num_attention_heads", json!(config.n_heads));
    put("num_key_value_heads", json!(config.n_kv_heads));
    // Only these classes have the key; the others divide the width.
    if architecture != Architecture::Qwen2 || config.head_dim * config.n_heads != config.hidden_size {
        put("head_dim", json!(config.head_dim));
    }
    put("hidden_act", json!("silu"));
    put("max_position_embeddings", json!(config.max_positions));
    put("rms_norm_eps", json!(config.rms_eps));
    put("initializer_range", json!(config.initializer_range));
    put("rope_theta", json!(config.rope.theta));
    put("rope_scaling", rope::scaling_json(&config.rope.scaling));
    put("tie_word_embeddings", json!(config.tie_embeddings));
    put("attention_dropout", json!(0.0));
    match architecture {
        Architecture::Llama => {
            put("attention_bias", json!(config.attention_bias));
            put("mlp_bias", json!(config.mlp_bias));
        }
        Architecture::Mistral => put("sliding_window", json!(config.sliding_window)),
        Architecture::Qwen2 => {
            put("use_sliding_window", json!(config.sliding_window.is_some()));
            put("sliding_window", json!(config.sliding_window));
            let name = |i| if config.window(i).is_some() { "sliding_attention" } else { "full_attention" };
            put("layer_types", json!((0..config.n_layers).map(name).collect::<Vec<_>>()));
        }
        Architecture::Phi3 => {
            put("sliding_window", json!(config.sliding_window));
            put("partial_rotary_factor", json!(config.partial_rotary));
            if let RopeScaling::LongRope { original_max_positions, .. } = config.rope.scaling {
                put("original_max_position_embeddings", json!(original_max_positions));
            }
        }
    }
    put("bos_token_id", json!(config.bos));
    put("eos_token_id", match config.eos.as_slice() {
        [] => Value::Null,
        [one] => json!(one),
        many => json!(many),
    });
    put("pad_token_id", json!(config.pad));
    put("use_cache", json!(true));
    put("torch_dtype", json!(match kind {
        Kind::BFloat16 => "bfloat16",
        Kind::Half => "float16",
        _ => "float32",
    }));
    map
}

use proptest::prelude::*;

use super::*;

const LLAMA: &str = r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 100, "hidden_size": 32, "intermediate_size": 44,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64"#;

fn read(text: &str) -> Result<LmConfig> {
    LmConfig::from_text(Path::new("m/config.json"), text)
}

fn with(more: &str) -> Result<LmConfig> {
    read(&format!("{LLAMA}{more}}}"))
}

#[test]
fn both_spellings_of_rope_are_read() {
    let old = with(
        r#", "rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 32.0,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}"#,
    )
    .unwrap();
    let new = with(
        r#", "rope_parameters": {"rope_theta": 500000.0, "rope_type": "llama3", "factor": 32.0,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}"#,
    )
    .unwrap();
    assert_eq!(old, new);
    assert_eq!(old.rope.theta, 500_000.0);
    assert!(matches!(old.rope.scaling, RopeScaling::Llama3 { original_max_positions: 16, .. }), "{:?}", old.rope);
    assert_eq!(with("").unwrap().rope, RopeConfig { theta: 10_000.0, scaling: RopeScaling::Default });
    let linear = with(r#", "rope_scaling": {"type": "linear", "factor": 2.0}"#).unwrap();
    assert_eq!(linear.rope.scaling, RopeScaling::Linear { factor: 2.0 });
}

#[test]
fn writing_and_reading_gives_the_same() {
    let phi = r#"{"model_type": "phi3", "vocab_size": 50, "hidden_size": 64, "intermediate_size": 40,
        "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64, "partial_rotary_factor": 0.5,
        "original_max_position_embeddings": 16, "sliding_window": 7, "eos_token_id": [3, 4],
        "rope_scaling": {"type": "longrope", "short_factor": [1, 1.1, 1.2, 1.3], "long_factor": [1, 2, 3, 4]}}"#;
    let qwen = r#"{"architectures": ["Qwen2ForCausalLM"], "vocab_size": 100, "hidden_size": 32, "intermediate_size": 44,
        "num_hidden_layers": 3, "num_attention_heads": 4, "use_sliding_window": true, "sliding_window": 5,
        "max_window_layers": 1, "tie_word_embeddings": true}"#;
    for mut config in [with("").unwrap(), read(phi).unwrap(), read(qwen).unwrap()] {
        let text = Value::Object(config.to_json(Kind::BFloat16)).to_string();
        config.stored_kind = Some(Kind::BFloat16);
        assert_eq!(read(&text).unwrap(), config);
    }
    let config = read(qwen).unwrap();
    assert_eq!([0, 1, 2].map(|i| config.window(i)), [None, Some(5), Some(5)]);
    assert!(config.attention_bias && !config.attention_out_bias);
}

#[test]
fn mistrals_window_is_on_unless_null() {
    let mistral = |more: &str| read(&format!("{}{more}}}", LLAMA.replace("Llama", "Mistral"))).unwrap().sliding_window;
    assert_eq!(mistral(""), Some(4096));
    assert_eq!(mistral(r#", "sliding_window": null"#), None);
    assert_eq!(mistral(r#", "sliding_window": 9"#), Some(9));
}

#[test]
fn each_wrong_key_is_named() {
    for (text, parts) in [
        (LLAMA.replace("Llama", "Gemma3") + "}", vec!["`Gemma3ForCausalLM`", "Qwen2ForCausalLM", "Phi3ForCausalLM"]),
        (LLAMA.replace("100", "-1") + "}", vec!["`vocab_size`", "-1"]),
        (LLAMA.replace("100", "99999999999") + "}", vec!["`vocab_size`", "99999999999"]),
        (LLAMA.replace(r#""hidden_size": 32, "#, "") + "}", vec!["`hidden_size` is missing"]),
        (LLAMA.replace(r#""num_key_value_heads": 2"#, r#""num_key_value_heads": 3"#) + "}", vec!["must divide"]),
        (LLAMA.replace("\"hidden_size\": 32", "\"hidden_size\": 34") + "}", vec!["must divide hidden_size"]),
        (LLAMA.to_owned() + r#", "hidden_act": "gelu"}"#, vec!["`hidden_act`", "gelu"]),
        (LLAMA.to_owned() + r#", "rope_scaling": {"type": "dynamic", "factor": 2}}"#, vec!["`dynamic`", "llama3"]),
        (LLAMA.to_owned() + r#", "rope_scaling": {"rope_type": "llama3"}}"#, vec!["rope_scaling.low_freq_factor"]),
        (LLAMA.to_owned() + r#", "rope_theta": "x"}"#, vec!["`rope_theta` must be a number"]),
        (LLAMA.to_owned() + r#", "eos_token_id": 100}"#, vec!["token id 100", "vocab_size 100"]),
        (LLAMA.to_owned() + r#", "quantization_config": {"quant_method": "gptq"}}"#, vec!["`gptq`"]),
        (LLAMA.to_owned(), vec!["is not JSON"]),
        ("[]".to_owned(), vec!["not a JSON object"]),
    ] {
        let message = read(&text).unwrap_err().to_string();
        assert!(message.starts_with("m/config.json: "), "{message}");
        for part in parts {
            assert!(message.contains(part), "{part} in {message}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let error = LmConfig::from_folder(folder.path()).unwrap_err();
    assert!(error.to_string().contains("no config.json") && error.hint().is_some(), "{error}");
}

#[test]
fn parameters_are_counted() {
    // Per layer: 2·32 norms, 32·32·2 for q and o, 32·16·2 for k and v, 3·32·44; embedding and head 100·32; last norm 32.
    let config = with("").unwrap();
    assert_eq!(config.n_parameters(), 2 * (64 + 2048 + 1024 + 4224) + 2 * 3200 + 32);
}

/// Any JSON value that might stand behind a key.
fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0u64..70).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::collection::vec(any::<f64>().prop_map(Value::from), 0..9).prop_map(Value::from),
        "[a-z0-9]{0,6}".prop_map(Value::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_values_give_an_error_or_sizes_that_multiply(
        family in 0usize..4,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any_value()), 0..4),
        rope in prop::collection::vec((any::<prop::sample::Index>(), any_value()), 0..6),
    ) {
        let keys = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "rope_theta", "sliding_window",
            "use_sliding_window", "max_window_layers", "layer_types", "partial_rotary_factor", "eos_token_id", "dtype",
            "original_max_position_embeddings", "rope_scaling", "hidden_act", "tie_word_embeddings"];
        let scaling = ["rope_type", "factor", "low_freq_factor", "high_freq_factor", "short_factor", "long_factor",
            "original_max_position_embeddings", "attention_factor", "rope_theta", "partial_rotary_factor"];
        let mut map: Map<String, Value> = serde_json::from_str(&format!("{LLAMA}}}")).unwrap();
        let _ = map.insert("architectures".into(), serde_json::json!([Architecture::ALL[family].name()]));
        let kinds = ["llama3", "longrope", "linear", "default"];
        let mut inner: Map<String, Value> = serde_json::from_value(serde_json::json!({
            "rope_type": kinds[rope.len() % 4], "factor": 2, "low_freq_factor": 1, "high_freq_factor": 4,
            "short_factor": [1, 1, 1, 1], "long_factor": [2, 2, 2, 2],
        })).unwrap();
        for (at, value) in rope {
            let _ = inner.insert(scaling[at.index(scaling.len())].into(), value);
        }
        let _ = map.insert("rope_parameters".into(), Value::Object(inner));
        for (at, value) in edits {
            let _ = map.insert(keys[at.index(keys.len())].into(), value);
        }
        if let Ok(config) = read(&Value::Object(map).to_string()) {
            prop_assert!(config.n_parameters() > 0);
            prop_assert!(config.n_heads % config.n_kv_heads == 0 && config.rotary_dim() % 2 == 0);
            let mut again = read(&Value::Object(config.to_json(Kind::Float)).to_string()).unwrap();
            again.stored_kind = config.stored_kind;
            // serde_json may read another last digit than it wrote.
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-12 * b.abs();
            prop_assert!(near(again.rope.theta, config.rope.theta) && near(again.rms_eps, config.rms_eps));
            prop_assert!(near(again.partial_rotary, config.partial_rotary));
            let same = std::mem::discriminant(&again.rope.scaling) == std::mem::discriminant(&config.rope.scaling);
            prop_assert!(same, "{:?}", config.rope);
            (again.rope, again.rms_eps) = (config.rope.clone(), config.rms_eps);
            again.partial_rotary = config.partial_rotary;
            prop_assert_eq!(again, config);
        }
    }
}

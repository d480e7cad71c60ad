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
    let old = with(r#", "rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 32.0,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}"#)
    .unwrap();
    let new = with(r#", "rope_parameters": {"rope_theta": 500000.0, "rope_type": "llama3", "factor": 32.0,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}"#)
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
    let phi = r#"{"model_type": "phi3", "vocab_size": 50, "hidden_size": 48, "intermediate_size": 40,
        "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64, "partial_rotary_factor": 0.75,
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

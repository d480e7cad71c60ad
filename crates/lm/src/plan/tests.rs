use std::path::Path;

use serde_json::json;

use super::*;

fn config(value: serde_json::Value) -> LmConfig {
    LmConfig::from_text(Path::new("config.json"), &value.to_string()).unwrap()
}

/// Architecture, vocabulary, width, inside, layers, heads, key heads, tied.
fn sizes(class: &str, kind: &str, n: [u64; 6], tied: bool) -> LmConfig {
    let [v, d, f, layers, heads, kv] = n;
    config(json!({
        "architectures": [class], "model_type": kind, "vocab_size": v, "hidden_size": d, "intermediate_size": f,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv,
        "max_position_embeddings": 4096, "tie_word_embeddings": tied, "rms_norm_eps": 1e-5, "hidden_act": "silu",
        "rope_theta": 10000.0,
    }))
}

fn llama(n: [u64; 6], tied: bool) -> LmConfig {
    sizes("LlamaForCausalLM", "llama", n, tied)
}

fn tiny_llama() -> LmConfig {
    llama([32_000, 2048, 5632, 22, 32, 4], false)
}

#[test]
fn parameter_counts_are_the_published_ones() {
    let mistral = sizes("MistralForCausalLM", "mistral", [32_000, 4096, 14_336, 32, 32, 8], false);
    let qwen = sizes("Qwen2ForCausalLM", "qwen2", [151_936, 896, 4864, 24, 14, 2], true);
    let phi = sizes("Phi3ForCausalLM", "phi3", [200_064, 3072, 8192, 32, 24, 8], true);
    for (name, config, want) in [
        ("Llama-3.2-1B", llama([128_256, 2048, 8192, 16, 32, 8], true), 1_235_814_400u64),
        ("TinyLlama-1.1B", tiny_llama(), 1_100_048_384),
        ("Llama-2-7B", llama([32_000, 4096, 11_008, 32, 32, 32], false), 6_738_415_616),
        ("Mistral-7B-v0.1", mistral, 7_241_732_096),
        ("Qwen2.5-0.5B", qwen, 494_032_768),
        ("Phi-4-mini", phi, 3_836_021_760),
    ] {
        let request = generate(WeightKind::Bf16, 2);
        let plan = Plan::new(&config, &request).unwrap();
        assert_eq!(plan.parameters, want, "{name}");
        assert_eq!(plan.bytes("weights"), 2 * want, "{name}");
    }
}

fn generate(weights: WeightKind, compute_bytes: usize) -> PlanRequest {
    let task = Task::Generate { batch: 2, prompt_len: 100, total_len: 1000 };
    PlanRequest { weights, compute_bytes, device: tch::Device::Cpu, task }
}

fn train(trained: Trained, state: OptimizerState, checkpointing: bool) -> PlanRequest {
    let (batch, seq_len, micro_batches, packed) = (4, 512, 1, false);
    let task = Task::Train { batch, seq_len, micro_batches, trained, state, checkpointing, packed };
    PlanRequest { weights: WeightKind::F32, compute_bytes: 4, device: tch::Device::Cpu, task }
}

fn lora(targets: &[&str]) -> Trained {
    Trained::Lora { rank: 16, targets: targets.iter().map(|&t| t.to_owned()).collect(), dropout: false, gated: false }
}

#[test]
fn phi_4_mini_matches_the_figures_of_the_specification() {
    // specs/so8t.md section 2.15: int8 body 3.22 GB + bf16 embedding 1.23 GB; LoRA r = 64 on the four fused linears has
    // 92.27 M parameters.
    let phi = sizes("Phi3ForCausalLM", "phi3", [200_064, 3072, 8192, 32, 24, 8], true);
    let weights = |kind| Plan::new(&phi, &generate(kind, 2)).unwrap().bytes("weights") as f64;
    assert!((weights(WeightKind::Int8) / 1e9 - 4.45).abs() < 0.01, "{}", weights(WeightKind::Int8));
    // 3221225472 weights at 4.127 bits and the rest in bf16.
    let nf4 = 3_221_225_472.0 * 4.127 / 8.0 + 2.0 * (614_596_608.0 + 199_680.0);
    assert!((weights(WeightKind::Nf4) / nf4 - 1.0).abs() < 1e-3, "{} {nf4}", weights(WeightKind::Nf4));
    let targets = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"].map(str::to_owned).to_vec();
    let trained = Trained::Lora { rank: 64, targets, dropout: true, gated: false };
    let plan = Plan::new(&phi, &train(trained, OptimizerState::EightBit, true)).unwrap();
    assert_eq!(plan.trained, 92_274_688);
    assert!((plan.bytes("optimizer") as f64 / 92_274_688.0 - 2.031_25).abs() < 1e-3);
}

#[test]
fn cache_and_states_match_hand_values() {
    // TinyLlama: 22 layers, 4 key heads of 64: 2·22·256 = 11264 numbers a token.
    let plan = Plan::new(&tiny_llama(), &generate(WeightKind::Bf16, 2)).unwrap();
    // 100 tokens of prompt get room for 125; growing doubles: 250, 500, 1000.
    assert_eq!(plan.bytes("KV cache"), 11_264 * 2 * 1000 * 2);
    let plan = Plan::new(&tiny_llama(), &train(Trained::All, OptimizerState::F32, false)).unwrap();
    assert_eq!(plan.bytes("optimizer"), 8 * 1_100_048_384);
    assert_eq!(plan.bytes("gradients"), 4 * 1_100_048_384);
    assert_eq!(plan.total(), plan.lines.iter().map(|line| line.bytes).sum::<u64>() - plan.overlap);
    assert_eq!(plan.overlap, 0);
    // One micro-batch of 8-bit training: the second set of gradients comes after the activations.
    let plan = Plan::new(&tiny_llama(), &train(Trained::All, OptimizerState::EightBit, false)).unwrap();
    assert!(plan.overlap > 0 && plan.overlap < plan.bytes("gradients"));
}

#[test]
fn checkpointing_and_fewer_targets_take_less() {
    let kept = |request: &PlanRequest| Plan::new(&tiny_llama(), request).unwrap().bytes("activations");
    let all = kept(&train(Trained::All, OptimizerState::F32, false));
    let adapters = kept(&train(lora(&["q_proj", "v_proj"]), OptimizerState::F32, false));
    let again = kept(&train(lora(&["q_proj", "v_proj"]), OptimizerState::F32, true));
    assert!(again * 5 < adapters && adapters < all, "{again} {adapters} {all}");
    // By hand, all weights: 6·2048 + 4·2048 + 4·5632 = 43008 numbers a token and layer, 32 f32 of log-sum-exp,
    // 22 layers; then final norm 3·2048 and states 3·2048.
    assert_eq!(all, 2048 * 4 * (22 * (43_008 + 32) + 6 * 2048));
}

#[test]
fn what_does_not_fit_is_refused_with_both_numbers() {
    let plan = Plan::new(&tiny_llama(), &generate(WeightKind::F32, 4)).unwrap();
    plan.fits(plan.total()).unwrap();
    let error = plan.fits(1 << 30).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("1073741824 bytes") && text.contains(&plan.total().to_string()), "{text}");
    assert!(text.contains("weights") && error.hint().is_some(), "{text}");
    let table = plan.to_string();
    assert!(
        table.lines().count() == plan.lines.len() + 1 + usize::from(plan.overlap > 0) && table.contains("total"),
        "{table}"
    );
}

#[test]
fn impossible_requests_are_told() {
    let tiny = tiny_llama();
    let text = |request: &PlanRequest| Plan::new(&tiny, request).unwrap_err();
    let error = text(&train(lora(&["qkv_proj"]), OptimizerState::F32, false));
    assert!(error.to_string().contains("`qkv_proj`") && error.hint().unwrap().contains("q_proj"), "{error}");
    let mut request = train(Trained::All, OptimizerState::F32, false);
    request.weights = WeightKind::Nf4;
    assert!(text(&request).to_string().contains("cannot be trained"));
    let mut request = generate(WeightKind::F32, 4);
    request.task = Task::Generate { batch: 1, prompt_len: 10, total_len: 5000 };
    assert!(text(&request).to_string().contains("context of 4096"));
}

#[test]
fn amounts_read_and_write() {
    for (text, want) in [("1024", 1024), ("12GiB", 12 << 30), ("1.5 GB", 1_500_000_000), ("800M", 800_000_000)] {
        assert_eq!(parse_bytes(text).unwrap(), want, "{text}");
    }
    assert!(parse_bytes("much").is_err() && parse_bytes("3 apples").is_err());
    assert_eq!(
        (bytes_text(1536), bytes_text(7), bytes_text(3 << 40)),
        ("1.50 KiB".into(), "7 B".into(), "3.00 TiB".into())
    );
}

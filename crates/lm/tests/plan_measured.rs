//! The memory plan against the measured peak, each case in a process of its own (the peak of a process never falls).
//!
//! Run by hand: `cargo test -p anyo-lm --test plan_measured -- --ignored measured --nocapture`.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::{path::Path, process::Command};

use anyo_core::{
    memory,
    torch::{OptimConfig, OptimName, ScheduleConfig, ScheduleName},
};
use anyo_lm::{
    Causal, CausalLm, LmConfig, LmInput, Pass,
    builtin::head_weight,
    plan::{Plan, PlanRequest, Task, Trained, WeightKind, bytes_text},
    train::{Accumulator, Batch, CrossEntropy, Example, GroupConfig, LmOptimizer, OptimizerState, Trainable},
};
use tch::{Device, Kind, Tensor};

const CASE: &str = "ANYO_PLAN_CASE";
const CASES: [&str; 6] = ["generate", "generate-bf16", "train", "train-checkpointed", "train-8bit", "train-bf16"];

fn config(width: usize, layers: usize) -> LmConfig {
    let text = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 16 * width, "hidden_size": width,
        "intermediate_size": width * 11 / 4, "num_hidden_layers": layers, "num_attention_heads": 8,
        "num_key_value_heads": 4, "max_position_embeddings": 2048, "tie_word_embeddings": true, "rms_norm_eps": 1e-5,
        "hidden_act": "silu", "rope_theta": 10000.0,
    });
    LmConfig::from_text(Path::new("config.json"), &text.to_string()).unwrap()
}

fn request(case: &str) -> PlanRequest {
    let half = case.ends_with("bf16");
    let task = if case.starts_with("train") {
        let state = if case.ends_with("8bit") { OptimizerState::EightBit } else { OptimizerState::F32 };
        Task::Train {
            batch: 4,
            seq_len: 256,
            micro_batches: 1,
            trained: Trained::All,
            state,
            checkpointing: case.ends_with("checkpointed"),
            packed: false,
        }
    } else {
        Task::Generate { batch: 4, prompt_len: 1024, total_len: 1032 }
    };
    let (weights, compute_bytes) = if half { (WeightKind::Bf16, 2) } else { (WeightKind::F32, 4) };
    PlanRequest { weights, compute_bytes, device: Device::Cpu, task }
}

#[test]
#[ignore = "a process of its own, started by `measured`"]
fn child() {
    let case = std::env::var(CASE).unwrap();
    memory::keep_freed_memory();
    let kind = if case.ends_with("bf16") { Kind::BFloat16 } else { Kind::Float };
    // A small model first, so that libraries, their code pages and their buffers are there before the measurement.
    run(&case, config(64, 2), kind);
    let before = memory::peak_rss_bytes();
    run(&case, config(512, 8), kind);
    println!("MEASURED {}", memory::peak_rss_bytes() - before);
}

fn run(case: &str, config: LmConfig, kind: Kind) {
    let request = request(case);
    let mut source = |_: &str, shape: &[i64]| Ok(Tensor::f_randn(shape, (kind, Device::Cpu))? * 0.02);
    let model = CausalLm::from_source(config, Device::Cpu, kind, &mut source).unwrap();
    match request.task {
        Task::Train { batch, seq_len, state, checkpointing, .. } => {
            let schedule =
                ScheduleConfig { name: ScheduleName::Constant, warmup_steps: 0, total_steps: None, floor: 0.0 };
            let (name, betas) = (OptimName::AdamW, [0.9, 0.999]);
            let optim = OptimConfig { name, lr: 1e-3, betas, eps: 1e-8, weight_decay: 0.0, clip_norm: None, schedule };
            let trainable = Trainable::adopt(model.named_tensors(), Device::Cpu).unwrap();
            let groups = GroupConfig::uniform(0.0).groups(trainable.params());
            let mut optimizer = LmOptimizer::new(&optim, state, trainable.params(), &groups).unwrap();
            let mut accumulator = Accumulator::new(&trainable, CrossEntropy::plain());
            let rows: Vec<Example> = (0..batch)
                .map(|b| Example::text((0..seq_len as i64).map(|i| (i * 7 + b as i64) % 1000).collect()))
                .collect();
            let rows = Batch::padded(&rows, 0, Device::Cpu).unwrap();
            for step in 0..2 {
                let (head, pass) = (head_weight(&model), Pass::default());
                if checkpointing {
                    accumulator.add_checkpointed(&model, head, &rows, &pass).unwrap();
                } else {
                    accumulator.add(&model, head, &rows, &pass).unwrap();
                }
                accumulator.finish(&mut optimizer, None, 1.0, step).unwrap();
            }
        }
        Task::Generate { batch, prompt_len, total_len } => tch::no_grad(|| {
            let mut cache = model.new_cache(batch);
            let mut ids = Tensor::ones([batch as i64, prompt_len as i64], (Kind::Int64, Device::Cpu));
            for _ in prompt_len..total_len {
                let input = LmInput { ids, ..LmInput::default() };
                let hidden = model.hidden(&input, Some(&mut cache), &Pass::default()).unwrap();
                ids = model.logits(&hidden.narrow(1, hidden.size()[1] - 1, 1)).unwrap().argmax(-1, false);
            }
        }),
    }
}

#[test]
#[ignore = "takes seconds a case; the figures are in the specification"]
fn measured() {
    for case in CASES {
        let out = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "child", "--nocapture", "--test-threads=1"])
            .env(CASE, case)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        let measured = text.lines().find_map(|line| line.split("MEASURED ").nth(1)?.trim().parse::<u64>().ok());
        let measured = measured.unwrap_or_else(|| panic!("{case}: {text} {}", String::from_utf8_lossy(&out.stderr)));
        let plan = Plan::new(&config(512, 8), &request(case)).unwrap();
        let ratio = plan.total() as f64 / measured as f64;
        println!(
            "{case:20} plan {:>11} measured {:>11} ratio {ratio:.3}",
            bytes_text(plan.total()),
            bytes_text(measured)
        );
        println!("{plan}");
    }
}

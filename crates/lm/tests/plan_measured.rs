//! The memory plan against the measured peak, each case in a process of its own (the peak of a process never falls).
//!
//! All cases by hand: `cargo test -p anyo-lm --test plan_measured -- --ignored measured --nocapture`; a list of one's own:
//! `ANYO_PLAN_CASES="a f32 b4 s256 full; b nf4 b2 s300 lora dropout"` in front of that command.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]
#![cfg(target_os = "linux")]

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::Command,
};

use anyo_core::{
    memory,
    torch::{OptimConfig, OptimName, Params, ScheduleConfig, ScheduleName, device::set_threads},
};
use anyo_lm::{
    CausalLm, DropoutStream, LmConfig, LoadOptions, LoraConfig, Pass, Targets, Tokenizer, attach,
    builtin::head_weight,
    generate::{Prompt, SamplingConfig, generate},
    plan::{Plan, PlanRequest, Task, Trained, WeightKind, bytes_text},
    quant::Quant,
    train::{Accumulator, Batch, CrossEntropy, Example, GroupConfig, LmOptimizer, OptimizerState, Trainable},
};
use tch::{Device, Kind, Tensor};

/// What the specification lists.
const CASES: [&str; 29] = [
    "a f32 b4 s512",
    "a bf16 b4 s256",
    "a int8 b4 s512",
    "a nf4 b4 s512",
    "a f32 b4 s1024 to1300 sample",
    "a f32 b4 s128 full",
    "a f32 b4 s128 full ckpt",
    "a f32 b4 s128 full adam8",
    "a f32 b4 s128 full micro2",
    "a f32 b8 s256 lora",
    "a f32 b8 s256 lora all dropout",
    "a f32 b8 s256 lora all gated",
    "a f32 b8 s256 lora all ckpt",
    "a nf4 b4 s256 lora",
    "a nf4 b4 s256 lora ckpt",
    "a int8 b4 s256 lora all",
    "a bf16 b2 s128 full",
    "a bf16 b2 s128 lora all",
    "b f32 b3 s400",
    "b nf4 b3 s300",
    "b f32 b3 s150 full",
    "b f32 b3 s150 full ckpt",
    "b f32 b6 s200 lora all dropout",
    "b int8 b3 s200 lora ckpt",
    "c f32 b5 s200",
    "c f32 b5 s100 full",
    "c f32 b5 s200 lora gated",
    "c f32 b5 s200 lora all ckpt",
    "c nf4 bf16 b2 s100 lora all dropout",
];
/// Those whose estimate a change must not move by more than 15 % from the measured peak; a few seconds each.
const GUARDED: [&str; 4] =
    ["a f32 b4 s128 full", "a f32 b4 s128 full adam8", "a f32 b8 s256 lora all dropout", "a nf4 b4 s256 lora"];
const CASE: &str = "ANYO_PLAN_CASE";
const FOLDERS: &str = "ANYO_PLAN_FOLDERS";
const RANK: usize = 16;
const EXPERTS: i64 = 4;

/// A case as words: shape, storage of the weights, and what is done.
///
/// Weights: `f32`, `bf16`, `int8`, `nf4`, and for the last two `bf16` behind it where that is the computing type. `b` rows,
/// `s` tokens of prompt or training row; `to` tokens with the new ones (generation); `full`, or `lora` on two or `all`
/// linears with `dropout` and `gated`; `micro` batches in a step; `ckpt` recomputes layers; `adam8`.
struct Case {
    shape: String,
    request: PlanRequest,
    kind: Kind,
    sample: bool,
    gated: bool,
}

fn parse(text: &str) -> Case {
    let words: Vec<&str> = text.split_whitespace().collect();
    let has = |word: &str| words.contains(&word);
    let number = |key: &str, missing: usize| {
        words.iter().find_map(|word| word.strip_prefix(key)?.parse().ok()).unwrap_or(missing)
    };
    let weights = match words[1] {
        "f32" => WeightKind::F32,
        "bf16" => WeightKind::Bf16,
        "int8" => WeightKind::Int8,
        "nf4" => WeightKind::Nf4,
        other => panic!("weights `{other}`"),
    };
    let kind = if has("bf16") { Kind::BFloat16 } else { Kind::Float };
    let (batch, seq_len) = (number("b", 1), number("s", 1));
    let fused = words[0] == "c";
    let targets = match (has("all"), fused) {
        (false, false) => vec!["q_proj", "v_proj"],
        (false, true) => vec!["qkv_proj", "down_proj"],
        (true, false) => vec!["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        (true, true) => vec!["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
    };
    let targets = targets.into_iter().map(str::to_owned).collect();
    let trained = match has("lora") {
        true => Trained::Lora { rank: RANK, targets, dropout: has("dropout"), gated: has("gated") },
        false => Trained::All,
    };
    let task = match has("full") || has("lora") {
        true => Task::Train {
            batch,
            seq_len,
            micro_batches: number("micro", 1),
            trained,
            state: if has("adam8") { OptimizerState::EightBit } else { OptimizerState::F32 },
            checkpointing: has("ckpt"),
            packed: false,
        },
        false => Task::Generate { batch, prompt_len: seq_len, total_len: number("to", seq_len + 8) },
    };
    let request = PlanRequest { weights, compute_bytes: kind.elt_size_in_bytes(), device: Device::Cpu, task };
    Case { shape: words[0].to_owned(), request, kind, sample: has("sample"), gated: has("gated") }
}

/// `a` is the shape that the plan was developed on, `b` and `c` are others to check it; `w` warms up, and `x` does with fused layers.
fn config(shape: &str) -> LmConfig {
    // vocabulary, width, inside, layers, heads, key heads
    let (n, tied, class) = match shape {
        "a" => ([6000, 384, 1056, 6, 6, 2], true, "Llama"),
        "b" => ([20_000, 384, 1024, 6, 6, 6], false, "Llama"),
        "c" => ([4000, 640, 1920, 5, 10, 2], true, "Phi3"),
        "w" => ([1024, 64, 176, 2, 2, 1], true, "Llama"),
        "x" => ([1024, 64, 176, 2, 2, 1], true, "Phi3"),
        other => panic!("shape `{other}`"),
    };
    let [vocab, width, inside, layers, heads, kv] = n;
    let text = serde_json::json!({
        "architectures": [format!("{class}ForCausalLM")], "model_type": class.to_lowercase(), "vocab_size": vocab,
        "hidden_size": width, "intermediate_size": inside, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv, "max_position_embeddings": 2048, "tie_word_embeddings": tied, "rms_norm_eps": 1e-5,
        "hidden_act": "silu", "rope_theta": 10000.0, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    });
    LmConfig::from_text(Path::new("config.json"), &text.to_string()).unwrap()
}

#[test]
#[ignore = "a process of its own, started by the tests below"]
fn child() {
    let case = parse(&std::env::var(CASE).unwrap());
    let folders = PathBuf::from(std::env::var(FOLDERS).unwrap());
    memory::keep_freed_memory();
    set_threads(2).unwrap();
    // A small model first, so that libraries, their code pages and their buffers are there before the measurement.
    run(&folders.join("warm"), &small(&case));
    let before = resident();
    run(&folders.join("model"), &case);
    println!("MEASURED {}", memory::peak_rss_bytes().saturating_sub(before));
}

/// Bytes of this process that are in memory now.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// The same work on one row of a few tokens.
fn small(case: &Case) -> Case {
    let mut request = case.request.clone();
    match &mut request.task {
        Task::Generate { batch, prompt_len, total_len } => (*batch, *prompt_len, *total_len) = (1, 16, 20),
        Task::Train { batch, seq_len, .. } => (*batch, *seq_len) = (1, 16),
    }
    Case { shape: case.shape.clone(), request, ..*case }
}

fn run(folder: &Path, case: &Case) {
    let options = LoadOptions { device: Device::Cpu, dtype: case.kind };
    let quant = match case.request.weights {
        WeightKind::Int8 => Some(Quant::INT8),
        WeightKind::Nf4 => Some(Quant::NF4),
        _ => None,
    };
    let mut finish = |mut linear: anyo_lm::Linear| {
        if let Some(quant) = quant.filter(|_| linear.name() != "lm_head") {
            linear.quantize(quant)?;
        }
        Ok(linear)
    };
    let mut model = CausalLm::load_with(folder, &options, &mut finish).unwrap();
    match case.request.task.clone() {
        Task::Generate { batch, prompt_len, total_len } => {
            let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokenizer/bpe");
            let tokenizer = Tokenizer::from_folder(Path::new(fixture)).unwrap();
            let prompt = |b: usize| Prompt::new((0..prompt_len as u32).map(|i| (i * 7 + b as u32) % 500).collect());
            let prompts: Vec<Prompt> = (0..batch).map(prompt).collect();
            let n = total_len - prompt_len;
            let config = if case.sample { SamplingConfig::sample(n, 3) } else { SamplingConfig::greedy(n) };
            let mut on_text = |_: usize, _: &str| ControlFlow::Continue(());
            generate(&model, &tokenizer, &prompts, &config, &Pass::default(), &mut on_text).unwrap();
        }
        Task::Train { batch, seq_len, micro_batches, trained, state, checkpointing, .. } => {
            let trainable = match trained {
                Trained::All => Trainable::adopt(model.named_tensors(), Device::Cpu).unwrap(),
                Trained::Lora { rank, targets, dropout, .. } => {
                    let config = LoraConfig {
                        rank: rank as i64,
                        alpha: 16.0,
                        dropout: if dropout { 0.1 } else { 0.0 },
                        rslora: false,
                        targets: Targets::Names(targets),
                        rank_pattern: Default::default(),
                        alpha_pattern: Default::default(),
                        experts: case.gated.then_some(EXPERTS),
                    };
                    let mut params = Params::new(Device::Cpu);
                    attach(model.linears_mut(), "default", &config, &mut params, 3).unwrap();
                    Trainable::of_params(params)
                }
            };
            train(&model, &trainable, [batch, seq_len, micro_batches], state, checkpointing, case.gated);
        }
    }
}

fn train(model: &CausalLm, t: &Trainable, n: [usize; 3], state: OptimizerState, checkpointing: bool, gated: bool) {
    let [batch, seq_len, micro_batches] = n;
    let schedule = ScheduleConfig { name: ScheduleName::Constant, warmup_steps: 0, total_steps: None, floor: 0.0 };
    let (name, betas) = (OptimName::AdamW, [0.9, 0.999]);
    let optim = OptimConfig { name, lr: 1e-3, betas, eps: 1e-8, weight_decay: 0.0, clip_norm: None, schedule };
    let groups = GroupConfig::uniform(0.0).groups(t.params());
    let mut optimizer = LmOptimizer::new(&optim, state, t.params(), &groups).unwrap();
    let mut accumulator = Accumulator::new(t, CrossEntropy::plain());
    let rows: Vec<Example> =
        (0..batch as i64).map(|b| Example::text((0..seq_len as i64).map(|i| (i * 7 + b) % 1000).collect())).collect();
    let rows = Batch::padded(&rows, 0, Device::Cpu).unwrap();
    let gate = Tensor::full([batch as i64, EXPERTS], 0.25, (Kind::Float, Device::Cpu));
    for step in 0..2 {
        for _ in 0..micro_batches {
            let dropout = Some(DropoutStream::new(step));
            let (head, pass) = (head_weight(model), Pass { dropout, gate: gated.then_some(&gate), ..Pass::default() });
            if checkpointing {
                accumulator.add_checkpointed(model, head, &rows, &pass).unwrap();
            } else {
                accumulator.add(model, head, &rows, &pass).unwrap();
            }
        }
        accumulator.finish(&mut optimizer, None, 1.0, step).unwrap();
    }
}

/// A folder with random weights, written by this process so that the measured one only loads.
fn write(shape: &str, kind: Kind, folder: &Path) {
    let mut source =
        |_: &str, shape: &[i64]| Ok((Tensor::f_randn(shape, (Kind::Float, Device::Cpu))? * 0.02).to_kind(kind));
    CausalLm::from_source(config(shape), Device::Cpu, kind, &mut source).unwrap().save(folder).unwrap();
}

/// Plan over measured for one case.
fn ratio(text: &str) -> f64 {
    let case = parse(text);
    // As the child: the plan counts buffers for each thread.
    set_threads(2).unwrap();
    let folder = tempfile::tempdir().unwrap();
    write(if case.shape == "c" { "x" } else { "w" }, case.kind, &folder.path().join("warm"));
    write(&case.shape, case.kind, &folder.path().join("model"));
    let out = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CASE, text)
        .env(FOLDERS, folder.path())
        // The harness runs tests in threads of their own; a program's main thread has the one heap that is meant here.
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let measured = stdout.lines().find_map(|line| line.split("MEASURED ").nth(1)?.trim().parse::<u64>().ok());
    let measured = measured.unwrap_or_else(|| panic!("{text}: {stdout} {stderr}"));
    let plan = Plan::new(&config(&case.shape), &case.request).unwrap();
    let ratio = plan.total() as f64 / measured as f64;
    eprintln!("{text:44} plan {:>11} measured {:>11} ratio {ratio:.3}", bytes_text(plan.total()), bytes_text(measured));
    if std::env::var("ANYO_PLAN_LINES").is_ok() {
        eprintln!("{plan}\n{stdout}{stderr}");
    }
    ratio
}

#[test]
#[ignore = "takes seconds a case; the figures are in the specification"]
fn measured() {
    let chosen = std::env::var("ANYO_PLAN_CASES").ok();
    let cases: Vec<&str> = chosen.as_deref().map_or_else(|| CASES.to_vec(), |text| text.split(';').collect());
    for case in cases {
        ratio(case);
    }
}

#[test]
fn estimates_stay_within_15_percent() {
    for case in GUARDED {
        let ratio = ratio(case);
        assert!((0.85..1.15).contains(&ratio), "{case}: {ratio:.3}");
    }
}

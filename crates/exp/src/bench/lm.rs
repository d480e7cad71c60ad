//! `bench-lm WORK SHAPE DTYPE FOLDER [REPEATS] [THREADS] [ROWS] [LENGTH]`: our side of `benches/peers/lm.sh`, one JSON line per call.
//!
//! Each work is that of the same name in `benches/peers/lm.py`, on the same folder, with the same token ids.

use std::{fs, ops::ControlFlow, path::Path, time::Instant};

use anyhow::{Context as _, Result, bail};
use anyo_core::{
    memory::peak_rss_bytes,
    torch::{OptimConfig, OptimName, Params, ScheduleConfig, ScheduleName, device},
};
use anyo_lm::{
    Causal as _, CausalLm, LmInput, LoadOptions, LoraConfig, Pass, Targets, Tokenizer, attach,
    generate::{Prompt, SamplingConfig, generate},
    quant::Quant,
    train::{
        Accumulator, Batch, CrossEntropy, Example, GroupConfig, HeadWeight, LmOptimizer, OptimizerState, Trainable,
    },
};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor, no_grad};

const WORKS: [&str; 5] = ["forward", "train", "decode_1", "decode_8", "load"];
/// As in `lm.py`: rows and length of a batch, length of a prompt, new tokens.
const ROWS: usize = 4;
const LENGTH: usize = 128;
const PROMPT: usize = 32;
const NEW: usize = 48;

/// Runs the work that `args` names and returns the line to print.
///
/// # Errors
/// Wrong arguments, a folder that cannot be loaded, or whatever the work meets.
pub fn line(args: &[String]) -> Result<String> {
    let [work, shape, dtype, folder, rest @ ..] = args else {
        bail!(
            "bench-lm WORK SHAPE DTYPE FOLDER [REPEATS] [THREADS] [ROWS] [LENGTH]; WORK is one of {}",
            WORKS.join(", ")
        )
    };
    let (kind, quant) = match dtype.as_str() {
        "f32" => (Kind::Float, None),
        "bf16" => (Kind::BFloat16, None),
        "int8" => (Kind::Float, Some(Quant::INT8)),
        "nf4" => (Kind::Float, Some(Quant::NF4)),
        other => bail!("no type `{other}`; f32, bf16, or int8 and nf4, which have no peer here"),
    };
    let number = |i: usize, default: usize| rest.get(i).map_or(Ok(default), |word| word.parse());
    let (repeats, threads) = (number(0, 3).context("REPEATS")?, number(1, 2).context("THREADS")?);
    let batch = [number(2, ROWS).context("ROWS")?, number(3, LENGTH).context("LENGTH")?];
    let tokens = batch[0] * batch[1];
    device::set_threads(threads)?;
    let folder = Path::new(folder);
    let load_average = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let before = peak_rss_bytes();
    if work == "load" {
        for entry in fs::read_dir(folder)? {
            fs::read(entry?.path())?;
        }
    }
    let started = Instant::now();
    let model = CausalLm::load_with(folder, &LoadOptions { device: Device::Cpu, dtype: kind }, &mut |mut linear| {
        if let Some(quant) = quant.filter(|_| linear.name() != "lm_head") {
            linear.quantize(quant)?;
        }
        Ok(linear)
    })?;
    let loaded = started.elapsed().as_secs_f64();
    let bytes = model.dense_bytes();
    let measured = match work.as_str() {
        "load" => {
            let _ = forward(&model, &[vec![1]])?.f_sum(Kind::Float)?.f_double_value(&[])?;
            json!({ "seconds": loaded, "first_token_seconds": started.elapsed().as_secs_f64() })
        }
        "forward" => {
            let rows = token_ids(batch[0], batch[1], model.vocab_size());
            let seconds = repeated(repeats, || forward(&model, &rows).map(drop))?;
            json!({ "seconds": seconds, "tokens": tokens })
        }
        "train" => train(model, batch, repeats)?,
        "decode_1" => decode(&model, folder, 1, repeats)?,
        "decode_8" => decode(&model, folder, 8, repeats)?,
        other => bail!("no work `{other}`; one of {}", WORKS.join(", ")),
    };
    let mut line = json!({
        "work": work, "who": "ours", "shape": shape, "dtype": dtype, "threads": threads, "rows": batch[0], "length": batch[1],
        "load": load_average.split(' ').next().and_then(|word| word.parse::<f64>().ok()),
        "weight_mb": bytes as f64 / 1e6,
        "import_rss_mb": before as f64 / 1e6, "peak_rss_mb": peak_rss_bytes() as f64 / 1e6,
    });
    if let (Value::Object(line), Value::Object(measured)) = (&mut line, measured) {
        line.extend(measured);
    }
    Ok(line.to_string())
}

/// The same ids here and in `lm.py`.
fn token_ids(rows: usize, length: usize, vocab: usize) -> Vec<Vec<i64>> {
    let id = |at: usize| (1_000_003 * (at + 1) + 12_345) % 1_000_000_007 % vocab;
    (0..rows).map(|r| (0..length).map(|i| id(r * length + i) as i64).collect()).collect()
}

/// Median seconds of `body`, after one call for warmth.
fn repeated(repeats: usize, mut body: impl FnMut() -> Result<()>) -> Result<f64> {
    body()?;
    let mut seconds = Vec::with_capacity(repeats);
    for _ in 0..repeats.max(1) {
        let started = Instant::now();
        body()?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let middle = seconds.len() / 2;
    Ok(if seconds.len() % 2 == 1 { seconds[middle] } else { (seconds[middle - 1] + seconds[middle]) / 2.0 })
}

/// Logits of every place, `[B,S,V]`.
fn forward(model: &CausalLm, rows: &[Vec<i64>]) -> Result<Tensor> {
    let width = rows.first().map_or(0, Vec::len) as i64;
    let ids = Tensor::from_slice(&rows.concat()).f_view([-1, width])?;
    no_grad(|| {
        let hidden = model.hidden(&LmInput { ids, ..LmInput::default() }, None, &Pass::default())?;
        Ok(model.logits(&hidden)?)
    })
}

fn train(mut model: CausalLm, [rows, length]: [usize; 2], repeats: usize) -> Result<Value> {
    let lora = LoraConfig {
        rank: 8,
        alpha: 16.0,
        dropout: 0.0,
        rslora: false,
        targets: Targets::AllLinear,
        rank_pattern: Vec::new(),
        alpha_pattern: Vec::new(),
        experts: None,
    };
    let mut params = Params::new(Device::Cpu);
    let attached = attach(model.linears_mut(), "default", &lora, &mut params, 2)?;
    let trainable = Trainable::of_params(params);
    let schedule = ScheduleConfig { name: ScheduleName::Constant, warmup_steps: 0, total_steps: None, floor: 0.0 };
    let optim = OptimConfig {
        name: OptimName::AdamW,
        lr: 1e-4,
        betas: [0.9, 0.999],
        eps: 1e-8,
        weight_decay: 0.0,
        clip_norm: None,
        schedule,
    };
    let groups = GroupConfig::uniform(0.0).groups(trainable.params());
    let mut optimizer = LmOptimizer::new(&optim, OptimizerState::F32, trainable.params(), &groups)?;
    let examples: Vec<Example> = token_ids(rows, length, model.vocab_size()).into_iter().map(Example::text).collect();
    let batch = Batch::padded(&examples, 0, Device::Cpu)?;
    let mut losses = Vec::new();
    let mut accumulator = Accumulator::new(&trainable, CrossEntropy::plain());
    let seconds = repeated(repeats, || {
        accumulator.add(&model, HeadWeight::Dense(model.embedding()), &batch, &Pass::default())?;
        losses.push(accumulator.finish(&mut optimizer, None, 1.0, losses.len() as u64)?.loss);
        Ok(())
    })?;
    Ok(json!({
        "seconds": seconds, "tokens": rows * length, "trained": attached.n_parameters,
        "first_loss": losses.first(), "last_loss": losses.last(),
    }))
}

/// Seconds a token: the whole call for 1 + N tokens less the one for 1.
fn decode(model: &CausalLm, folder: &Path, rows: usize, repeats: usize) -> Result<Value> {
    let tokenizer = Tokenizer::from_folder(folder)?;
    let prompt = |ids: Vec<i64>| Prompt::new(ids.into_iter().map(|id| id as u32).collect());
    let prompts: Vec<Prompt> = token_ids(rows, PROMPT, model.vocab_size()).into_iter().map(prompt).collect();
    let mut ids = Vec::new();
    let mut seconds = |n: usize| {
        let config = SamplingConfig::greedy(n);
        repeated(repeats, || {
            let pass = Pass::default();
            let made = generate(model, &tokenizer, &prompts, &config, &pass, &mut |_, _| ControlFlow::Continue(()))?;
            ids = made.into_iter().next().map(|one| one.ids).unwrap_or_default();
            Ok(())
        })
    };
    let (one, longer) = (seconds(1)?, seconds(1 + NEW)?);
    ids.truncate(12);
    Ok(json!({
        "seconds": (longer - one) / NEW as f64, "tokens": rows, "prompt_seconds": one, "first_ids": ids,
    }))
}

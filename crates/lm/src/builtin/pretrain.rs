//! Training a small model from random weights on a stream of tokens.

use std::sync::atomic::{AtomicBool, Ordering};

use anyo_core::{
    Error, Result,
    seed::{self, Stream},
    torch::{OptimConfig, OptimName, Schedule, ScheduleConfig, ScheduleName},
};
use rand::RngExt;

use crate::{
    CausalLm, Pass,
    train::{
        Accumulator, Batch, CrossEntropy, Example, GroupConfig, HeadWeight, LmOptimizer, OptimizerState, StepFigures,
        Stopwatch, Trainable,
    },
};

/// Length and rate of a pretraining.
#[derive(Debug, Clone, PartialEq)]
pub struct PretrainConfig {
    /// S, tokens of a window.
    pub seq_len: usize,
    /// B, windows of a step.
    pub batch: usize,
    /// Updates.
    pub steps: u64,
    /// Peak learning rate; warm-up over a tenth of the steps (at most 100), then half a cosine to a tenth of it.
    pub lr: f64,
    /// Decides which windows each step sees.
    pub seed: u64,
}

/// Trains all weights of `model` on windows of `stream` at random places; `report` gets each finished step.
///
/// AdamW with β 0.9 and 0.95, decay 0.1 except for norms, gradients clipped to 1. A stream shorter than a window gives
/// shorter windows. The same seed gives the same bits on the same machine and number of threads.
///
/// # Errors
/// When the stream has less than two tokens, a setting is 0, the loss is not finite, or ([`Error::Interrupted`]) `stop`
/// was set.
pub fn pretrain(
    model: &CausalLm,
    stream: &[i64],
    config: &PretrainConfig,
    report: &mut dyn FnMut(u64, &StepFigures),
    stop: &AtomicBool,
) -> Result<()> {
    let PretrainConfig { seq_len, batch, steps, lr, seed } = *config;
    let range = |what: &str, ok: bool| if ok { Ok(()) } else { Err(Error::invalid(format!("{what} must be above 0"))) };
    range("steps", steps > 0)?;
    range("batch", batch > 0)?;
    range("lr", lr > 0.0 && lr.is_finite())?;
    if seq_len < 2 || stream.len() < 2 {
        let n = stream.len();
        return Err(Error::invalid(format!("pretraining needs windows of at least 2 tokens, got {seq_len} of {n}")));
    }
    let window = seq_len.min(stream.len());
    let warmup_steps = (steps / 10).min(100);
    let schedule = ScheduleConfig { name: ScheduleName::Cosine, warmup_steps, total_steps: None, floor: 0.1 };
    let factor = Schedule::new(&schedule, steps)?;
    let optim = OptimConfig {
        name: OptimName::AdamW,
        lr,
        betas: [0.9, 0.95],
        eps: 1e-8,
        weight_decay: 0.1,
        clip_norm: Some(1.0),
        schedule,
    };
    let device = crate::Causal::device(model);
    let trainable = Trainable::adopt(model.named_tensors(), device)?;
    let groups = GroupConfig::uniform(optim.weight_decay).groups(trainable.params());
    let mut optimizer = LmOptimizer::new(&optim, OptimizerState::F32, trainable.params(), &groups)?;
    let mut watch = Stopwatch::start();
    let mut run = || -> Result<()> {
        let mut accumulator = Accumulator::new(&trainable, CrossEntropy::plain());
        for step in 0..steps {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted {
                    detail: format!("pretraining stopped after {step} of {steps} steps"),
                });
            }
            let mut rng = seed::rng(seed, Stream::Shuffle, 0, step);
            let windows: Vec<Example> = (0..batch)
                .map(|_| {
                    let start = rng.random_range(0..=stream.len() - window);
                    Example::text(stream[start..start + window].to_vec())
                })
                .collect();
            let rows = Batch::padded(&windows, 0, device)?;
            accumulator.add(model, head_weight(model), &rows, &Pass::default())?;
            let done = accumulator.finish(&mut optimizer, optim.clip_norm, factor.factor(step + 1), step)?;
            report(step, &watch.lap(done, rows.n_tokens, rows.n_targets, device));
        }
        Ok(())
    };
    let finished = run();
    drop(optimizer);
    trainable.freeze()?;
    finished
}

/// The dense weight of a model's output layer; [`HeadWeight::Model`] where it has a bias or is not dense.
pub fn head_weight(model: &CausalLm) -> HeadWeight<'_> {
    if model.config().tie_embeddings {
        return HeadWeight::Dense(model.embedding());
    }
    HeadWeight::Model
}

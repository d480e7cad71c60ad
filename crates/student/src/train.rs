//! The training loop of a student: epochs, validation, early stopping, checkpoints, exact resume.

use std::{collections::BTreeMap, path::Path, time::Instant};

use anyo_core::{
    Error, Result,
    data::{Dataset, Rows, TargetIndex},
    eval::{EvalConfig, evaluate},
    seed::{self, Stream},
    torch::{Checkpoints, DataIdentity, Due, Gradients, Optimizer, Schedule, load_tensors},
};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::{
    batch::{Examples, Sampler},
    config::{Recipe, StudentConfig},
    dropout::Mode,
    extra::{Extra, Folded, Step, Tables, load_own, own_weights, save_own},
    loss::{Loss, Targets},
    seen::Seen,
    student::Student,
    train_config::TrainConfig,
};

/// File of the best weights inside a run's `models/`.
pub const BEST_FILE: &str = "best.safetensors";

/// What the loop tells and asks while it runs: a run folder in production, a recorder in tests.
pub trait Watch {
    /// Figures of a step, to be kept.
    ///
    /// # Errors
    /// When they cannot be written.
    fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()>;
    /// A line for people.
    fn note(&mut self, message: &str);
    /// How far the epoch is: steps done of all, and the running loss.
    fn progress(&mut self, progress: &Progress<'_>);
    /// Training continues from `step`: figures of later steps belong to an attempt that was cut off.
    ///
    /// # Errors
    /// When the figures cannot be cut.
    fn rewind(&mut self, step: u64) -> Result<()>;
    /// Whether to save and stop.
    fn stop_requested(&self) -> bool;
}

/// Where training stands, for a progress bar.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// Epoch, from 1.
    pub epoch: u64,
    /// Epochs at most.
    pub epochs: u64,
    /// Steps done in this epoch.
    pub step: u64,
    /// Steps of an epoch.
    pub steps: u64,
    /// Training rows done since the last call.
    pub rows: u64,
    /// Mean loss over the epoch so far.
    pub loss: f64,
    /// Name and best value of the selecting metric, once validated.
    pub best: Option<(&'a str, f64)>,
}

/// Everything that a resumed run needs beside weights and optimizer state.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    data: DataIdentity,
    /// Steps over all epochs.
    step: u64,
    /// Epochs done.
    epoch: u64,
    /// Steps done in the current epoch.
    step_in_epoch: u64,
    /// Sum of the loss and number of targets in the current epoch; bits, so that JSON keeps them exactly.
    loss_sum_bits: u64,
    targets: u64,
    best_bits: Option<u64>,
    best_epoch: u64,
    /// Validations since the best.
    waited: u64,
    stopped_early: bool,
    /// Seconds of training so far, over all attempts.
    seconds: f64,
}

/// What training came to.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// Epochs done.
    pub epochs: u64,
    /// Optimizer steps done.
    pub steps: u64,
    /// Epoch of the best validation, from 1; 0 when no epoch was run.
    pub best_epoch: u64,
    /// Best value of the selecting metric.
    pub best: Option<f64>,
    /// Whether patience ended it.
    pub stopped_early: bool,
    /// Seconds of training, validation included, over all attempts.
    pub seconds: f64,
    /// Seconds from the start of this attempt to the end of its first step.
    pub seconds_to_first_step: Option<f64>,
}

/// What a training is made of.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// The student's configuration.
    pub student: &'a StudentConfig,
    /// The loop's configuration.
    pub train: &'a TrainConfig,
    /// How validation ranks.
    pub eval: &'a EvalConfig,
    /// The data; only its training and validation rows are used.
    pub dataset: &'a Dataset,
    /// Root of all random streams.
    pub seed: u64,
    /// Where checkpoints and the best weights go; `None` keeps the best in memory only.
    pub folder: Option<&'a Path>,
    /// Continue from the newest whole checkpoint in `folder`.
    pub resume: bool,
}

/// Trains `student` and leaves the best weights in it.
///
/// # Errors
/// No training rows, a loss that is not finite, a full disk, a checkpoint of other data, or [`Error::Interrupted`].
pub fn fit(setup: &Setup<'_>, student: &Student, watch: &mut dyn Watch) -> Result<Fitted> {
    fit_with(setup, student, None, watch)
}

/// [`fit`] with a guest; its part is folded into the weights that are left.
///
/// # Errors
/// As [`fit`], and those of the guest.
pub fn fit_with<'g>(
    setup: &Setup<'_>,
    student: &Student,
    extra: Option<&'g mut (dyn Extra + 'g)>,
    watch: &mut dyn Watch,
) -> Result<Fitted> {
    Trainer::new(setup, student, extra)?.run(watch)
}

struct Trainer<'a, 'g> {
    setup: Setup<'a>,
    recipe: Recipe<'a>,
    student: &'a Student,
    extra: Option<&'g mut (dyn Extra + 'g)>,
    /// Numbers of the targets, for the guest.
    index: Option<TargetIndex<'a>>,
    examples: Examples<'a>,
    sampler: Sampler,
    loss: Loss,
    valid: Rows,
    optimizer: Optimizer,
    gradients: Gradients,
    schedule: Schedule,
    checkpoints: Option<Checkpoints>,
    state: State,
    best_weights: Option<BTreeMap<String, Tensor>>,
    started: Instant,
    seconds_before: f64,
}

impl<'a, 'g> Trainer<'a, 'g> {
    fn new(setup: &Setup<'a>, student: &'a Student, extra: Option<&'g mut (dyn Extra + 'g)>) -> Result<Self> {
        let Setup { dataset, train, .. } = *setup;
        let name = setup.student.name();
        let recipe = setup.student.recipe().ok_or_else(|| Error::invalid(format!("`{name}` is not trained")))?;
        let n_items = dataset.n_items();
        let examples = Examples::new(&dataset.train, recipe.rows, recipe.max_len, n_items);
        if examples.is_empty() {
            let message = format!("data set `{}` has no training row with a history", dataset.name);
            let hint = Some("loosen the filters of the data set (dataset.filter…) or choose another split".into());
            return Err(Error::Invalid { message, hint });
        }
        let counts = dataset.train.target_counts(n_items);
        let steps = examples.len().div_ceil(train.batch_size).div_ceil(train.accumulation) as u64;
        let checkpoints = setup
            .folder
            .map(|folder| Checkpoints::new(folder.join("checkpoints"), train.checkpoint.keep))
            .transpose()?;
        Ok(Self {
            recipe,
            student,
            index: extra.is_some().then(|| TargetIndex::new(&dataset.train)),
            extra,
            sampler: Sampler::new(recipe.loss, &counts),
            loss: Loss::new(recipe.loss, &counts),
            valid: dataset.valid.sample(train.valid_rows, &mut seed::rng(setup.seed, Stream::Shuffle, u64::MAX, 0)),
            optimizer: Optimizer::new(recipe.optim, &student.params)?,
            gradients: Gradients::new(&student.params),
            schedule: Schedule::new(&recipe.optim.schedule, (steps * train.epochs).max(1))?,
            checkpoints,
            state: State {
                data: DataIdentity::of(dataset),
                step: 0,
                epoch: 0,
                step_in_epoch: 0,
                loss_sum_bits: 0,
                targets: 0,
                best_bits: None,
                best_epoch: 0,
                waited: 0,
                stopped_early: false,
                seconds: 0.0,
            },
            best_weights: None,
            started: Instant::now(),
            seconds_before: 0.0,
            examples,
            setup: *setup,
        })
    }

    fn run(mut self, watch: &mut dyn Watch) -> Result<Fitted> {
        if self.setup.resume {
            self.restore(watch)?;
        }
        let Setup { train, seed, .. } = self.setup;
        let checkpoint = &train.checkpoint;
        let mut due =
            Due::new(Some(checkpoint.every_steps), Some(checkpoint.every_minutes), self.state.step, Instant::now());
        let mut first_step = None;
        while self.state.epoch < train.epochs && !self.state.stopped_early {
            let batches = self.examples.epoch(train.batch_size, train.bucket, seed, self.state.epoch);
            let steps = batches.len().div_ceil(train.accumulation) as u64;
            let done = self.state.step_in_epoch as usize;
            for group in batches.chunks(train.accumulation).skip(done) {
                self.step(group, steps, watch)?;
                first_step.get_or_insert_with(|| self.started.elapsed().as_secs_f64());
                if watch.stop_requested() {
                    return Err(self.interrupted());
                }
                // At the end of an epoch the checkpoint comes after the validation, which a resumed run must not repeat.
                if self.state.step_in_epoch < steps {
                    self.save_when_due(&mut due)?;
                }
            }
            self.end_epoch(watch)?;
            self.save_when_due(&mut due)?;
            if watch.stop_requested() {
                return Err(self.interrupted());
            }
        }
        self.save()?;
        match &self.best_weights {
            Some(best) => load_own(self.student, best)?,
            // Never undone: this is the student that is left.
            None => drop(Folded::new(self.extra.as_deref(), self.student)?),
        }
        Ok(Fitted {
            epochs: self.state.epoch,
            steps: self.state.step,
            best_epoch: self.state.best_epoch,
            best: self.state.best_bits.map(f64::from_bits),
            stopped_early: self.state.stopped_early,
            seconds: self.seconds(),
            seconds_to_first_step: first_step,
        })
    }

    /// One optimizer step over a group of batches.
    fn step(&mut self, group: &[Vec<u32>], steps: u64, watch: &mut dyn Watch) -> Result<()> {
        let (epoch, step) = (self.state.epoch, self.state.step);
        let (mut sum, mut targets, mut rows) = (0.0, 0, 0);
        for (i, ids) in group.iter().enumerate() {
            let micro = self.state.step_in_epoch * self.setup.train.accumulation as u64 + i as u64;
            let (loss, n) = self.accumulate(ids, epoch, micro)?;
            (sum, targets, rows) = (sum + loss, targets + n, rows + ids.len());
        }
        let factor = self.schedule.factor(step);
        let clip = self.recipe.optim.clip_norm;
        let report = self.gradients.step(&mut self.optimizer, &self.student.params, clip, factor, step)?;
        let state = &mut self.state;
        state.step += 1;
        state.step_in_epoch += 1;
        state.loss_sum_bits = (f64::from_bits(state.loss_sum_bits) + sum).to_bits();
        state.targets += targets;
        let loss = f64::from_bits(state.loss_sum_bits) / state.targets as f64;
        watch.progress(&Progress {
            epoch: epoch + 1,
            epochs: self.setup.train.epochs,
            step: state.step_in_epoch,
            steps,
            rows: rows as u64,
            loss,
            best: state.best_bits.map(|bits| (self.setup.train.metric.as_str(), f64::from_bits(bits))),
        });
        // Taken at every step, so that what is written is of one step, whether or not the run was interrupted.
        let further = self.extra.as_mut().map(|extra| extra.scalars()).unwrap_or_default();
        if state.step.is_multiple_of(self.setup.train.log_every) {
            let mut values = vec![
                ("train/loss", sum / targets as f64),
                ("train/grad_norm", report.grad_norm),
                ("train/lr", report.lr),
            ];
            values.extend(further);
            watch.scalars(state.step, &values)?;
        }
        Ok(())
    }

    /// Loss and gradients of one batch; returns the sum of the loss and the number of targets.
    fn accumulate(&mut self, ids: &[u32], epoch: u64, micro: u64) -> Result<(f64, u64)> {
        let seed = self.setup.seed;
        let (network, params) = (&self.student.network, &self.student.params);
        let device = params.device();
        let batch = self.examples.batch(ids, network.pad(), device);
        let negatives = self.examples.negatives(&batch, &mut self.sampler, seed, epoch, micro);
        let n = batch.positives.len();
        let mode = Mode::train(seed::derive(seed, Stream::Dropout, epoch, micro));
        let tables = self.extra.as_mut().map_or_else(|| Ok(Tables::default()), |extra| extra.tables(self.student))?;
        let items = tables.items.as_ref().unwrap_or_else(|| network.items());
        let states = network.states_from(items, &batch.input, &mode); // [B,T,D]
        let width = states.size()[2];
        let places = Tensor::from_slice(&batch.places).to_device(device);
        let states = states.reshape([-1, width]).index_select(0, &places); // [N,D]
        let mut head = network.head();
        if let Some(weight) = tables.head {
            head.weight = weight;
        }
        let seen = if head.seen_bias.is_some() { self.examples.seen(&batch) } else { Seen::default() };
        let targets = Targets { positives: &batch.positives, seen: &seen };
        let (detached, scale) = (states.detach(), 1.0 / n as f64);
        let (found, graph) = match (self.extra.as_mut(), &self.index) {
            (Some(extra), Some(index)) => {
                let added = extra.grad(&Step {
                    epoch,
                    epochs: self.setup.train.epochs,
                    batch: micro,
                    seed,
                    numbers: &self.examples.numbers(&batch, index),
                    targets,
                    negatives: &negatives,
                    states: &detached,
                    head: &head,
                    loss: &self.loss,
                    scale,
                })?;
                (added.grad, added.graph)
            }
            _ => (self.loss.grad(&detached, &head, targets, &negatives, scale), None),
        };
        let mut surrogate = found.surrogate(&states, &head);
        if let Some(graph) = graph {
            surrogate += graph;
        }
        let inputs: Vec<Tensor> = params.trainable().map(|(_, t)| t.shallow_clone()).collect();
        let gradients = Tensor::f_run_backward(&[surrogate], &inputs, false, false)?;
        let gradients = gradients.into_iter().map(|g| g.defined().then_some(g)).collect();
        let mean = Tensor::from(found.sum / n as f64);
        self.gradients.add_given(&mean, n as f64, gradients)?;
        Ok((found.sum, n as u64))
    }

    fn end_epoch(&mut self, watch: &mut dyn Watch) -> Result<()> {
        let state = &mut self.state;
        let loss = f64::from_bits(state.loss_sum_bits) / state.targets.max(1) as f64;
        state.epoch += 1;
        (state.step_in_epoch, state.loss_sum_bits, state.targets) = (0, 0, 0);
        watch.scalars(state.step, &[("train/epoch_loss", loss), ("epoch", state.epoch as f64)])?;
        let last = state.epoch == self.setup.train.epochs;
        if state.epoch.is_multiple_of(self.setup.train.valid_every) || last {
            self.validate(loss, watch)?;
        }
        Ok(())
    }

    fn validate(&mut self, loss: f64, watch: &mut dyn Watch) -> Result<()> {
        let Setup { train, eval, dataset, seed, .. } = self.setup;
        if self.valid.is_empty() {
            return Ok(());
        }
        let folded = Folded::new(self.extra.as_deref(), self.student)?;
        let evaluation = evaluate(self.student, &self.valid, dataset, &eval.for_selection(), seed)?;
        let value = evaluation.value(&train.metric).ok_or_else(|| unknown_metric(&train.metric, eval))?;
        let values: Vec<(String, f64)> =
            evaluation.summary.estimates.iter().map(|e| (format!("valid/{}", e.key), e.value)).collect();
        let values: Vec<(&str, f64)> = values.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        watch.scalars(self.state.step, &values)?;
        let better = self.state.best_bits.is_none_or(|bits| value > f64::from_bits(bits));
        let mark = if better { ", best so far" } else { "" };
        let (epoch, metric) = (self.state.epoch, &train.metric);
        watch.note(&format!("epoch {epoch}: loss {loss:.4}, valid {metric} {value:.4}{mark}"));
        if better {
            (self.state.best_bits, self.state.best_epoch, self.state.waited) = (Some(value.to_bits()), epoch, 0);
            let best = own_weights(&self.student.params)?;
            if let Some(folder) = self.setup.folder {
                save_own(&folder.join("models").join(BEST_FILE), &self.student.params, &BTreeMap::new())?;
            }
            self.best_weights = Some(best);
        } else {
            self.state.waited += 1;
            if train.patience > 0 && self.state.waited >= train.patience {
                watch.note(&format!(
                    "stopping early: no better {metric} in {} validations; best at epoch {}",
                    self.state.waited, self.state.best_epoch
                ));
                self.state.stopped_early = true;
            }
        }
        folded.undo()
    }

    fn seconds(&self) -> f64 {
        self.seconds_before + self.started.elapsed().as_secs_f64()
    }

    fn save(&mut self) -> Result<()> {
        self.state.seconds = self.seconds();
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.save(self.state.step, &self.student.params, &self.optimizer, &self.state, false)?;
        }
        Ok(())
    }

    fn save_when_due(&mut self, due: &mut Due) -> Result<()> {
        if due.is_due(self.state.step, Instant::now()) {
            self.save()?;
            due.saved(self.state.step, Instant::now());
        }
        Ok(())
    }

    /// Saves and says so.
    fn interrupted(&mut self) -> Error {
        match self.save() {
            Ok(()) => Error::Interrupted { detail: format!("saved after step {}", self.state.step) },
            Err(error) => error,
        }
    }

    fn restore(&mut self, watch: &mut dyn Watch) -> Result<()> {
        let Some(checkpoints) = &self.checkpoints else { return Ok(()) };
        let Some(saved) = checkpoints.latest_valid(|message| watch.note(message))? else {
            watch.note("no checkpoint yet: starting from the beginning");
            return watch.rewind(0);
        };
        saved.check_data(&self.state.data)?;
        saved.restore(&self.student.params, &mut self.optimizer)?;
        self.state = saved.state()?;
        self.seconds_before = self.state.seconds;
        if let (Some(_), Some(folder)) = (self.state.best_bits, self.setup.folder) {
            self.best_weights = Some(load_tensors(&folder.join("models").join(BEST_FILE))?);
        }
        // Patience may have been raised since.
        let train = self.setup.train;
        self.state.stopped_early = train.patience > 0 && self.state.waited >= train.patience;
        watch.note(&format!("continuing after step {} (epoch {})", self.state.step, self.state.epoch + 1));
        watch.rewind(self.state.step)
    }
}

/// The error for a selecting metric that the evaluation does not give.
pub(crate) fn unknown_metric(metric: &str, eval: &EvalConfig) -> Error {
    Error::Invalid {
        message: format!("train.metric: no metric `{metric}`"),
        hint: Some(format!(
            "one of hr, recall, ndcg, mrr at K in eval.ks {:?}, such as ndcg@{}",
            eval.ks,
            eval.headline_k()
        )),
    }
}

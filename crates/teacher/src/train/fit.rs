//! The loop.

use std::{collections::BTreeMap, time::Instant};

use anyo_core::{
    Error, Result,
    data::{Dataset, Rows},
    eval::evaluate,
    seed::{self, Stream},
    torch::{Checkpoints, Due, Gradients, Optimizer, Schedule, load_tensors},
};
use anyo_student::{BEST_FILE, Progress, Watch};
use tch::Tensor;

use super::{
    TeacherFitted, TeacherSetup, TrainRows,
    curriculum::{Drawn, hybrid_probability},
    micro::{Micro, Step, Sums, Weights},
    prompts::PromptCache,
    state::State,
};
use crate::{
    config::{Curriculum, TeacherTrainConfig},
    model::Teacher,
    rank::{RankSettings, Ranker},
    tokens::PromptMode,
};

/// Trains `teacher` and leaves the best weights in it. Saves and returns [`Error::Interrupted`] when `watch` asks to stop.
///
/// Order, prompts, candidates, noise and dropout derive from seed, epoch and place in it, so that a resumed training ends
/// where the undisturbed one ends (bit for bit on a CPU).
///
/// # Errors
/// No training rows, prompts that do not fit the context, a loss that is not finite, a full disk, or a checkpoint of other
/// data or another language model.
pub fn fit_teacher(setup: &TeacherSetup<'_>, teacher: &Teacher, watch: &mut dyn Watch) -> Result<TeacherFitted> {
    Trainer::new(setup, teacher, watch)?.run(watch)
}

/// The validation rows that selecting looks at.
pub(crate) fn valid_rows(train: &TeacherTrainConfig, dataset: &Dataset, seed: u64) -> Rows {
    let mut rng = seed::rng(seed, Stream::Shuffle, u64::MAX, 2);
    dataset.valid.sample(train.valid_rows, &mut rng)
}

struct Trainer<'a> {
    setup: TeacherSetup<'a>,
    teacher: &'a Teacher,
    rows: TrainRows<'a>,
    valid: Rows,
    /// Encoder states of all training rows `[N,d]`, made once.
    states: Tensor,
    cache: PromptCache,
    total: u64,
    optimizer: Option<Optimizer>,
    gradients: Gradients,
    schedule: Schedule,
    checkpoints: Option<Checkpoints>,
    state: State,
    best_weights: Option<BTreeMap<String, Tensor>>,
    started: Instant,
    seconds_before: f64,
}

impl<'a> Trainer<'a> {
    fn new(setup: &TeacherSetup<'a>, teacher: &'a Teacher, watch: &mut dyn Watch) -> Result<Self> {
        let started = Instant::now();
        let train = &setup.config.train;
        let n_items = setup.dataset.n_items() as i64;
        if teacher.n_items() != n_items {
            let got = teacher.n_items();
            return Err(Error::invalid(format!("the teacher has {got} items, the data set {n_items}")));
        }
        let rows = TrainRows::new(&setup.dataset.train, train.min_history, train.max_rows, setup.seed);
        if rows.is_empty() && train.epochs > 0 {
            return Err(Error::Invalid {
                message: format!(
                    "no training target has {} items of history ({} are shorter)",
                    train.min_history,
                    rows.too_short()
                ),
                hint: Some("lower teacher.train.min_history or take more data".into()),
            });
        }
        let steps = rows.len().div_ceil(train.batch_size).div_ceil(train.accumulation) as u64;
        let all = steps * train.epochs;
        let total = train.max_steps.map_or(all, |max| max.min(all));
        if total > 0 && teacher.params().trainable().next().is_none() {
            return Err(Error::Invalid {
                message: "the teacher has nothing to train".into(),
                hint: Some("set teacher.train.epochs=0".into()),
            });
        }
        if total > 0 && rows.too_short() + rows.not_drawn() > 0 {
            watch.note(&format!(
                "{} training rows; left out: {} with less than {} items of history, {} by max_rows",
                rows.len(),
                rows.too_short(),
                train.min_history,
                rows.not_drawn()
            ));
        }
        let histories: Vec<&[u32]> =
            if total > 0 { (0..rows.len()).map(|i| rows.history(i)).collect() } else { Vec::new() };
        let states = setup.encoder.states(&histories, &mut |_| match watch.stop_requested() {
            true => Err(Error::Interrupted { detail: "before the first step".into() }),
            false => Ok(()),
        })?;
        let optim = train.optim.optim(total);
        let optimizer = match total {
            0 => None,
            _ => Some(Optimizer::with_groups(&optim, teacher.params(), &train.optim.groups(teacher.params()))?),
        };
        let checkpoints = setup
            .folder
            .map(|folder| {
                let models = folder.join("models");
                std::fs::create_dir_all(&models).map_err(Error::io(&models, "make the folder"))?;
                Checkpoints::new(folder.join("checkpoints"), train.checkpoint.keep)
            })
            .transpose()?;
        Ok(Self {
            teacher,
            valid: valid_rows(train, setup.dataset, setup.seed),
            states,
            cache: PromptCache::new(train.cache_mb),
            total,
            optimizer,
            gradients: Gradients::new(teacher.params()),
            schedule: Schedule::new(&optim.schedule, total.max(1))?,
            checkpoints,
            state: State::new(setup.dataset, teacher.base_id()?),
            best_weights: None,
            started,
            seconds_before: 0.0,
            rows,
            setup: *setup,
        })
    }

    fn run(mut self, watch: &mut dyn Watch) -> Result<TeacherFitted> {
        if self.setup.resume {
            self.restore(watch)?;
        }
        let train = &self.setup.config.train;
        let c = &train.checkpoint;
        let mut due = Due::new(Some(c.every_steps), Some(c.every_minutes), self.state.step, Instant::now());
        let mut plan = None;
        while self.state.step < self.total && !self.state.stopped_early {
            let epoch = self.state.epoch;
            if plan.as_ref().is_none_or(|(of, _)| *of != epoch) {
                plan = Some((epoch, self.epoch(epoch)));
            }
            let Some((_, batches)) = &plan else { break };
            let mut groups = batches.chunks(train.accumulation);
            let steps = groups.len() as u64;
            let Some(group) = groups.nth(self.state.step_in_epoch as usize) else { break };
            self.step(group, watch)?;
            if self.state.step_in_epoch == steps {
                (self.state.epoch, self.state.step_in_epoch) = (epoch + 1, 0);
            }
            if watch.stop_requested() {
                return Err(self.interrupted());
            }
            self.validate_when_due(watch)?;
            if due.is_due(self.state.step, Instant::now()) {
                self.save()?;
                due.saved(self.state.step, Instant::now());
            }
            if watch.stop_requested() {
                return Err(self.interrupted());
            }
        }
        if self.total > 0 {
            self.save()?;
        }
        if let Some(best) = &self.best_weights {
            self.teacher.load_tensors(best)?;
        }
        Ok(self.fitted())
    }

    /// The micro-batches of an epoch. The length of a prompt is judged by its titles, without making it.
    fn epoch(&self, epoch: u64) -> Vec<Vec<u32>> {
        let (setup, rows) = (&self.setup, &self.rows);
        let train = &setup.config.train;
        let length = |i: usize| {
            let history = rows.history(i);
            let shown = &history[history.len().saturating_sub(setup.config.prompt.window)..];
            shown.iter().map(|&item| setup.prompts.answer(item).len() + 1).sum()
        };
        rows.epoch(train.batch_size, train.sort_chunk, setup.seed, epoch, length)
    }

    /// One optimizer step.
    fn step(&mut self, group: &[Vec<u32>], watch: &mut dyn Watch) -> Result<()> {
        let started = Instant::now();
        let train = &self.setup.config.train;
        let (epoch, number) = (self.state.epoch, self.state.step + 1);
        let hybrid = hybrid_probability(train.curriculum, number, self.total);
        let mut micros = Vec::with_capacity(group.len());
        for (i, ids) in group.iter().enumerate() {
            let at = self.state.step_in_epoch * train.accumulation as u64 + i as u64;
            let n_templates = self.setup.prompts.n_templates();
            let drawn = Drawn::new(self.setup.seed, (epoch, at), ids.len(), train.choice_share, hybrid, n_templates);
            let prompts = self.cache.of(&self.setup, &self.rows, ids, &drawn, epoch)?;
            micros.push(Micro { number: at, ids: ids.clone(), prompts, drawn });
        }
        let weights = self.weights(&micros);
        let step =
            Step { teacher: self.teacher, setup: &self.setup, rows: &self.rows, states: &self.states, epoch, weights };
        let mut sums = Sums::default();
        for micro in &micros {
            micro.run(&step, &mut self.gradients, &mut sums)?;
        }
        let factor = self.schedule.factor(self.state.step);
        let Some(optimizer) = &mut self.optimizer else { return Ok(()) };
        let report =
            self.gradients.step(optimizer, self.teacher.params(), train.optim.clip_norm, factor, self.state.step)?;
        let state = &mut self.state;
        state.step += 1;
        state.step_in_epoch += 1;
        state.micro_batches += micros.len() as u64;
        (state.hybrid, state.choice) = (state.hybrid + sums.hybrid, state.choice + sums.choice);
        (state.rows, state.tokens) = (state.rows + sums.rows, state.tokens + sums.tokens);
        state.left_out += std::mem::take(&mut self.cache.left_out);
        state.lm_seconds += sums.lm_seconds;
        watch.progress(&Progress {
            epoch: 1,
            epochs: 1,
            step: state.step,
            steps: self.total,
            rows: sums.rows,
            loss: report.loss,
            best: state.best_bits.map(|bits| (train.metric.as_str(), f64::from_bits(bits))),
        });
        if state.step.is_multiple_of(train.log_every) {
            let seconds = started.elapsed().as_secs_f64().max(1e-9);
            let mut values = vec![
                ("train/loss".to_owned(), report.loss),
                ("train/grad_norm".to_owned(), report.grad_norm),
                ("train/lr".to_owned(), report.lr),
                ("train/hybrid_share".to_owned(), state.hybrid as f64 / state.micro_batches as f64),
                ("train/tokens_per_second".to_owned(), sums.tokens as f64 / seconds),
                ("train/rows_per_second".to_owned(), sums.rows as f64 / seconds),
                ("train/lm_time_share".to_owned(), sums.lm_seconds / seconds),
            ];
            let mut mean = |name: &str, sum: f64, n: u64| {
                if n > 0 {
                    values.push((name.to_owned(), sum / n as f64));
                }
            };
            mean("train/lm_loss", sums.lm_loss, sums.lm_targets);
            mean("train/head_loss", sums.head_loss, sums.head_rows);
            if self.setup.soft.is_some() {
                mean("train/soft_kl", sums.soft_kl, sums.head_rows);
            }
            if self.teacher.balance_weight() > 0.0 {
                mean("gate/load_balance", sums.balance, micros.len() as u64);
            }
            if sums.gates.rows() > 0 {
                values.extend(sums.gates.scalars());
            }
            write(watch, state.step, &values)?;
        }
        Ok(())
    }

    /// Counts of the step before any of it is computed.
    fn weights(&self, micros: &[Micro]) -> Weights {
        let train = &self.setup.config.train;
        let tokens = |micro: &&Micro| -> usize {
            let answer = |&id: &u32| self.setup.prompts.answer(self.rows.target(id as usize)).len();
            micro.ids.iter().map(answer).sum()
        };
        let learning = micros.iter().filter(|m| m.learns_answer(train.open_lm_weight));
        Weights {
            n_micro: micros.len() as f64,
            tokens: learning.map(|m| tokens(&m)).sum::<usize>() as f64,
            open_rows: micros.iter().filter(|m| !m.drawn.choice).map(|m| m.ids.len()).sum::<usize>() as f64,
            open_lm: train.open_lm_weight,
            head: if self.teacher.head().is_some() { train.head_weight } else { 0.0 },
        }
    }

    fn validate_when_due(&mut self, watch: &mut dyn Watch) -> Result<()> {
        let train = &self.setup.config.train;
        let step = self.state.step;
        let due = step == self.total || (train.valid_every > 0 && step.is_multiple_of(train.valid_every));
        if !due || step == 0 || self.state.validated == step {
            return Ok(());
        }
        self.state.validated = step;
        let values = match self.setup.validate {
            Some(validate) => validate(self.teacher)?,
            None if self.valid.is_empty() || self.teacher.head().is_none() => return Ok(()),
            None => self.rank_validation()?,
        };
        let metric = &train.metric;
        let Some(value) = values.iter().find(|(name, _)| name == metric).map(|(_, value)| *value) else {
            let known: Vec<&str> = values.iter().map(|(name, _)| name.as_str()).collect();
            return Err(Error::Invalid {
                message: format!("teacher.train.metric: no metric `{metric}`"),
                hint: Some(format!("one of {}", known.join(", "))),
            });
        };
        let named: Vec<(String, f64)> = values.into_iter().map(|(name, v)| (format!("valid/{name}"), v)).collect();
        write(watch, step, &named)?;
        let better = self.state.best_bits.is_none_or(|bits| value > f64::from_bits(bits));
        let mark = if better { ", best so far" } else { "" };
        watch.note(&format!("step {step} of {}: valid {metric} {value:.4}{mark}", self.total));
        if better {
            (self.state.best_bits, self.state.best_step, self.state.waited) = (Some(value.to_bits()), step, 0);
            if let Some(folder) = self.setup.folder {
                self.teacher.save(&folder.join("models").join(BEST_FILE), &BTreeMap::new())?;
            }
            self.best_weights = Some(self.teacher.params().snapshot()?);
        } else {
            self.state.waited += 1;
            if train.patience > 0 && self.state.waited >= train.patience {
                watch.note(&format!(
                    "stopping early: no better {metric} in {} validations; best after step {}",
                    self.state.waited, self.state.best_step
                ));
                self.state.stopped_early = true;
            }
        }
        Ok(())
    }

    /// Ranks validation rows with the scoring head.
    fn rank_validation(&self) -> Result<Vec<(String, f64)>> {
        let TeacherSetup { config, encoder, prompts, eval, dataset, seed, .. } = self.setup;
        let mode = match config.train.curriculum {
            Curriculum::AlwaysText => PromptMode::TextOnly,
            _ => PromptMode::Hybrid,
        };
        let batch = config.train.batch_size * 2;
        let settings = RankSettings { template: 0, mode, batch };
        let ranker = Ranker::new(self.teacher, encoder, prompts, settings)?;
        let evaluation = evaluate(&ranker, &self.valid, dataset, &eval.for_selection(), seed)?;
        Ok(evaluation.summary.estimates.iter().map(|e| (e.key.clone(), e.value)).collect())
    }

    fn seconds(&self) -> f64 {
        self.seconds_before + self.started.elapsed().as_secs_f64()
    }

    fn save(&mut self) -> Result<()> {
        self.state.seconds = self.seconds();
        if let (Some(checkpoints), Some(optimizer)) = (&mut self.checkpoints, &self.optimizer) {
            checkpoints.save(self.state.step, self.teacher.params(), optimizer, &self.state, false)?;
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
        let (Some(checkpoints), Some(optimizer)) = (&self.checkpoints, &mut self.optimizer) else { return Ok(()) };
        let Some(saved) = checkpoints.latest_valid(|message| watch.note(message))? else {
            watch.note("no checkpoint yet: starting from the beginning");
            return watch.rewind(0);
        };
        saved.check_data(&self.state.data)?;
        let state: State = saved.state()?;
        if state.base_lm != self.state.base_lm {
            return Err(Error::Checkpoint {
                path: saved.path,
                message: format!(
                    "it was trained on the language model {}, this is {}",
                    state.base_lm, self.state.base_lm
                ),
                hint: Some("teacher.lm has changed since; restore it or train anew".into()),
            });
        }
        saved.restore(self.teacher.params(), optimizer)?;
        self.state = state;
        self.seconds_before = self.state.seconds;
        if let (Some(_), Some(folder)) = (self.state.best_bits, self.setup.folder) {
            self.best_weights = Some(load_tensors(&folder.join("models").join(BEST_FILE))?);
        }
        let patience = self.setup.config.train.patience;
        self.state.stopped_early = patience > 0 && self.state.waited >= patience;
        watch.note(&format!("continuing after step {} of {}", self.state.step, self.total));
        watch.rewind(self.state.step)?;
        // Interrupted between a step and its validation.
        self.validate_when_due(watch)
    }

    fn fitted(&self) -> TeacherFitted {
        let state = &self.state;
        let share = |n: u64| n as f64 / state.micro_batches.max(1) as f64;
        TeacherFitted {
            steps: state.step,
            epochs: state.epoch + u64::from(state.step_in_epoch > 0),
            best_step: state.best_step,
            best: state.best_bits.map(f64::from_bits),
            stopped_early: state.stopped_early,
            train_rows: self.rows.len() as u64,
            too_short: self.rows.too_short() as u64,
            not_drawn: self.rows.not_drawn() as u64,
            rows: state.rows,
            tokens: state.tokens,
            items_left_out: state.left_out,
            hybrid_share: share(state.hybrid),
            choice_share: share(state.choice),
            seconds: self.seconds(),
            lm_seconds: state.lm_seconds,
        }
    }
}

fn write(watch: &mut dyn Watch, step: u64, values: &[(String, f64)]) -> Result<()> {
    let values: Vec<(&str, f64)> = values.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    watch.scalars(step, &values)
}

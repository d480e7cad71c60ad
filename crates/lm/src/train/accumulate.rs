//! One training step over micro-batches: the gradient is that of the mean over all targets, however they are split.

use anyo_core::{
    Error, Result,
    torch::{Gradients, StepReport, dims},
};
use tch::{Kind, Tensor, no_grad};

use super::{Batch, CrossEntropy, LmOptimizer, TokenLoss, Trainable};
use crate::{CausalLm, causal::Causal, pass::Pass};

/// Where the weight of the output head comes from.
#[derive(Debug, Clone, Copy)]
pub enum HeadWeight<'a> {
    /// A dense matrix `[V,D]` and nothing else, perhaps the tied embedding: the fast way.
    Dense(&'a Tensor),
    /// Whatever [`Causal::logits`] does: a quantised head, one with an adapter or a bias.
    Model,
}

impl<'a> HeadWeight<'a> {
    /// The weight, where it is dense and learns.
    fn trained(self) -> Option<&'a Tensor> {
        match self {
            Self::Dense(weight) if weight.requires_grad() => Some(weight),
            _ => None,
        }
    }
}

/// Gradients of the micro-batches of one step.
#[derive(Debug)]
pub struct Accumulator<'a> {
    trainable: &'a Trainable,
    loss: CrossEntropy,
    gradients: Gradients,
    /// Detached mean losses with their number of targets.
    losses: Vec<(Tensor, f64)>,
    tokens: usize,
    targets: usize,
}

impl<'a> Accumulator<'a> {
    /// Nothing collected yet.
    pub fn new(trainable: &'a Trainable, loss: CrossEntropy) -> Self {
        let gradients = Gradients::new(trainable.params());
        Self { trainable, loss, gradients, losses: Vec::new(), tokens: 0, targets: 0 }
    }

    /// Forward and backward over one micro-batch; one without target adds nothing.
    ///
    /// # Errors
    /// Those of the model, of the loss and of libtorch.
    pub fn add<M: Causal>(&mut self, model: &M, head: HeadWeight<'_>, batch: &Batch, pass: &Pass<'_>) -> Result<()> {
        if batch.n_targets == 0 {
            return Ok(());
        }
        let states = model.hidden(&batch.input, None, pass)?; // [B,S,D]
        let [b, s, d] = dims("hidden", &states, ["B", "S", "D"])?;
        let flat = states.f_reshape([b * s, d])?;
        self.add_states(model, head, &flat, batch)
    }

    /// As [`Accumulator::add`] for states `[B·S,D]` that the caller computed with a graph.
    ///
    /// # Errors
    /// As there.
    pub fn add_states<M: Causal>(
        &mut self,
        model: &M,
        head: HeadWeight<'_>,
        states: &Tensor,
        batch: &Batch,
    ) -> Result<()> {
        let count = batch.n_targets as f64;
        if count == 0.0 {
            return Ok(());
        }
        let found = self.loss_of(model, head, states, &batch.targets, 1.0 / count)?;
        let weight = head.trained();
        let mut grads: Vec<Option<Tensor>> = self.trainable.leaves().iter().map(|_| None).collect();
        // With a frozen body only the head's own inputs have gradients.
        if states.requires_grad() || weight.is_some() {
            let root = match states.requires_grad() {
                true => found.surrogate(states, weight)?,
                false => found.surrogate(&states.f_detach()?, weight)?,
            };
            let through = Tensor::f_run_backward(&[root], self.trainable.leaves(), false, false)?;
            grads = through.into_iter().map(|g| g.defined().then_some(g)).collect();
        }
        self.collect(&found, grads, batch)
    }

    /// As [`Accumulator::add`] with the memory of one layer's activations: each layer is computed again in the backward
    /// pass.
    ///
    /// # Errors
    /// As there.
    pub fn add_checkpointed(
        &mut self,
        model: &CausalLm,
        head: HeadWeight<'_>,
        batch: &Batch,
        pass: &Pass<'_>,
    ) -> Result<()> {
        if batch.n_targets == 0 {
            return Ok(());
        }
        let saved = model.forward_checkpointed(&batch.input, pass)?;
        let [b, s, d] = dims("hidden", &saved.hidden, ["B", "S", "D"])?;
        let flat = saved.hidden.f_detach()?.f_reshape([b * s, d])?;
        let mut found = self.loss_of(model, head, &flat, &batch.targets, 1.0 / batch.n_targets as f64)?;
        let at_hidden = found.hidden.f_reshape([b, s, d])?;
        let (mut grads, _) = model.backward_from(saved, &at_hidden, self.trainable.leaves(), pass)?;
        // No graph leads to a dense head here: its gradient joins that of the embedding it may be tied to.
        if let (Some(weight), Some(by_weight)) = (head.trained(), found.weight.take()) {
            let leaves = self.trainable.leaves();
            if let Some(i) = leaves.iter().position(|leaf| leaf.data_ptr() == weight.data_ptr()) {
                grads[i] = Some(match grads[i].take() {
                    // In place: a third tensor of the embedding's size would be the peak of the step.
                    Some(mut grad) => no_grad(|| grad.f_add_(&by_weight))?,
                    None => by_weight,
                });
            }
        }
        self.collect(&found, grads, batch)
    }

    /// Adds the head's own gradients and hands all over, in the masters' f32.
    fn collect(&mut self, found: &TokenLoss, mut grads: Vec<Option<Tensor>>, batch: &Batch) -> Result<()> {
        let (mean, count) = (found.mean()?, batch.n_targets as f64);
        no_grad(|| -> Result<()> {
            for (i, grad) in grads.iter_mut().enumerate() {
                let at_head = found.inputs.get(i).and_then(Option::as_ref);
                *grad = match (grad.take(), at_head) {
                    (Some(a), Some(b)) => Some(a.f_to_kind(Kind::Float)?.f_add(&b.f_to_kind(Kind::Float)?)?),
                    (Some(a), None) => Some(a.f_to_kind(Kind::Float)?),
                    (None, Some(b)) => Some(b.f_to_kind(Kind::Float)?),
                    (None, None) => None,
                };
            }
            Ok(())
        })?;
        self.gradients.add_given(&mean, count, grads)?;
        self.losses.push((mean, count));
        self.tokens += batch.n_tokens;
        self.targets += batch.n_targets;
        Ok(())
    }

    fn loss_of<M: Causal>(
        &self,
        model: &M,
        head: HeadWeight<'_>,
        states: &Tensor,
        targets: &[i64],
        scale: f64,
    ) -> Result<TokenLoss> {
        match head {
            HeadWeight::Dense(weight) => self.loss.grad(states, weight, targets, scale, weight.requires_grad()),
            HeadWeight::Model => {
                let leaves = self.trainable.leaves();
                self.loss.grad_through(states, targets, leaves, scale, model.vocab_size(), |x| model.logits(x))
            }
        }
    }

    /// Tokens and targets collected so far.
    pub fn counts(&self) -> (usize, usize) {
        (self.tokens, self.targets)
    }

    /// Gradients of the mean loss over all targets by name; for tests and reports.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn means(&self) -> Result<Vec<(&str, Tensor)>> {
        self.gradients.means()
    }

    /// Checks and clips the gradients, updates the weights, and is empty again.
    ///
    /// # Errors
    /// When no micro-batch had a target, or the loss or a gradient is not finite ([`Error::Run`] naming the step; the
    /// weights are untouched then).
    pub fn finish(
        &mut self,
        optimizer: &mut LmOptimizer,
        clip_norm: Option<f64>,
        lr_factor: f64,
        step: u64,
    ) -> Result<StepReport> {
        if self.targets == 0 {
            return Err(Error::Run {
                message: format!("step {step}: none of its micro-batches has a target"),
                hint: Some("check the loss mask and the truncation of the examples".into()),
            });
        }
        let params = self.trainable.params();
        let report = match optimizer {
            LmOptimizer::F32(optimizer) => self.gradients.step(optimizer, params, clip_norm, lr_factor, step),
            LmOptimizer::EightBit(optimizer) => {
                let report = self.eight_bit(optimizer, clip_norm, lr_factor, step);
                self.gradients = Gradients::new(params);
                report
            }
        };
        self.losses.clear();
        (self.tokens, self.targets) = (0, 0);
        let report = report?;
        self.trainable.sync()?;
        Ok(report)
    }

    /// The same for the 8-bit optimizer, which [`Gradients::step`] does not know.
    fn eight_bit(
        &self,
        optimizer: &mut super::Adam8,
        clip_norm: Option<f64>,
        lr_factor: f64,
        step: u64,
    ) -> Result<StepReport> {
        let total: f64 = self.losses.iter().map(|(_, count)| count).sum();
        let mut loss = 0.0;
        for (mean, count) in &self.losses {
            loss += mean.f_double_value(&[])? * count / total;
        }
        let mut means: std::collections::HashMap<&str, Tensor> = self.gradients.means()?.into_iter().collect();
        let mut squares = 0.0;
        let mut bad = None;
        for (name, grad) in &means {
            let norm = grad.f_norm()?.f_double_value(&[])?;
            if !norm.is_finite() && bad.is_none_or(|other: &str| *name < other) {
                bad = Some(name);
            }
            squares += norm * norm;
        }
        let grad_norm = squares.sqrt();
        if !loss.is_finite() || !grad_norm.is_finite() {
            let of = bad.map_or(String::new(), |name| format!(", the gradient of `{name}` is not finite"));
            return Err(Error::Run {
                message: format!("step {step}: the loss is {loss}{of}"),
                hint: Some("lower the learning rate, lengthen the warm-up or set a smaller clip_norm".into()),
            });
        }
        let grads: Vec<_> = self.trainable.params().trainable().map(|(name, _)| means.remove(name)).collect();
        let clip = clip_norm.map_or(1.0, |max| (max / (grad_norm + 1e-6)).min(1.0));
        optimizer.step(self.trainable.params(), &grads, lr_factor, clip)?;
        Ok(StepReport { loss, grad_norm, lr: optimizer.lr() * lr_factor })
    }
}

#[cfg(test)]
mod tests;

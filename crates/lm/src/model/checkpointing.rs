//! Training with activation checkpointing: the forward pass keeps only the input of each layer, and the backward pass
//! computes each layer again.
//!
//! tch offers no autograd function of one's own, so this cannot hide behind [`crate::Causal::hidden`]: the caller gives the
//! loss as a function of the final states, and gets gradients back.

use anyo_core::{Error, Result};
use tch::{Tensor, no_grad};

use super::{CausalLm, layer::Shared};
use crate::{causal::LmInput, pass::Pass};

/// A forward pass of which only the input of each layer is kept.
#[derive(Debug)]
pub struct Checkpointed {
    /// States after the final norm `[B,S,D]`: a leaf that asks for gradients.
    pub hidden: Tensor,
    /// Input of each layer, then that of the final norm.
    inputs: Vec<Tensor>,
    /// Where the dropout stream stood before each layer.
    positions: Vec<u64>,
    shared: Shared,
    ids: Tensor,
    embedded: bool,
}

/// Gradients of one loss.
#[derive(Debug)]
pub struct CheckpointedGradients {
    /// The loss, detached.
    pub loss: Tensor,
    /// In the order of the tensors that were asked for; `None` where the loss does not depend on one, or it asks for none.
    pub grads: Vec<Option<Tensor>>,
    /// Gradient at the embedded input, `[B,S,D]`: for what made [`LmInput::embeddings`].
    pub input: Tensor,
}

/// Sums of gradients, for tensors that several layers use.
struct Sums<'a> {
    wanted: Vec<(usize, &'a Tensor)>,
    sums: Vec<Option<Tensor>>,
}

impl<'a> Sums<'a> {
    fn new(tensors: &'a [Tensor]) -> Self {
        let wanted = tensors.iter().enumerate().filter(|(_, t)| t.requires_grad()).collect();
        Self { wanted, sums: tensors.iter().map(|_| None).collect() }
    }

    /// Adds the gradients of the number `root`; gives the one of `leaf`.
    fn backward(&mut self, root: &Tensor, leaf: Option<&Tensor>) -> Result<Option<Tensor>> {
        if !root.requires_grad() {
            return Ok(None);
        }
        let inputs: Vec<&Tensor> = leaf.into_iter().chain(self.wanted.iter().map(|(_, t)| *t)).collect();
        if inputs.is_empty() {
            return Ok(None);
        }
        let mut found = Tensor::f_run_backward(&[root], &inputs, false, false)?.into_iter();
        let at_leaf = leaf.and_then(|_| found.next()).filter(Tensor::defined);
        no_grad(|| {
            for ((i, _), grad) in self.wanted.iter().zip(found) {
                if grad.defined() {
                    self.sums[*i] = Some(match self.sums[*i].take() {
                        Some(sum) => sum.f_add(&grad)?,
                        None => grad,
                    });
                }
            }
            Ok(at_leaf)
        })
    }
}

/// The number whose gradient at `y` is `grad`, exactly: 1·grad.
fn root(y: &Tensor, grad: &Tensor) -> Result<Tensor> {
    Ok(y.f_mul(grad)?.f_sum(y.kind())?)
}

impl CausalLm {
    /// The forward pass without activations, in any grad mode.
    ///
    /// # Errors
    /// As [`crate::Causal::hidden`].
    pub fn forward_checkpointed(&self, input: &LmInput, pass: &Pass<'_>) -> Result<Checkpointed> {
        self.check_pass(input, pass)?;
        let (x, shared) = no_grad(|| self.prepare(input, 0))?;
        let stand = || pass.dropout.as_ref().map_or(0, |stream| stream.position());
        let (mut inputs, mut positions) = (vec![x.f_detach()?], Vec::with_capacity(self.layers.len()));
        let hidden = no_grad(|| {
            let mut x = x.f_detach()?;
            for layer in &self.layers {
                positions.push(stand());
                x = layer.forward(&x, &shared, None, pass)?;
                inputs.push(x.shallow_clone());
            }
            self.norm.forward(&x)
        })?;
        let hidden = hidden.f_detach()?.f_set_requires_grad(true)?;
        let ids = input.ids.f_to_device(self.device)?;
        let embedded = input.embeddings.is_some();
        Ok(Checkpointed { hidden, inputs, positions, shared, ids, embedded })
    }

    /// The backward pass to [`CausalLm::forward_checkpointed`]: `at_hidden` `[B,S,D]` is the gradient at its `hidden`; gives
    /// the gradients of `wanted` and that of the embedded input. `pass` must be the one of the forward pass.
    ///
    /// # Errors
    /// When the shape does not fit or libtorch fails.
    pub fn backward_from(
        &self,
        saved: Checkpointed,
        at_hidden: &Tensor,
        wanted: &[Tensor],
        pass: &Pass<'_>,
    ) -> Result<(Vec<Option<Tensor>>, Tensor)> {
        let mut sums = Sums::new(wanted);
        let input = self.backward_into(saved, at_hidden, &mut sums, pass)?;
        Ok((sums.sums, input))
    }

    /// Loss and gradients of `loss(hidden)` with respect to `wanted` (weights, adapters, the gate of `pass`), with the
    /// memory of one layer's activations. The same bits as the plain path for every tensor that one layer uses alone.
    ///
    /// # Errors
    /// As [`crate::Causal::hidden`], those of `loss`, and when the loss is not one number or does not depend on the states.
    pub fn backward_checkpointed(
        &self,
        input: &LmInput,
        pass: &Pass<'_>,
        wanted: &[Tensor],
        loss: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<CheckpointedGradients> {
        let saved = self.forward_checkpointed(input, pass)?;
        let loss = tch::with_grad(|| loss(&saved.hidden))?;
        if loss.numel() != 1 {
            return Err(Error::invalid(format!("the loss must be one number, got shape {:?}", loss.size())));
        }
        let mut sums = Sums::new(wanted);
        let Some(at_hidden) = sums.backward(&loss, Some(&saved.hidden))? else {
            return Err(Error::invalid("the loss does not depend on the states that it was given"));
        };
        let loss = loss.f_detach()?;
        let input = self.backward_into(saved, &at_hidden, &mut sums, pass)?;
        Ok(CheckpointedGradients { loss, grads: sums.sums, input })
    }

    fn backward_into(
        &self,
        saved: Checkpointed,
        at_hidden: &Tensor,
        sums: &mut Sums<'_>,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        let Checkpointed { hidden, mut inputs, positions, shared, ids, embedded } = saved;
        if at_hidden.size() != hidden.size() {
            let message = format!("the gradient has shape {:?}, the states {:?}", at_hidden.size(), hidden.size());
            return Err(Error::invalid(message));
        }
        drop(hidden);
        let after = pass.dropout.as_ref().map(|stream| stream.position());
        let mut grad = at_hidden.f_detach()?;
        let none = || Error::invalid("the backward pass found no gradient");
        let mut back = |x: Tensor, grad: &Tensor, forward: &dyn Fn(&Tensor) -> Result<Tensor>| {
            let x = x.f_detach()?.f_set_requires_grad(true)?;
            let root = tch::with_grad(|| root(&forward(&x)?, grad))?;
            sums.backward(&root, Some(&x))?.ok_or_else(none)
        };
        let last = inputs.pop().ok_or_else(none)?;
        grad = back(last, &grad, &|x| self.norm.forward(x))?;
        for (layer, position) in self.layers.iter().zip(positions).rev() {
            let x = inputs.pop().ok_or_else(none)?;
            if let Some(stream) = &pass.dropout {
                stream.rewind(position);
            }
            grad = back(x, &grad, &|x| layer.forward(x, &shared, None, pass))?;
        }
        if let (Some(stream), Some(after)) = (&pass.dropout, after) {
            stream.rewind(after);
        }
        if !embedded && self.embedding.requires_grad() {
            let root = tch::with_grad(|| {
                let x = Tensor::f_embedding(&self.embedding, &ids, -1, false, false)?;
                root(&x, &grad)
            })?;
            let _ = sums.backward(&root, None)?;
        }
        Ok(grad)
    }
}

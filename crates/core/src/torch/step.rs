//! The one place that accumulates gradients, checks them, clips them and lets the optimizer step.

use tch::{Device, Kind, Tensor, no_grad};

use super::{Optimizer, Params, kernel, raw};
use crate::{Error, Result};

/// Gradients of the micro-batches of one optimizer step.
///
/// They are collected beside the parameters and not in `.grad`, which saves a pass over every item table: nothing needs
/// to be set to zero, and the first micro-batch's gradients are taken over without a copy.
#[derive(Debug)]
pub struct Gradients {
    names: Vec<String>,
    inputs: Vec<Tensor>,
    grads: Vec<Option<Tensor>>,
    /// Whether a sum's memory is ours alone: autograd may give two parameters the same gradient tensor.
    owned: Vec<bool>,
    /// Detached mean losses with the number of targets of each.
    losses: Vec<(Tensor, f64)>,
}

/// What one optimizer step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Mean loss over the targets of all micro-batches.
    pub loss: f64,
    /// Norm of that loss's gradient over all parameters, before clipping.
    pub grad_norm: f64,
    /// Learning rate, without group factors.
    pub lr: f64,
}

impl Gradients {
    /// Nothing collected yet, for the trainable weights of `params`.
    pub fn new(params: &Params) -> Self {
        let (names, inputs): (Vec<_>, Vec<_>) =
            params.trainable().map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone())).unzip();
        let grads = names.iter().map(|_| None).collect();
        let owned = vec![false; names.len()];
        Self { names, inputs, grads, owned, losses: Vec::new() }
    }

    /// Runs backward from `mean_loss`, the mean over `count` targets, and adds the gradients weighted by `count`.
    ///
    /// After any split into micro-batches the result is the gradient of the mean over all targets.
    ///
    /// # Errors
    /// When the loss is not one number, `count` is not above 0, or backward fails.
    pub fn add(&mut self, mean_loss: &Tensor, count: f64) -> Result<()> {
        let weight = self.weight(mean_loss, count)?;
        let root = if weight == 1.0 { mean_loss.shallow_clone() } else { mean_loss.f_mul_scalar(weight)? };
        let found = Tensor::f_run_backward(&[root], &self.inputs, false, false)?;
        self.collect(mean_loss, count, 1.0, found.into_iter().map(|g| g.defined().then_some(g)))
    }

    /// As [`Gradients::add`] for gradients that the caller computed; `grads` follows [`Params::trainable`].
    ///
    /// # Errors
    /// When the loss is not one number, `count` is not above 0, or the number of gradients is wrong.
    pub fn add_given(&mut self, mean_loss: &Tensor, count: f64, grads: Vec<Option<Tensor>>) -> Result<()> {
        let weight = self.weight(mean_loss, count)?;
        if grads.len() != self.inputs.len() {
            let message = format!("{} gradients for {} trainable parameters", grads.len(), self.inputs.len());
            return Err(Error::invalid(message));
        }
        self.collect(mean_loss, count, weight, grads.into_iter())
    }

    /// Weight of a micro-batch relative to the first, so that a single one needs no multiplication.
    fn weight(&self, loss: &Tensor, count: f64) -> Result<f64> {
        if loss.numel() != 1 {
            return Err(Error::invalid(format!("the loss must be one number, got shape {:?}", loss.size())));
        }
        if !(count > 0.0 && count.is_finite()) {
            return Err(Error::invalid(format!("a micro-batch needs at least one target, got a count of {count}")));
        }
        Ok(self.losses.first().map_or(1.0, |(_, first)| count / first))
    }

    fn collect(
        &mut self,
        loss: &Tensor,
        count: f64,
        weight: f64,
        found: impl Iterator<Item = Option<Tensor>>,
    ) -> Result<()> {
        no_grad(|| {
            for ((sum, owned), g) in self.grads.iter_mut().zip(&mut self.owned).zip(found) {
                let Some(g) = g else { continue };
                let g = if weight == 1.0 { g } else { g.f_mul_scalar(weight)? };
                *sum = Some(match sum.take() {
                    None => {
                        *owned = false;
                        g
                    }
                    Some(mut sum) if *owned => sum.f_add_(&g)?,
                    Some(sum) => {
                        *owned = true;
                        sum.f_add(&g)?
                    }
                });
            }
            self.losses.push((loss.f_detach()?, count));
            Ok(())
        })
    }

    /// Number of micro-batches collected.
    pub fn n_micro_batches(&self) -> usize {
        self.losses.len()
    }

    /// Factor from the collected sums to the mean over all targets.
    fn to_mean(&self) -> f64 {
        let total: f64 = self.losses.iter().map(|(_, count)| count).sum();
        self.losses.first().map_or(1.0, |(_, first)| first / total)
    }

    /// Gradient of the mean over all targets for each trainable parameter that has one, by name; for tests and reports.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn means(&self) -> Result<Vec<(&str, Tensor)>> {
        let factor = self.to_mean();
        let named = self.names.iter().zip(&self.grads);
        named.filter_map(|(n, g)| g.as_ref().map(|g| Ok((n.as_str(), g.f_mul_scalar(factor)?)))).collect()
    }

    /// Checks loss and gradients, clips to `clip_norm`, updates the parameters and forgets the gradients.
    ///
    /// Clipping follows `torch.nn.utils.clip_grad_norm_`: the factor is `min(1, clip_norm / (norm + 1e-6))`; it is
    /// applied inside the update. On a GPU this waits for the device once.
    ///
    /// # Errors
    /// When the loss or a gradient is not finite ([`Error::Run`], naming `step` and the first such parameter; the
    /// parameters are untouched), or nothing was collected.
    pub fn step(
        &mut self,
        optimizer: &mut Optimizer,
        params: &Params,
        clip_norm: Option<f64>,
        lr_factor: f64,
        step: u64,
    ) -> Result<StepReport> {
        let to_mean = self.to_mean();
        let measured = self.measure();
        let losses = std::mem::take(&mut self.losses);
        let grads: Vec<_> = self.grads.iter_mut().map(Option::take).collect();
        if losses.is_empty() {
            return Err(Error::invalid(format!("step {step}: no micro-batch was added")));
        }
        let (loss, raw_norm) = measured?;
        let grad_norm = raw_norm * to_mean;
        if !loss.is_finite() || !grad_norm.is_finite() {
            return Err(self.not_finite(step, loss, &grads));
        }
        let clip = clip_norm.map_or(1.0, |max| (max / (grad_norm + 1e-6)).min(1.0));
        optimizer.step(params, &grads, lr_factor, to_mean * clip)?;
        Ok(StepReport { loss, grad_norm, lr: optimizer.lr() * lr_factor })
    }

    /// Mean loss and norm of the collected sums, read from the device together.
    fn measure(&self) -> Result<(f64, f64)> {
        let total: f64 = self.losses.iter().map(|(_, count)| count).sum();
        no_grad(|| {
            let mut loss =
                Tensor::f_zeros(1, (Kind::Double, self.losses.first().map_or(Device::Cpu, |l| l.0.device())))?;
            for (value, count) in &self.losses {
                loss = loss.f_add(&value.f_view(1)?.f_to_kind(Kind::Double)?.f_mul_scalar(count / total)?)?;
            }
            let (plain, other): (Vec<_>, Vec<_>) = self.grads.iter().flatten().partition(|g| raw::is_plain::<f32>(g));
            let slices: Vec<_> = plain.into_iter().map(raw::slice::<f32>).collect();
            let mut squares = Tensor::f_full(1, kernel::sum_of_squares(&slices), (Kind::Double, loss.device()))?;
            for g in other {
                let norm = g.f_norm()?.f_to_kind(Kind::Double)?.f_to_device(loss.device())?;
                squares = squares.f_add(&norm.f_square()?)?;
            }
            let both = Tensor::f_cat(&[loss, squares.f_sqrt()?], 0)?.f_to_device(Device::Cpu)?;
            Ok((both.f_double_value(&[0])?, both.f_double_value(&[1])?))
        })
    }

    fn not_finite(&self, step: u64, loss: f64, grads: &[Option<Tensor>]) -> Error {
        let bad = |g: &Tensor| {
            g.f_isfinite().and_then(|t| t.f_all()).and_then(|t| t.f_int64_value(&[])).is_ok_and(|all| all == 0)
        };
        let first = self.names.iter().zip(grads).find(|(_, g)| g.as_ref().is_some_and(bad)).map(|(name, _)| name);
        let message = match (loss.is_finite(), first) {
            (false, Some(name)) => {
                format!("step {step}: the loss is {loss}; the first gradient that is not finite is that of `{name}`")
            }
            (false, None) => format!("step {step}: the loss is {loss}"),
            (true, Some(name)) => {
                format!("step {step}: the gradient of `{name}` is not finite (NaN or infinite); the loss is {loss}")
            }
            (true, None) => {
                format!("step {step}: the norm of the gradients is too large for a number; the loss is {loss}")
            }
        };
        let hint = "lower the learning rate, lengthen the warm-up or set a smaller clip_norm; the weights of the last \
                    checkpoint are not affected";
        Error::Run { message, hint: Some(hint.into()) }
    }
}

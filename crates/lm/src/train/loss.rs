//! Cross-entropy over the vocabulary in blocks of rows, with its gradients written down rather than recorded.
//!
//! Logits of all places, `[B·S,V]`, are never held: a block of rows is scored, turned into its gradient in place, and
//! used for the gradients by the states and by the head before the next block. Rows without target are not scored.

use anyo_core::{
    Error, Result, parallel,
    torch::{dims, raw},
};
use tch::{Device, Kind, Tensor, no_grad};

use super::{
    masks::IGNORE,
    softmax_row::{RowLoss, cross_entropy_row},
};
use crate::dense::wide;

/// Elements of a block of logits on the CPU; with a large vocabulary [`MIN_ROWS`] decides.
const CPU_BLOCK: usize = 1 << 20;
/// The same on a GPU, where small products leave most of it idle.
const GPU_BLOCK: usize = 1 << 26;
/// Below this the product with the head reads the head more often than it computes.
const MIN_ROWS: usize = 128;
const MAX_ROWS: usize = 4096;

/// Cross-entropy as `torch.nn.functional.cross_entropy` defines it, with labels of [`IGNORE`] left out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CrossEntropy {
    /// ε: `(1−ε)·(−log p_y) + ε/V·Σ_k(−log p_k)`; 0 to below 1.
    pub label_smoothing: f64,
    /// Logits are divided by this; above 0.
    pub temperature: f64,
}

/// Loss over the targets and its gradients, each multiplied by the scale that was asked for.
#[derive(Debug)]
pub struct TokenLoss {
    /// Sum over the targets in nats, not scaled; one f64 on the states' device.
    pub sum: Tensor,
    /// Number of targets.
    pub count: usize,
    /// By the states `[N,D]`, in their type.
    pub hidden: Tensor,
    /// By the head's weight `[V,D]` in its type, where it was asked for.
    pub weight: Option<Tensor>,
    /// By the further inputs of [`CrossEntropy::grad_through`], where they have one.
    pub inputs: Vec<Option<Tensor>>,
}

impl TokenLoss {
    /// Mean over the targets, one f64.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn mean(&self) -> Result<Tensor> {
        Ok(self.sum.f_div_scalar(self.count.max(1) as f64)?)
    }

    /// A scalar whose backward pass puts these gradients into the graph of `hidden` `[N,D]` and of the head's weight.
    ///
    /// # Errors
    /// When shapes differ from those of the gradients.
    pub fn surrogate(&self, hidden: &Tensor, weight: Option<&Tensor>) -> Result<Tensor> {
        // An inner product keeps nothing but its two operands.
        let inner = |x: &Tensor, grad: &Tensor| x.f_reshape(-1)?.f_dot(&grad.f_reshape(-1)?);
        let mut total = inner(hidden, &self.hidden)?;
        if let (Some(weight), Some(grad)) = (weight, &self.weight) {
            total = total.f_add(&inner(weight, grad)?.f_to_kind(total.kind())?)?;
        }
        Ok(total)
    }
}

/// Rows of logits that are held at once for a vocabulary of `vocab` on `device`.
pub fn block_rows(vocab: usize, device: Device) -> usize {
    let block = if device == Device::Cpu { CPU_BLOCK } else { GPU_BLOCK };
    (block / vocab.max(1)).clamp(MIN_ROWS, MAX_ROWS)
}

impl CrossEntropy {
    /// No smoothing, temperature 1.
    pub fn plain() -> Self {
        Self { label_smoothing: 0.0, temperature: 1.0 }
    }

    /// Loss and gradients of `scale` times the sum, for states `hidden` `[N,D]`, a dense head `weight` `[V,D]` (perhaps
    /// the tied embedding) and `targets` `[N]`, [`IGNORE`] where none.
    ///
    /// The gradient by the head is computed only with `weight_grad`. In half precision the products are in that
    /// precision, softmax and sums in f32.
    ///
    /// # Errors
    /// When shapes do not fit, a target lies outside the vocabulary, smoothing or temperature is out of range, or memory
    /// runs out.
    pub fn grad(
        &self,
        hidden: &Tensor,
        weight: &Tensor,
        targets: &[i64],
        scale: f64,
        weight_grad: bool,
    ) -> Result<TokenLoss> {
        let [v, d] = dims("head", weight, ["V", "D"])?;
        let (rows, width) = self.rows(hidden, targets, Some(v as usize))?;
        if width != d {
            return Err(Error::invalid(format!("states have {width} features, the head has {d}")));
        }
        no_grad(|| {
            let (weight, kind) = (weight.f_detach()?, weight.kind());
            let weight_t = weight.f_tr()?;
            let picked = pick(&hidden.f_detach()?, &rows)?.f_to_kind(kind)?;
            let out = picked.f_empty_like()?;
            // Summed over many blocks, so in f32 whatever the head's type.
            let exact = kind == Kind::Float;
            let widened = wide::wanted(&weight);
            let mut by_weight = match weight_grad {
                true => Some(Tensor::f_zeros([v, d], (Kind::Float, weight.device()))?),
                false => None,
            };
            // In half precision the scale, often 1/N, is applied after the products, where it cannot underflow.
            let inner_scale = if exact { scale } else { 1.0 };
            let mut sum = Sum::new(hidden.device())?;
            let n = rows.targets.len();
            let step = block_rows(v as usize, hidden.device()).min(n.max(1));
            let buffer =
                exact.then(|| Tensor::f_empty([step as i64, v], (Kind::Float, weight.device()))).transpose()?;
            for start in (0..n).step_by(step) {
                let len = step.min(n - start);
                let block = picked.f_narrow(0, start as i64, len as i64)?;
                let wide_block = widened.then(|| block.f_to_kind(Kind::Float)).transpose()?;
                let mut logits = match (&wide_block, &buffer) {
                    (Some(block), _) => wide::multiply(block, &weight),
                    (None, Some(buffer)) => {
                        let logits = buffer.f_narrow(0, 0, len as i64)?;
                        let _ = block.f_mm_out(&logits, &weight_t)?;
                        logits
                    }
                    (None, None) => block.f_mm(&weight_t)?.f_to_kind(Kind::Float)?,
                };
                sum.add(self.turn(&mut logits, &rows.targets[start..start + len], inner_scale)?)?;
                if let Some(block) = &wide_block {
                    let mut place = out.f_narrow(0, start as i64, len as i64)?;
                    place.f_copy_(&wide::multiply_back(&logits, &weight))?;
                    if let Some(total) = by_weight.as_mut() {
                        let _ = total.f_addmm_(&logits.f_tr()?, block)?;
                    }
                    continue;
                }
                let logits = logits.f_to_kind(kind)?;
                let _ = logits.f_mm_out(&out.f_narrow(0, start as i64, len as i64)?, &weight)?;
                if let Some(total) = by_weight.as_mut() {
                    if exact {
                        let _ = total.f_addmm_(&logits.f_tr()?, &block)?;
                    } else {
                        let _ = total.f_add_(&logits.f_tr()?.f_mm(&block)?.f_to_kind(Kind::Float)?)?;
                    }
                }
            }
            let scaled = |x: Tensor| if exact { Ok(x) } else { x.f_mul_scalar(scale) };
            Ok(TokenLoss {
                sum: sum.tensor()?,
                count: n,
                hidden: scaled(spread(out, &rows, hidden)?)?.f_to_kind(hidden.kind())?,
                weight: by_weight.map(|w| scaled(w)?.f_to_kind(kind)).transpose()?,
                inputs: Vec::new(),
            })
        })
    }

    /// As [`CrossEntropy::grad`] for any head: `logits` scores a block of states `[n,D]` with a graph, `inputs` are the
    /// trainable tensors it may use (a LoRA on the head, a bias).
    ///
    /// # Errors
    /// As [`CrossEntropy::grad`], and those of `logits`.
    pub fn grad_through(
        &self,
        hidden: &Tensor,
        targets: &[i64],
        inputs: &[Tensor],
        scale: f64,
        vocab: usize,
        mut logits: impl FnMut(&Tensor) -> Result<Tensor>,
    ) -> Result<TokenLoss> {
        let (rows, _) = self.rows(hidden, targets, Some(vocab))?;
        let picked = no_grad(|| pick(&hidden.f_detach()?, &rows))?;
        let out = picked.f_empty_like()?;
        let mut totals: Vec<Option<Tensor>> = inputs.iter().map(|_| None).collect();
        let mut sum = Sum::new(hidden.device())?;
        let n = rows.targets.len();
        let step = block_rows(vocab, hidden.device()).min(n.max(1));
        for start in (0..n).step_by(step) {
            let len = step.min(n - start);
            let block = picked.f_narrow(0, start as i64, len as i64)?.f_detach()?.f_set_requires_grad(true)?;
            let scores = logits(&block)?;
            if scores.size() != [len as i64, vocab as i64] {
                return Err(Error::invalid(format!(
                    "the head gave logits of shape {:?} for {len} states, wanted [{len}, {vocab}]",
                    scores.size()
                )));
            }
            // A copy: the head's graph may still need its output.
            let mut grad = no_grad(|| scores.f_detach_copy()?.f_to_kind(Kind::Float)?.f_contiguous())?;
            sum.add(self.turn(&mut grad, &rows.targets[start..start + len], 1.0)?)?;
            let root = scores.f_reshape(-1)?.f_dot(&grad.f_to_kind(scores.kind())?.f_reshape(-1)?)?;
            let all: Vec<&Tensor> = std::iter::once(&block).chain(inputs).collect();
            let found = Tensor::f_run_backward(&[root], &all, false, false)?;
            no_grad(|| -> Result<()> {
                for (i, g) in found.into_iter().enumerate().filter(|(_, g)| g.defined()) {
                    match i.checked_sub(1) {
                        None => out.f_narrow(0, start as i64, len as i64)?.f_copy_(&g)?,
                        Some(i) => {
                            totals[i] = Some(match totals[i].take() {
                                None => g,
                                Some(total) => total.f_add(&g)?,
                            });
                        }
                    }
                }
                Ok(())
            })?;
        }
        no_grad(|| {
            Ok(TokenLoss {
                sum: sum.tensor()?,
                count: n,
                hidden: spread(out, &rows, hidden)?.f_mul_scalar(scale)?,
                weight: None,
                inputs: totals
                    .into_iter()
                    .map(|t| t.map(|t| t.f_mul_scalar(scale)).transpose())
                    .collect::<Result<_, _>>()?,
            })
        })
    }

    /// Checks the settings and finds the rows that have a target.
    fn rows(&self, hidden: &Tensor, targets: &[i64], vocab: Option<usize>) -> Result<(Rows, i64)> {
        let [n, d] = dims("hidden", hidden, ["N", "D"])?;
        if targets.len() as i64 != n {
            return Err(Error::invalid(format!("{} targets for {n} states", targets.len())));
        }
        if !(0.0..1.0).contains(&self.label_smoothing) {
            let message = format!("label smoothing must be at least 0 and below 1, got {}", self.label_smoothing);
            return Err(Error::invalid(message));
        }
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return Err(Error::invalid(format!("the temperature must be above 0, got {}", self.temperature)));
        }
        let mut rows = Rows { all: true, index: Vec::new(), targets: Vec::new() };
        for (i, &target) in targets.iter().enumerate() {
            if target == IGNORE {
                rows.all = false;
                continue;
            }
            if target < 0 || vocab.is_some_and(|v| target as usize >= v) {
                return Err(Error::Invalid {
                    message: format!("target {target} at place {i} is no token of a vocabulary of {vocab:?}"),
                    hint: Some(format!("labels are token ids, or {IGNORE} where nothing is to be learned")),
                });
            }
            rows.index.push(i as i64);
            rows.targets.push(target);
        }
        Ok((rows, d))
    }

    /// Replaces f32 logits `[n,V]` by `scale` times the gradient of their summed loss and returns the sum.
    fn turn(&self, logits: &mut Tensor, targets: &[i64], scale: f64) -> Result<Part> {
        let v = logits.size()[1] as usize;
        let (inv_temperature, eps) = (1.0 / self.temperature, self.label_smoothing);
        if raw::is_plain::<f32>(logits) {
            let c = RowLoss { scale: scale as f32, inv_temperature: inv_temperature as f32, smoothing: eps as f32 };
            let rows = (CPU_BLOCK / 16 / v.max(1)).max(1);
            let sum = parallel::sum_over_rows(
                raw::slice_mut(logits),
                v,
                rows,
                || (),
                |(), at, row| cross_entropy_row(row, targets[at] as usize, c),
            );
            return Ok(Part::Number(sum));
        }
        let target = Tensor::f_from_slice(targets)?.f_to_device(logits.device())?.f_unsqueeze(1)?;
        let log_p = logits.f_mul_scalar(inv_temperature)?.f_log_softmax(-1, Kind::Float)?;
        let mut loss = log_p.f_gather(1, &target, false)?.f_sum(Kind::Double)?.f_mul_scalar(-(1.0 - eps))?;
        if eps > 0.0 {
            loss = loss.f_sub(&log_p.f_sum(Kind::Double)?.f_mul_scalar(eps / v as f64)?)?;
        }
        let mut grad = log_p.f_exp()?;
        if eps > 0.0 {
            let _ = grad.f_sub_scalar_(eps / v as f64)?;
        }
        let minus = Tensor::f_full(target.size(), -(1.0 - eps), (Kind::Float, logits.device()))?;
        let mut grad = grad.f_scatter_add_(1, &target, &minus)?;
        logits.f_copy_(&grad.f_mul_scalar_(scale * inv_temperature)?)?;
        Ok(Part::OnDevice(loss))
    }
}

/// Places that have a target.
struct Rows {
    /// Every place has one.
    all: bool,
    index: Vec<i64>,
    targets: Vec<i64>,
}

enum Part {
    Number(f64),
    OnDevice(Tensor),
}

/// A sum that waits for a GPU only when it is read.
struct Sum {
    number: f64,
    tensor: Tensor,
}

impl Sum {
    fn new(device: Device) -> Result<Self> {
        Ok(Self { number: 0.0, tensor: Tensor::f_zeros([0i64; 0], (Kind::Double, device))? })
    }

    fn add(&mut self, part: Part) -> Result<()> {
        match part {
            Part::Number(number) => self.number += number,
            Part::OnDevice(tensor) => self.tensor = self.tensor.f_add(&tensor)?,
        }
        Ok(())
    }

    fn tensor(&self) -> Result<Tensor> {
        Ok(self.tensor.f_add_scalar(self.number)?)
    }
}

/// The rows with targets, contiguous.
fn pick(hidden: &Tensor, rows: &Rows) -> Result<Tensor> {
    match rows.all {
        true => Ok(hidden.f_contiguous()?),
        false => Ok(hidden.f_index_select(0, &Tensor::f_from_slice(&rows.index)?.f_to_device(hidden.device())?)?),
    }
}

/// The gradients at their places, 0 at the others.
fn spread(grads: Tensor, rows: &Rows, like: &Tensor) -> Result<Tensor> {
    if rows.all {
        return Ok(grads);
    }
    let mut all = Tensor::f_zeros(like.size(), (grads.kind(), grads.device()))?;
    Ok(all.f_index_copy_(0, &Tensor::f_from_slice(&rows.index)?.f_to_device(grads.device())?, &grads)?)
}

#[cfg(test)]
mod tests;

use tch::Tensor; use crate::Result; use super::{Optimizer, Params};
/// Accumulates gradients of micro-batches without `.grad` (autograd.grad semantics: no zero_grad needed).
pub struct Gradients;
pub struct StepReport { /// mean loss over all targets
    pub loss: f64, /// norm before clipping
    pub grad_norm: f64, pub lr: f64 }
impl Gradients {
    pub fn new(params: &Params) -> Self { unimplemented!() }
    /// `mean_loss`: scalar mean over `count` targets. Runs backward.
    pub fn add(&mut self, mean_loss: &Tensor, count: f64) -> Result<()> { unimplemented!() }
    /// For gradients computed by hand / given: order of params.trainable().
    pub fn add_given(&mut self, loss: &Tensor, count: f64, grads: Vec<Option<Tensor>>) -> Result<()> { unimplemented!() }
    /// checks, clips, steps, empties self for the next step.
    pub fn step(&mut self, optimizer: &mut Optimizer, params: &Params, clip_norm: Option<f64>, lr_factor: f64, step: u64) -> Result<StepReport> { unimplemented!() }
}

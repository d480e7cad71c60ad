//! Adam and AdamW with saved state, as PyTorch 2.11 computes them.

use std::{collections::BTreeMap, rc::Rc};

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

use super::{
    Params,
    kernel::{self, Coefficients},
    params::mismatches,
    raw,
    schedule::ScheduleConfig,
};
use crate::{
    Error, Result,
    config::{Check, Problem},
};

/// Which optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimName {
    /// Weight decay is an L2 term of the gradient, as in `torch.optim.Adam`.
    Adam,
    /// Weight decay shrinks the weights directly, as in `torch.optim.AdamW`.
    AdamW,
}

/// Optimizer, clipping and schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimConfig {
    /// `adam` or `adamw`.
    pub name: OptimName,
    /// Peak learning rate; above 0.
    pub lr: f64,
    /// β₁ and β₂, each in [0, 1).
    pub betas: [f64; 2],
    /// ε beside the square root; above 0.
    pub eps: f64,
    /// Coupled (adam) or decoupled (adamw) decay; at least 0.
    pub weight_decay: f64,
    /// Largest norm of all gradients together; null: no clipping.
    #[serde(deserialize_with = "Option::deserialize")]
    pub clip_norm: Option<f64>,
    /// Learning rate over the steps.
    pub schedule: ScheduleConfig,
}

impl Check for OptimConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut want = |key: &str, ok: bool, range: &str, got: f64| {
            if !ok {
                problems.push(Problem::new(key, format!("must be {range}, got {got}")));
            }
        };
        let positive = |x: f64| x > 0.0 && x.is_finite();
        want("lr", positive(self.lr), "above 0", self.lr);
        for (i, beta) in self.betas.into_iter().enumerate() {
            want(&format!("betas.{i}"), (0.0..1.0).contains(&beta), "at least 0 and below 1", beta);
        }
        want("eps", positive(self.eps), "above 0", self.eps);
        let decay = self.weight_decay;
        want("weight_decay", decay >= 0.0 && decay.is_finite(), "at least 0", decay);
        if let Some(norm) = self.clip_norm {
            want("clip_norm", positive(norm), "above 0, or null for no clipping", norm);
        }
        problems
            .extend(self.schedule.problems().into_iter().map(|p| Problem { key: format!("schedule.{}", p.key), ..p }));
        problems
    }
}

impl OptimConfig {
    /// The numbers of a tensor's update number `steps`, counted from 1, with the learning rate `lr` (schedule and group
    /// factor in it) and the decay of its group; `grad_scale` multiplies the gradient.
    pub fn coefficients(&self, lr: f64, weight_decay: f64, grad_scale: f64, steps: i64) -> Coefficients {
        let [beta1, beta2] = self.betas;
        let (l2, keep) = match self.name {
            OptimName::Adam => (weight_decay, 1.0),
            OptimName::AdamW => (0.0, 1.0 - lr * weight_decay),
        };
        let t = steps as f64;
        Coefficients {
            grad_scale,
            l2,
            keep,
            beta1,
            beta2,
            eps: self.eps,
            step_size: lr / (1.0 - beta1.powf(t)),
            bias2_sqrt: (1.0 - beta2.powf(t)).sqrt(),
        }
    }
}

/// Parameters that share a learning-rate factor and a weight decay.
#[derive(Clone)]
pub struct Group {
    label: String,
    takes: Rc<dyn Fn(&str) -> bool>,
    lr_scale: f64,
    weight_decay: f64,
}

impl Group {
    /// The parameters whose name `takes` accepts; `label` appears in messages.
    pub fn new(
        label: impl Into<String>,
        takes: impl Fn(&str) -> bool + 'static,
        lr_scale: f64,
        weight_decay: f64,
    ) -> Self {
        Self { label: label.into(), takes: Rc::new(takes), lr_scale, weight_decay }
    }

    /// Whether it takes the parameter called `name`.
    pub fn takes(&self, name: &str) -> bool {
        (self.takes)(name)
    }

    /// Factor of the learning rate.
    pub fn lr_scale(&self) -> f64 {
        self.lr_scale
    }

    /// Weight decay.
    pub fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    /// Each trainable parameter with the first of `groups` that takes it, in the order of [`Params::trainable`].
    ///
    /// # Errors
    /// When a parameter is in no group, a group is empty, or there is nothing to train.
    pub fn assign<'a>(groups: &'a [Self], params: &'a Params) -> Result<Vec<(&'a str, &'a Tensor, &'a Self)>> {
        let (mut assigned, mut strays, mut used) = (Vec::new(), Vec::new(), vec![false; groups.len()]);
        for (name, tensor) in params.trainable() {
            match groups.iter().position(|group| group.takes(name)) {
                None => strays.push(name),
                Some(i) => {
                    used[i] = true;
                    assigned.push((name, tensor, &groups[i]));
                }
            }
        }
        if !strays.is_empty() {
            return Err(Error::invalid(format!("no optimizer group takes: {}", strays.join(", "))));
        }
        if assigned.is_empty() {
            return Err(Error::invalid("the model has no trainable parameter"));
        }
        if let Some(i) = used.iter().position(|used| !used) {
            return Err(Error::invalid(format!("optimizer group `{}` takes no parameter", groups[i].label)));
        }
        Ok(assigned)
    }
}

#[derive(Debug)]
struct Slot {
    name: String,
    lr_scale: f64,
    weight_decay: f64,
    /// Updates of this parameter; those steps in which it had no gradient do not count.
    steps: i64,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
}

/// What of an optimizer goes into a checkpoint: tensors by name, from which it continues with the same bits.
pub trait Resume {
    /// The state by name; handles of the optimizer's own tensors or copies.
    ///
    /// # Errors
    /// When memory runs out.
    fn state(&self) -> Result<BTreeMap<String, Tensor>>;

    /// Continues from a saved state.
    ///
    /// # Errors
    /// When names, shapes or types differ: one message lists all; nothing is changed then.
    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()>;
}

impl Resume for Optimizer {
    fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        Ok(Self::state(self))
    }

    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        Self::load_state(self, state)
    }
}

/// Adam or AdamW over the trainable parameters of one [`Params`].
#[derive(Debug)]
pub struct Optimizer {
    config: OptimConfig,
    slots: Vec<Slot>,
}

impl Optimizer {
    /// One group: every trainable parameter, `config.weight_decay`.
    ///
    /// # Errors
    /// When there is nothing to train.
    pub fn new(config: &OptimConfig, params: &Params) -> Result<Self> {
        Self::with_groups(config, params, &[Group::new("all", |_| true, 1.0, config.weight_decay)])
    }

    /// Each trainable parameter belongs to the first of `groups` that takes it; `config.weight_decay` is not used.
    ///
    /// # Errors
    /// When a parameter is in no group, a group is empty, or there is nothing to train.
    pub fn with_groups(config: &OptimConfig, params: &Params, groups: &[Group]) -> Result<Self> {
        let mut slots = Vec::new();
        for (name, tensor, group) in Group::assign(groups, params)? {
            // The moments of half-precision weights stay in f32, where small changes are not lost.
            let kind = if tensor.kind() == Kind::Double { Kind::Double } else { Kind::Float };
            let zeros = || Tensor::f_zeros(tensor.size(), (kind, tensor.device()));
            slots.push(Slot {
                name: name.to_owned(),
                lr_scale: group.lr_scale,
                weight_decay: group.weight_decay,
                steps: 0,
                exp_avg: zeros()?,
                exp_avg_sq: zeros()?,
            });
        }
        Ok(Self { config: config.clone(), slots })
    }

    /// The configured learning rate, before schedule and group factors.
    pub fn lr(&self) -> f64 {
        self.config.lr
    }

    /// Bytes of the saved state, for memory estimates.
    pub fn state_bytes(&self) -> usize {
        self.slots.iter().map(|s| 2 * s.exp_avg.numel() * s.exp_avg.kind().elt_size_in_bytes()).sum()
    }

    /// One update. `grads` follows [`Params::trainable`]; a parameter without gradient stays as it is, decay included.
    ///
    /// `lr_factor` comes from the schedule; `grad_scale` multiplies every gradient on the way (averaging, clipping).
    ///
    /// # Errors
    /// When `params` or `grads` are not those the optimizer was made for.
    pub fn step(&mut self, params: &Params, grads: &[Option<Tensor>], lr_factor: f64, grad_scale: f64) -> Result<()> {
        self.check(params, grads)?;
        no_grad(|| {
            let (mut jobs, mut held) = (Vec::new(), Vec::new());
            for (i, (_, p)) in params.trainable().enumerate() {
                let Some(g) = &grads[i] else { continue };
                self.slots[i].steps += 1;
                let slot = &self.slots[i];
                let lr = self.config.lr * lr_factor * slot.lr_scale;
                let c = self.config.coefficients(lr, slot.weight_decay, grad_scale, slot.steps);
                if raw::is_plain::<f32>(p) && raw::is_plain::<f32>(&slot.exp_avg) && g.kind() == Kind::Float {
                    let g = g.f_contiguous()?;
                    if p.numel() > 0 {
                        let [p, g, m, v] = [p, &g, &slot.exp_avg, &slot.exp_avg_sq].map(raw::f32_ptr);
                        jobs.push(kernel::Job { p, g, m, v, len: slot.exp_avg.numel(), c });
                    }
                    held.push(g);
                } else {
                    tensor_step(p, g, slot, &c)?;
                }
            }
            // SAFETY: lengths were compared in `check`, names never share memory (`Params::add`), the moments belong to
            // this optimizer alone, and `held` keeps the gradients alive.
            unsafe { kernel::adam(&jobs) };
            drop(held);
            Ok(())
        })
    }

    fn check(&self, params: &Params, grads: &[Option<Tensor>]) -> Result<()> {
        let n = params.trainable().count();
        if n != self.slots.len() || grads.len() != n {
            let message = format!(
                "the optimizer has {} parameters, the model {n} and the gradients {}",
                self.slots.len(),
                grads.len()
            );
            return Err(Error::invalid(message));
        }
        for (((name, p), slot), g) in params.trainable().zip(&self.slots).zip(grads) {
            let shape = slot.exp_avg.size();
            if name != slot.name || p.size() != shape {
                let message = format!("the optimizer expects `{}` {shape:?}, got `{name}` {:?}", slot.name, p.size());
                return Err(Error::invalid(message));
            }
            if let Some(g) = g.as_ref().filter(|g| g.size() != shape) {
                return Err(Error::invalid(format!(
                    "the gradient of `{name}` has shape {:?}, not {shape:?}",
                    g.size()
                )));
            }
        }
        Ok(())
    }

    /// The state by name: `exp_avg.<p>`, `exp_avg_sq.<p>` (handles, not copies) and `step.<p>` for each parameter `<p>`.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let mut state = BTreeMap::new();
        for slot in &self.slots {
            state.insert(format!("exp_avg.{}", slot.name), slot.exp_avg.shallow_clone());
            state.insert(format!("exp_avg_sq.{}", slot.name), slot.exp_avg_sq.shallow_clone());
            state.insert(format!("step.{}", slot.name), Tensor::from_slice(&[slot.steps]));
        }
        state
    }

    /// Continues from a saved state.
    ///
    /// # Errors
    /// When names or shapes differ: one message lists all; nothing is changed then.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let lines = mismatches(self.state().into_iter().map(|(name, tensor)| (name, tensor.size())), state);
        if !lines.is_empty() {
            return Err(Error::Invalid {
                message: format!("the optimizer state does not fit the model:\n  {}", lines.join("\n  ")),
                hint: Some("it was saved with other model settings; see their config.yaml".into()),
            });
        }
        no_grad(|| {
            for slot in &mut self.slots {
                slot.exp_avg.f_copy_(&state[&format!("exp_avg.{}", slot.name)])?;
                slot.exp_avg_sq.f_copy_(&state[&format!("exp_avg_sq.{}", slot.name)])?;
                slot.steps = state[&format!("step.{}", slot.name)].f_int64_value(&[0])?;
            }
            Ok(())
        })
    }
}

/// The update in tensor operations, for CUDA and for types other than f32.
fn tensor_step(p: &Tensor, g: &Tensor, slot: &Slot, c: &Coefficients) -> Result<()> {
    let (mut m, mut v) = (slot.exp_avg.shallow_clone(), slot.exp_avg_sq.shallow_clone());
    let kind = m.kind();
    // For f32 and f64 `weight` is the parameter itself, for half precision a copy that is written back.
    let mut weight = p.f_to_kind(kind)?;
    let mut g = g.f_to_kind(kind)?;
    if c.grad_scale != 1.0 {
        g = g.f_mul_scalar(c.grad_scale)?;
    }
    if c.l2 != 0.0 {
        g = g.f_add(&weight.f_mul_scalar(c.l2)?)?;
    }
    if c.keep != 1.0 {
        let _ = weight.f_mul_scalar_(c.keep)?;
    }
    let _ = m.f_lerp_(&g, 1.0 - c.beta1)?;
    let _ = v.f_mul_scalar_(c.beta2)?;
    let _ = v.f_addcmul_(&g, &g.f_mul_scalar(1.0 - c.beta2)?)?;
    let mut denominator = v.f_sqrt()?;
    let _ = denominator.f_div_scalar_(c.bias2_sqrt)?;
    let _ = denominator.f_add_scalar_(c.eps)?;
    let _ = weight.f_addcdiv_(&m.f_mul_scalar(-c.step_size)?, &denominator)?;
    if p.kind() != kind {
        p.shallow_clone().f_copy_(&weight)?;
    }
    Ok(())
}

//! Adam and AdamW whose two moments take one byte for each weight.
//!
//! First moment on the signed dynamic map, second on the unsigned one, each scaled by the largest absolute value of its
//! block; the update itself is computed in f32 and quantised again. Tensors below 4096 elements keep f32 moments.
//!
//! Differs from PyTorch's AdamW: weight decay is applied after the step, as bitsandbytes does. Differs from
//! bitsandbytes: blocks of 256 elements (its newer versions take 256, older ones 2048); a second moment above 0 never
//! becomes 0, which with a gradient that vanishes would make the next update huge.
//!
//! The state stays in main memory; with weights on a GPU, gradient and weight of one tensor at a time come over
//! (what bitsandbytes calls paged, without its page faults, and slower).

use std::collections::BTreeMap;

use anyo_core::{
    Error, Result, parallel,
    torch::{Coefficients, Group, OptimConfig, Params, raw},
};
use tch::{Device, Kind, Tensor, no_grad};

use crate::quant::DynamicMap;

/// Elements that share a scale.
pub const BLOCK: usize = 256;
/// Tensors with fewer elements keep f32 moments.
pub const SMALLEST: usize = 4096;

#[derive(Debug)]
enum Moments {
    /// First and second moment in f32.
    Full(Vec<f32>, Vec<f32>),
    /// Codes of both, and the scales of both, one for each block.
    Eight { m: Vec<u8>, v: Vec<u8>, m_max: Vec<f32>, v_max: Vec<f32> },
}

#[derive(Debug)]
struct Slot {
    name: String,
    shape: Vec<i64>,
    lr_scale: f64,
    weight_decay: f64,
    steps: i64,
    moments: Moments,
}

/// Adam or AdamW with 8-bit moments over the trainable weights of one [`Params`].
#[derive(Debug)]
pub struct Adam8 {
    config: OptimConfig,
    slots: Vec<Slot>,
    signed: DynamicMap,
    unsigned: DynamicMap,
}

impl Adam8 {
    /// Each trainable weight belongs to the first of `groups` that takes it; `config.weight_decay` is not used.
    ///
    /// # Errors
    /// When a weight is in no group, a group is empty, or there is nothing to train.
    pub fn new(config: &OptimConfig, params: &Params, groups: &[Group]) -> Result<Self> {
        let mut slots = Vec::new();
        for (name, tensor, group) in Group::assign(groups, params)? {
            let n = tensor.numel();
            let moments = match n < SMALLEST {
                true => Moments::Full(vec![0.0; n], vec![0.0; n]),
                false => {
                    let blocks = n.div_ceil(BLOCK);
                    let zero = DynamicMap::signed().code(0.0);
                    Moments::Eight {
                        m: vec![zero; n],
                        v: vec![0; n],
                        m_max: vec![0.0; blocks],
                        v_max: vec![0.0; blocks],
                    }
                }
            };
            slots.push(Slot {
                name: name.to_owned(),
                shape: tensor.size(),
                lr_scale: group.lr_scale(),
                weight_decay: group.weight_decay(),
                steps: 0,
                moments,
            });
        }
        Ok(Self { config: config.clone(), slots, signed: DynamicMap::signed(), unsigned: DynamicMap::unsigned() })
    }

    /// The configured learning rate, before schedule and group factors.
    pub fn lr(&self) -> f64 {
        self.config.lr
    }

    /// Bytes of the moments and their scales.
    pub fn state_bytes(&self) -> usize {
        let of = |slot: &Slot| match &slot.moments {
            Moments::Full(m, v) => 4 * (m.len() + v.len()),
            Moments::Eight { m, v, m_max, v_max } => m.len() + v.len() + 4 * (m_max.len() + v_max.len()),
        };
        self.slots.iter().map(of).sum()
    }

    /// One update; arguments as those of [`anyo_core::torch::Optimizer::step`].
    ///
    /// # Errors
    /// When `params` or `grads` are not those the optimizer was made for, or a copy from the device fails.
    pub fn step(&mut self, params: &Params, grads: &[Option<Tensor>], lr_factor: f64, grad_scale: f64) -> Result<()> {
        let n = params.trainable().count();
        if n != self.slots.len() || grads.len() != n {
            let (slots, grads) = (self.slots.len(), grads.len());
            let message = format!("the optimizer has {slots} parameters, the model {n} and the gradients {grads}");
            return Err(Error::invalid(message));
        }
        for (((name, p), slot), g) in params.trainable().zip(&self.slots).zip(grads) {
            let fits = name == slot.name && p.size() == slot.shape;
            if !fits || g.as_ref().is_some_and(|g| g.size() != slot.shape) {
                return Err(Error::invalid(format!(
                    "the optimizer expects `{}` {:?}, got `{name}` {:?} with a gradient {:?}",
                    slot.name,
                    slot.shape,
                    p.size(),
                    g.as_ref().map(Tensor::size)
                )));
            }
        }
        no_grad(|| {
            for (i, (_, p)) in params.trainable().enumerate() {
                let Some(g) = &grads[i] else { continue };
                self.slots[i].steps += 1;
                let slot = &self.slots[i];
                let lr = self.config.lr * lr_factor * slot.lr_scale;
                let c = self.config.coefficients(lr, slot.weight_decay, grad_scale, slot.steps);
                let plain = |t: &Tensor| t.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous();
                let (mut weight, g) = (plain(p)?, plain(g)?);
                self.update(i, &mut weight, &g, &c);
                // For contiguous f32 on the CPU `weight` is the parameter's own memory.
                if weight.data_ptr() != p.data_ptr() {
                    p.shallow_clone().f_copy_(&weight)?;
                }
            }
            Ok(())
        })
    }

    /// Updates contiguous f32 CPU memory.
    fn update(&mut self, i: usize, weight: &mut Tensor, grad: &Tensor, c: &Coefficients) {
        // The weights are written here only.
        let (w, g) = (raw::slice_mut::<f32>(weight), raw::slice::<f32>(grad));
        match &mut self.slots[i].moments {
            Moments::Full(m, v) => update_block(w, g, m, v, c),
            Moments::Eight { m, v, m_max, v_max } => {
                let (signed, unsigned) = (&self.signed, &self.unsigned);
                let [m, v] = [m, v].map(|codes| parallel::SendPtr(codes.as_mut_ptr()));
                let [m_max, v_max] = [m_max, v_max].map(|scales| parallel::SendPtr(scales.as_mut_ptr()));
                parallel::for_each_chunk(w, BLOCK, |block, w| {
                    let (start, len) = (block * BLOCK, w.len());
                    // SAFETY: block number `block` of each buffer belongs to this call only.
                    let (m, v, m_max, v_max) = unsafe {
                        (
                            std::slice::from_raw_parts_mut(m.at(start), len),
                            std::slice::from_raw_parts_mut(v.at(start), len),
                            &mut *m_max.at(block),
                            &mut *v_max.at(block),
                        )
                    };
                    let (mut first, mut second) = ([0f32; BLOCK], [0f32; BLOCK]);
                    let (first, second) = (&mut first[..len], &mut second[..len]);
                    for j in 0..len {
                        first[j] = signed.value(m[j]) * *m_max;
                        second[j] = unsigned.value(v[j]) * *v_max;
                    }
                    update_block(w, &g[start..start + len], first, second, c);
                    *m_max = quantise(first, m, signed, false);
                    *v_max = quantise(second, v, unsigned, true);
                });
            }
        }
    }

    /// The state by name: for each parameter `<p>` either `exp_avg.<p>` and `exp_avg_sq.<p>` in f32, or the codes
    /// `exp_avg.code.<p>`, `exp_avg_sq.code.<p>` in u8 with the scales `exp_avg.absmax.<p>`, `exp_avg_sq.absmax.<p>`;
    /// and `step.<p>`. Copies.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for slot in &self.slots {
            let p = &slot.name;
            match &slot.moments {
                Moments::Full(m, v) => {
                    state.insert(format!("exp_avg.{p}"), Tensor::f_from_slice(m)?.f_view(slot.shape.as_slice())?);
                    state.insert(format!("exp_avg_sq.{p}"), Tensor::f_from_slice(v)?.f_view(slot.shape.as_slice())?);
                }
                Moments::Eight { m, v, m_max, v_max } => {
                    state.insert(format!("exp_avg.code.{p}"), Tensor::f_from_slice(m)?);
                    state.insert(format!("exp_avg_sq.code.{p}"), Tensor::f_from_slice(v)?);
                    state.insert(format!("exp_avg.absmax.{p}"), Tensor::f_from_slice(m_max)?);
                    state.insert(format!("exp_avg_sq.absmax.{p}"), Tensor::f_from_slice(v_max)?);
                }
            }
            state.insert(format!("step.{p}"), Tensor::f_from_slice(&[slot.steps])?);
        }
        Ok(state)
    }

    /// Continues from a saved state.
    ///
    /// # Errors
    /// When names, shapes or types differ: one message lists all; nothing is changed then.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let want = self.state()?;
        let mut lines = Vec::new();
        for (name, tensor) in &want {
            let is = |t: &Tensor| format!("{:?} {:?}", t.kind(), t.size());
            match state.get(name).map(is) {
                None => lines.push(format!("missing tensor `{name}`, {}", is(tensor))),
                Some(got) if got != is(tensor) => {
                    lines.push(format!("tensor `{name}` is {got}, wanted {}", is(tensor)))
                }
                Some(_) => {}
            }
        }
        lines.extend(
            state.keys().filter(|name| !want.contains_key(*name)).map(|name| format!("unexpected tensor `{name}`")),
        );
        if !lines.is_empty() {
            return Err(Error::Invalid {
                message: format!("the 8-bit optimizer state does not fit the model:\n  {}", lines.join("\n  ")),
                hint: Some("it was saved with other model or optimizer settings; see their config.yaml".into()),
            });
        }
        for slot in &mut self.slots {
            let p = &slot.name;
            let get = |what: &str| state[&format!("{what}.{p}")].f_reshape(-1);
            match &mut slot.moments {
                Moments::Full(m, v) => {
                    *m = Vec::try_from(get("exp_avg")?)?;
                    *v = Vec::try_from(get("exp_avg_sq")?)?;
                }
                Moments::Eight { m, v, m_max, v_max } => {
                    *m = Vec::try_from(get("exp_avg.code")?)?;
                    *v = Vec::try_from(get("exp_avg_sq.code")?)?;
                    *m_max = Vec::try_from(get("exp_avg.absmax")?)?;
                    *v_max = Vec::try_from(get("exp_avg_sq.absmax")?)?;
                }
            }
            slot.steps = get("step")?.f_int64_value(&[0])?;
        }
        Ok(())
    }
}

fn update_block(w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], c: &Coefficients) {
    let (scale, l2, keep) = (c.grad_scale as f32, c.l2 as f32, c.keep as f32);
    let (lerp, beta2, square) = ((1.0 - c.beta1) as f32, c.beta2 as f32, (1.0 - c.beta2) as f32);
    let (eps, step_size, bias2_sqrt) = (c.eps as f32, c.step_size as f32, c.bias2_sqrt as f32);
    for (((w, &g), m), v) in w.iter_mut().zip(g).zip(m.iter_mut()).zip(v.iter_mut()) {
        let g = g * scale + l2 * *w;
        *m += lerp * (g - *m);
        *v = *v * beta2 + square * g * g;
        *w = (*w - step_size * *m / (v.sqrt() / bias2_sqrt + eps)) * keep;
    }
}

/// Writes the codes of `x` over its largest absolute value, which is returned.
fn quantise(x: &[f32], codes: &mut [u8], map: &DynamicMap, keep_positive: bool) -> f32 {
    let max = x.iter().fold(0f32, |max, x| max.max(x.abs()));
    // Below that the quotient would overflow; such a block is as good as 0.
    let inverse = if max > f32::MIN_POSITIVE { 1.0 / max } else { 0.0 };
    for (code, &x) in codes.iter_mut().zip(x) {
        *code = map.code(x * inverse);
        if keep_positive && x > 0.0 && *code == 0 {
            *code = 1;
        }
    }
    if inverse > 0.0 { max } else { 0.0 }
}

#[cfg(test)]
mod tests;

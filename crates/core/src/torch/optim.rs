use std::collections::BTreeMap; use tch::Tensor; use crate::Result; use super::{Params, schedule::ScheduleConfig};
pub enum OptimName { Adam, AdamW }
pub struct OptimConfig { pub name: OptimName, pub lr: f64, pub betas: [f64; 2], pub eps: f64, pub weight_decay: f64, pub clip_norm: Option<f64>, pub schedule: ScheduleConfig }
/// Parameters whose name starts with one of `prefixes` (first matching group wins; the last group may have "" = rest)
pub struct Group { pub prefixes: Vec<String>, pub lr_scale: f64, pub weight_decay: f64 }
pub struct Optimizer;
impl Optimizer {
    pub fn new(config: &OptimConfig, params: &Params) -> Result<Self> { unimplemented!() }
    pub fn with_groups(config: &OptimConfig, params: &Params, groups: &[Group]) -> Result<Self> { unimplemented!() }
    /// grads in the order of params.trainable(); None = untouched. Each gradient is multiplied by grad_scale on the way.
    pub fn step(&mut self, params: &Params, grads: &[Option<Tensor>], lr_factor: f64, grad_scale: f64) -> Result<()> { unimplemented!() }
    pub fn state(&self) -> BTreeMap<String, Tensor> { unimplemented!() }
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> { unimplemented!() }
    pub fn lr(&self) -> f64 { unimplemented!() }
}

use std::{collections::BTreeMap, path::{Path, PathBuf}, time::Instant}; use serde::Serialize; use tch::Tensor; use crate::Result; use super::{Optimizer, Params};
/// Put it under the key `data` of the state you save: `Saved::check_data` compares it.
pub struct DataIdentity { pub dataset: String, pub data_hash: String, pub items_hash: String }
pub struct Checkpoints;
impl Checkpoints {
    pub fn new(folder: impl Into<PathBuf>, keep: usize) -> Result<Self> { unimplemented!() }
    pub fn save(&mut self, step: u64, params: &Params, optimizer: &Optimizer, state: &impl Serialize, best: bool) -> Result<PathBuf> { unimplemented!() }
    pub fn latest_valid(&self, note: impl FnMut(&str)) -> Result<Option<Saved>> { unimplemented!() }
    pub fn best(&self) -> Result<Option<Saved>> { unimplemented!() }
    pub fn load(&self, step: u64) -> Result<Saved> { unimplemented!() }
}
pub struct Saved { pub path: PathBuf, pub step: u64, pub state: serde_json::Value, pub model: BTreeMap<String, Tensor>, pub optim: BTreeMap<String, Tensor> }
impl Saved {
    pub fn check_data(&self, now: &DataIdentity) -> Result<()> { unimplemented!() }
    pub fn restore(&self, params: &Params, optimizer: &mut Optimizer) -> Result<()> { unimplemented!() }
    pub fn state<T: serde::de::DeserializeOwned>(&self) -> Result<T> { unimplemented!() }
}
pub struct Due;
impl Due {
    pub fn new(every_steps: Option<u64>, every_minutes: Option<f64>, now: Instant) -> Self { unimplemented!() }
    pub fn is_due(&self, step: u64, now: Instant) -> bool { unimplemented!() }
    pub fn saved(&mut self, step: u64, now: Instant) { unimplemented!() }
}

use tch::{Device, Kind}; use crate::Result;
/// serde from the strings auto | cpu | cuda | cuda:N
pub enum DeviceChoice { Auto, Cpu, Cuda(Option<usize>) }
pub struct Chosen { pub device: Device, pub why: String }
impl DeviceChoice { pub fn choose(&self) -> Result<Chosen> { unimplemented!() } }
/// serde float32 | bfloat16
pub enum Dtype { Float32, Bfloat16 }
impl Dtype { pub fn kind(self) -> Kind { unimplemented!() } }
/// 0 = all cores; returns what was set, in words
pub fn set_threads(threads: usize) -> Result<String> { unimplemented!() }
/// for run.yaml
pub fn describe() -> serde_json::Value { unimplemented!() }

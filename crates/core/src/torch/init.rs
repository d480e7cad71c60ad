use tch::Tensor; use crate::Result;
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init { Zeros, Ones, Constant(f32), Uniform { bound: f64 }, Normal { std: f64 }, TruncNormal { std: f64 }, XavierUniform, XavierNormal, /// torch.nn.Linear / Conv weight
    KaimingUniform }
impl Init {
    /// bias of Linear/Conv: U(±1/√fan_in)
    pub fn bias(fan_in: i64) -> Self { Init::Uniform { bound: 1.0 / (fan_in as f64).sqrt() } }
    /// GRU: U(±1/√hidden)
    pub fn gru(hidden: i64) -> Self { Init::Uniform { bound: 1.0 / (hidden as f64).sqrt() } }
    pub fn tensor(self, name: &str, shape: &[i64], seed: u64) -> Result<Tensor> { unimplemented!() }
}

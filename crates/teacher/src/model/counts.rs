//! How many parameters a teacher would have, from configurations alone.

use anyo_core::{Result, torch::Params};
use anyo_lm::LmConfig;
use serde::Serialize;
use tch::Device;

use crate::{config::TeacherConfig, gate::Gate, projector::Projector};

/// Parameters of the parts that training adds to a language model (without the scoring head, which hangs on the catalogue).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Adapted linears.
    pub linears: u64,
    /// In the adapters.
    pub lora: u64,
    /// In the gate.
    pub gate: u64,
    /// In the projector.
    pub projector: u64,
}

impl Counts {
    /// Counts for a language model of this configuration and an encoder of width `d`; nothing large is allocated.
    ///
    /// # Errors
    /// When `lora.targets` match no linear, or the gate does not fit the width.
    pub fn new(config: &TeacherConfig, lm: &LmConfig, d: i64) -> Result<Self> {
        let (mut linears, mut lora) = (0, 0);
        if let Some(part) = &config.lora {
            let tensors = lm.tensors();
            let matrices: Vec<(&str, i64)> = tensors
                .iter()
                .filter(|(name, shape)| shape.len() == 2 && !name.starts_with("model.embed_tokens"))
                .filter_map(|(name, shape)| Some((name.strip_suffix(".weight")?, shape.iter().sum())))
                .collect();
            let names: Vec<&str> = matrices.iter().map(|(name, _)| *name).collect();
            for i in part.targets.choose(&names)? {
                linears += 1;
                lora += (part.rank * matrices[i].1) as u64;
            }
        }
        let mut params = Params::new(Device::Cpu);
        if let Some(gate) = &config.gate {
            let _ = Gate::new(gate, d, &mut params, 0)?;
        }
        let projector = if config.injection { Projector::n_parameters(d as u64, lm.hidden_size as u64) } else { 0 };
        Ok(Self { linears, lora, gate: params.n_parameters() as u64, projector })
    }
}

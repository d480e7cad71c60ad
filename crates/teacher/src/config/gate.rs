//! Configuration of the gate; the defaults and their reasons stand in `conf/teacher/*.yaml`.

use anyo_core::config::{Check, Problem, Ranges};
use serde::{Deserialize, Serialize};

/// `teacher.gate:`: how each row's experts are weighed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateConfig {
    /// The form.
    pub name: GateName,
    /// Number of experts E, at least 1; divides `teacher.lora.rank`.
    pub experts: i64,
    /// Experts that `topk` keeps, 1 to E.
    pub top_k: i64,
    /// `topk`: softmax over the kept probabilities once more, as the released code has it.
    pub legacy_softmax: bool,
    /// Inner width of `mlp`.
    pub hidden: i64,
    /// Standard deviation of what `noisy` adds to the logits in training.
    pub noise: f64,
    /// The norm inside `resnet1d`.
    pub norm: GateNorm,
    /// Weight of the load-balance term in the training loss; 0 leaves it out.
    pub load_balance: f64,
}

/// The form of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateName {
    /// `softmax(W h)`.
    Linear,
    /// The largest of `softmax(W h)`, scaled to sum 1.
    Topk,
    /// `softmax(W2 gelu(W1 h + b1) + b2)`.
    Mlp,
    /// `softmax(W h + noise)`, the noise in training only.
    Noisy,
    /// The one-dimensional ResNet of the released code.
    Resnet1d,
    /// Control: 1/E for every row, which makes the adapter a plain LoRA.
    Uniform,
    /// Control: for each history other weights, drawn once.
    Random,
    /// Control: the best expert alone; the gradient is that of the softmax.
    Top1,
}

/// The norm inside `resnet1d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateNorm {
    /// Batch norm, as released: in training each row's gate depends on the others of its micro-batch.
    Batch,
    /// Group norm with 8 groups: rows stay independent.
    Group,
}

impl GateName {
    /// Whether it has weights to learn.
    pub fn learns(self) -> bool {
        !matches!(self, Self::Uniform | Self::Random)
    }
}

impl Check for GateConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut list = Ranges::default();
        list.at_least("experts", self.experts as f64, 1.0);
        if self.name == GateName::Topk && !(1..=self.experts).contains(&self.top_k) {
            list.push("top_k", format!("wanted 1 to {} experts, got {}", self.experts, self.top_k));
        }
        list.at_least("hidden", self.hidden as f64, 1.0);
        list.not_negative("noise", self.noise);
        list.not_negative("load_balance", self.load_balance);
        if self.load_balance > 0.0 && !self.name.learns() {
            list.push("load_balance", "this gate has nothing to learn: wanted 0".into());
        }
        list.0
    }
}

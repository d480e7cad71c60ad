//! A linear layer of a language model: a frozen base and, on top of it, adapters.

use tch::Tensor;

use crate::pass::Pass;

/// `y = x W^T + b`, plus what its adapters add.
#[derive(Debug)]
pub struct Linear {
    name: String,
    weight: Tensor, // [out, in]
    bias: Option<Tensor>,
}

impl Linear {
    /// A dense layer; `name` is that of the checkpoint without `.weight`, such as `model.layers.0.self_attn.q_proj`.
    pub fn new(name: impl Into<String>, weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { name: name.into(), weight, bias }
    }

    /// Name in the checkpoint, without `.weight`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The base's weight, `[out, in]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The base's bias, `[out]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// x `[.., in]` → `[.., out]`.
    pub fn forward(&self, x: &Tensor, _pass: &Pass<'_>) -> Tensor {
        x.linear(&self.weight, self.bias.as_ref())
    }
}

//! Quantised frozen weights: int8 and NF4, and what they cost in accuracy.
//!
//! A layer on a quantised weight computes with the dequantised one in the type of its activations. libtorch's C
//! interface has no autograd function of one's own, so what the backward pass needs must be a tensor of the graph: when
//! gradients flow to x, the dense weight made for the forward pass stays alive until the backward pass has passed the
//! layer. Without [`crate::Pass::checkpointing`] a training step therefore holds the dense weights of all layers in the
//! activations' type at its peak, and quantisation saves nothing there over a dense base of that type. With it, one
//! layer's at a time. Without gradients no dense weight outlives its layer, and for few rows on the CPU
//! (cached decoding) none is made at all.

mod dynamic_map;
mod int8;
mod kernel;
mod nf4;
mod report;

use anyo_core::Result;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::dense;

pub use dynamic_map::DynamicMap;
pub use int8::Int8Weight;
pub use nf4::{BLOCK, CODE, Nf4Weight};
pub use report::{QuantRow, compare, report};

/// How to store a frozen weight.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quant {
    /// Eight bits, one scale per row.
    Int8 {
        /// From where on an activation is an outlier; 6.0 in LLM.int8; `None`: activations are not rounded.
        threshold: Option<f64>,
    },
    /// Four bits, one scale per 64 weights.
    Nf4 {
        /// Whether the scales take 8 bits.
        double: bool,
    },
}

impl Quant {
    /// LLM.int8 with its usual threshold.
    pub const INT8: Self = Self::Int8 { threshold: Some(6.0) };
    /// NF4 with double quantisation.
    pub const NF4: Self = Self::Nf4 { double: true };
}

/// The weight of a linear layer, `[out, in]`.
#[derive(Debug)]
pub enum Base {
    /// As it is; a product with activations of another float type casts it first, so gradients keep its own type.
    Dense(Tensor),
    /// Eight bits.
    Int8(Int8Weight),
    /// Four bits.
    Nf4(Nf4Weight),
}

impl Base {
    /// Quantises `weight` `[out, in]`.
    ///
    /// # Errors
    /// When it is no matrix, holds NaN or infinity, or memory does not suffice.
    pub fn quantize(weight: &Tensor, quant: Quant) -> Result<Self> {
        Ok(match quant {
            Quant::Int8 { threshold } => Self::Int8(Int8Weight::quantize(weight, threshold)?),
            Quant::Nf4 { double } => Self::Nf4(Nf4Weight::quantize(weight, double)?),
        })
    }

    /// `(out, in)`.
    pub fn shape(&self) -> (i64, i64) {
        match self {
            Self::Dense(weight) => weight.size2().unwrap_or_default(),
            Self::Int8(weight) => weight.shape(),
            Self::Nf4(weight) => weight.shape(),
        }
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Dense(weight) => weight.numel() * weight.kind().elt_size_in_bytes(),
            Self::Int8(weight) => weight.bytes(),
            Self::Nf4(weight) => weight.bytes(),
        }
    }

    /// Where it lies.
    pub fn device(&self) -> Device {
        match self {
            Self::Dense(weight) => weight.device(),
            Self::Int8(weight) => weight.device(),
            Self::Nf4(weight) => weight.device(),
        }
    }

    /// The weights as used, `[out, in]` of type `kind`; a dense one of that type is not copied.
    pub fn dense(&self, kind: Kind) -> Tensor {
        match self {
            Self::Dense(weight) => weight.to_kind(kind),
            Self::Int8(weight) => weight.dequantize(kind),
            Self::Nf4(weight) => weight.dequantize(kind),
        }
    }

    /// `x W^T + b`, x `[N, in]` → `[N, out]` of x's type.
    pub fn forward(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        if let Self::Dense(weight) = self {
            return dense::linear(x, weight, bias);
        }
        let kind = x.kind();
        let x = &match self {
            Self::Int8(weight) => weight.activations(x),
            _ => x.shallow_clone(),
        };
        let bias = bias.map(|bias| bias.to_kind(kind));
        match self.multiply_few(x) {
            Some(y) => {
                let y = y.to_kind(kind);
                match bias {
                    Some(bias) => y + bias,
                    None => y,
                }
            }
            None => x.linear(&self.dense(kind), bias),
        }
    }

    /// The product while unpacking, where that is possible and faster: few rows on the CPU without gradients.
    fn multiply_few(&self, x: &Tensor) -> Option<Tensor> {
        /// Unpacking costs about as much as this many dot products.
        const FEW: i64 = 8;
        let rows = x.size()[0];
        if x.device() != Device::Cpu || rows > FEW || rows == 0 || x.requires_grad() {
            return None;
        }
        let multiply = |f: &dyn Fn(&Tensor) -> Option<Tensor>| f(&x.to_kind(Kind::Float).contiguous());
        match self {
            Self::Dense(_) => None,
            Self::Int8(weight) => multiply(&|x| weight.multiply(x)),
            Self::Nf4(weight) => multiply(&|x| weight.multiply(x)),
        }
    }
}

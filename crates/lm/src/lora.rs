//! LoRA: a frozen linear layer plus a trained product of two narrow matrices (Hu et al., 2021).

use anyo_core::{
    Result,
    torch::{Init, Params},
};
use tch::Tensor;

use crate::pass::Pass;

/// What a low-rank adapter adds: `scale · Dropout(x) A^T B^T`.
///
/// A and B are f32 whatever the base's type, and the product is computed in f32, as PEFT does.
#[derive(Debug)]
pub struct Lora {
    pub(crate) a: Tensor, // [R, in]
    pub(crate) b: Tensor, // [out, R]
    pub(crate) scale: f64,
    pub(crate) dropout: f64,
}

/// Numbers of one adapter that do not depend on the layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LoraShape {
    pub(crate) rank: i64,
    pub(crate) scale: f64,
    pub(crate) dropout: f64,
}

/// Name of a parameter of an adapter on the layer `linear`, `which` being `lora_A` or `lora_B`: as in PEFT's files, with
/// the adapter's name in it unless that is `default`.
pub(crate) fn parameter_name(linear: &str, which: &str, adapter: &str) -> String {
    match adapter {
        "default" => format!("base_model.model.{linear}.{which}.weight"),
        other => format!("base_model.model.{linear}.{which}.{other}.weight"),
    }
}

impl Lora {
    /// A new adapter whose parameters live in `params`: A as `kaiming_uniform_(a=√5)`, B zero, so it adds nothing yet.
    pub(crate) fn create(
        linear: &str,
        (n_out, n_in): (i64, i64),
        adapter: &str,
        shape: LoraShape,
        params: &mut Params,
        seed: u64,
    ) -> Result<Self> {
        let LoraShape { rank, scale, dropout } = shape;
        let a = params.create(parameter_name(linear, "lora_A", adapter), &[rank, n_in], Init::KaimingUniform, seed)?;
        let b = params.create(parameter_name(linear, "lora_B", adapter), &[n_out, rank], Init::Zeros, seed)?;
        Ok(Self { a, b, scale, dropout })
    }

    /// Rank R.
    pub fn rank(&self) -> i64 {
        self.a.size()[0]
    }

    /// Factor of `x A^T B^T`: alpha / R, alpha / √R for rsLoRA, alpha / k for a gated adapter.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Down projection `[R, in]`.
    pub fn a(&self) -> &Tensor {
        &self.a
    }

    /// Up projection `[out, R]`.
    pub fn b(&self) -> &Tensor {
        &self.b
    }

    /// What it adds to the weight, `scale · B A` `[out, in]` in f32, without a gradient.
    pub fn weight_delta(&self) -> Tensor {
        tch::no_grad(|| self.b.matmul(&(&self.a * self.scale)))
    }

    /// y `[N, out]` plus what the adapter adds for x `[N, in]`. `gate` multiplies the R inner numbers, `[N, R]` or what
    /// broadcasts to it, with the scale already in it.
    pub(crate) fn add_to(&self, y: Tensor, x: &Tensor, gate: Option<&Tensor>, pass: &Pass<'_>) -> Tensor {
        let kind = self.a.kind();
        let x = x.to_kind(kind);
        let x = match &pass.dropout {
            Some(stream) if self.dropout > 0.0 => match pass.rows {
                Some(rows) => &x * stream.mask_rows(&x, rows, self.dropout),
                None => &x * stream.mask(&x, self.dropout),
            },
            _ => x,
        };
        let inner = x.linear(&self.a, None::<&Tensor>); // [N, R]
        let inner = match gate {
            Some(gate) => inner * gate,
            None => inner * self.scale,
        };
        // Into the base's fresh output, or its copy in f32: no backward pass needs that, and a tensor of its size is saved.
        let y_kind = y.kind();
        let mut sum = y.to_kind(kind);
        sum.addmm_(&inner, &self.b.tr()).to_kind(y_kind)
    }
}

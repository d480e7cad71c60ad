//! Gated LoRA: experts share one pair of matrices, and a gate given with each row weighs them (iLoRA, Kong et al., 2024).
//!
//! `y = W x + b + (alpha / k) · (repeat(gate, k) ⊙ (Dropout(x) A^T)) B^T`: of the rank R = E·k, expert e owns the rows
//! `[e·k, (e+1)·k)` of A and the same columns of B. A uniform gate 1/E makes it a plain LoRA with scale alpha / R.
//!
//! Differs: the original contracts each expert with B before it weighs them, which needs `[B,S,E,out]`; weighing the
//! inner numbers is the same sum. It also hands the gate over in a shared list; here it is an argument of the pass.

use anyo_core::{Error, Result, torch::dims};
use tch::Tensor;

use crate::{linear::Linear, lora::Lora, pass::Pass};

/// A low-rank adapter whose rank is split among experts.
#[derive(Debug)]
pub struct GatedLora {
    pub(crate) lora: Lora, // its scale is alpha / k
    pub(crate) n_experts: i64,
}

impl GatedLora {
    /// Number of experts E.
    pub fn n_experts(&self) -> i64 {
        self.n_experts
    }

    /// The matrices of all experts; the scale is alpha / k.
    pub fn lora(&self) -> &Lora {
        &self.lora
    }

    /// What it adds to the weight for one row's gate `[E]`: `(alpha / k) · B diag(repeat(gate, k)) A`, `[out, in]`.
    ///
    /// # Errors
    /// When the gate has another shape.
    pub fn weight_delta(&self, gate: &Tensor) -> Result<Tensor> {
        let [n] = dims("gate", gate, ["E"])?;
        if n != self.n_experts {
            return Err(Error::invalid(format!("the gate must have {} experts, got {n}", self.n_experts)));
        }
        Ok(tch::no_grad(|| {
            let gate = self.spread(&gate.unsqueeze(0));
            (&self.lora.b * gate).matmul(&self.lora.a)
        }))
    }

    /// y `[N, out]` plus the adapter's part for x `[N, in]`, N = B·S, with the gate `[B, E]`.
    ///
    /// # Panics
    /// When [`check_gate`] would have refused the gate.
    pub(crate) fn add_to(&self, y: Tensor, x: &Tensor, pass: &Pass<'_>) -> Tensor {
        let Some(gate) = pass.gate else {
            panic!("a gated adapter needs Pass::gate; check_gate finds this before a pass");
        };
        let (n, rows) = (x.size()[0], gate.size()[0].max(1));
        let positions = n / rows;
        // [B, R] → [B·S, R]
        let spread = self.spread(gate).unsqueeze(1).expand([rows, positions, -1], false).reshape([n, -1]);
        self.lora.add_to(y, x, Some(&spread), pass)
    }

    /// `scale · repeat(gate, k)`: `[B, E]` → `[B, R]` in the adapter's type.
    fn spread(&self, gate: &Tensor) -> Tensor {
        let k = self.lora.rank() / self.n_experts;
        gate.to_kind(self.lora.a.kind()).repeat_interleave_self_int(k, 1, None) * self.lora.scale
    }
}

/// Whether the gate of `pass` fits every gated adapter on `linears` and `rows` rows of input; to be called once before a
/// pass, whose layers then rely on it. Nothing is wrong where no layer has a gated adapter or the pass leaves adapters out.
///
/// # Errors
/// When a gate is needed and missing, or its shape, type or device does not fit.
pub fn check_gate<'a>(linears: impl IntoIterator<Item = &'a Linear>, pass: &Pass<'_>, rows: i64) -> Result<()> {
    if pass.base_only {
        return Ok(());
    }
    for linear in linears {
        for gated in linear.active_gated() {
            let experts = gated.n_experts;
            let wanted = format!(
                "layer `{}` has a gated adapter, which needs a gate [B,E] = [{rows}, {experts}]",
                linear.name()
            );
            let refuse = |got: String| Error::Invalid {
                message: format!("{wanted}; {got}"),
                hint: Some("give each row's expert weights as Pass::gate, or set Pass::base_only".into()),
            };
            let Some(gate) = pass.gate else { return Err(refuse("none was given".into())) };
            if gate.size() != [rows, experts] {
                return Err(refuse(format!("got the shape {:?}", gate.size())));
            }
            if !gate.is_floating_point() {
                return Err(refuse(format!("got numbers of type {:?}", gate.kind())));
            }
            if gate.device() != linear.device() {
                return Err(refuse(format!("got one on {:?}, the layer is on {:?}", gate.device(), linear.device())));
            }
        }
    }
    Ok(())
}

//! What quantisation costs: errors of each layer against its unquantised weight.

use anyo_core::{Error, Result, torch::Init};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::{Base, Quant};
use crate::linear::Linear;

/// Errors of one linear layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuantRow {
    /// The layer's name in the checkpoint.
    pub name: String,
    /// How it was quantised.
    pub quant: Quant,
    /// Rows of the weight.
    pub out_features: i64,
    /// Columns of the weight.
    pub in_features: i64,
    /// Largest absolute difference of a weight.
    pub max_abs: f64,
    /// Root mean square of the weights' differences over that of the weights.
    pub relative_rmse: f64,
    /// The same of the outputs, for the given activations or normal random ones.
    pub output_relative_rmse: f64,
    /// Bytes before.
    pub bytes_before: usize,
    /// Bytes after.
    pub bytes_after: usize,
}

/// Quantises `weight` `[out, in]` and compares. `activations` `[.., in]` are inputs of the layer; without them 64 rows
/// of normal random numbers that depend on `name` alone.
///
/// # Errors
/// When the weight cannot be quantised or the activations do not fit it.
pub fn compare(name: &str, weight: &Tensor, quant: Quant, activations: Option<&Tensor>) -> Result<QuantRow> {
    let _guard = tch::no_grad_guard();
    let base = Base::quantize(weight, quant).map_err(|error| match error {
        Error::Invalid { message, hint } => Error::Invalid { message: format!("`{name}`: {message}"), hint },
        other => other,
    })?;
    let (out_features, in_features) = base.shape();
    let exact = weight.f_to_kind(Kind::Float)?;
    let difference = base.dense(Kind::Float) - &exact;
    let x = match activations {
        Some(x) if x.size().last() == Some(&in_features) => x.f_reshape([-1, in_features])?.f_to_kind(Kind::Float)?,
        Some(x) => {
            let message =
                format!("activations of `{name}` must have {in_features} features, got the shape {:?}", x.size());
            return Err(Error::invalid(message));
        }
        None => Init::Normal { std: 1.0 }.tensor(name, &[64, in_features], 0)?.f_to_device(weight.device())?,
    };
    let wanted = x.f_linear(&exact, None::<&Tensor>)?;
    Ok(QuantRow {
        name: name.to_owned(),
        quant,
        out_features,
        in_features,
        max_abs: if difference.numel() == 0 { 0.0 } else { difference.abs().max().double_value(&[]) },
        relative_rmse: ratio(&difference, &exact),
        output_relative_rmse: ratio(&(base.forward(&x, None) - &wanted), &wanted),
        bytes_before: weight.numel() * weight.kind().elt_size_in_bytes(),
        bytes_after: base.bytes(),
    })
}

/// One row for each dense layer; the layers stay as they are. Quantised ones are left out: their exact weights are gone.
///
/// # Errors
/// As [`compare`].
pub fn report<'a>(linears: impl IntoIterator<Item = &'a Linear>, quant: Quant) -> Result<Vec<QuantRow>> {
    let dense = linears.into_iter().filter_map(|linear| Some((linear.name(), linear.weight()?)));
    dense.map(|(name, weight)| compare(name, weight, quant, None)).collect()
}

fn ratio(difference: &Tensor, of: &Tensor) -> f64 {
    let norm = |x: &Tensor| x.to_kind(Kind::Double).square().sum(Kind::Double).double_value(&[]).sqrt();
    let of = norm(of);
    if of > 0.0 { norm(difference) / of } else { 0.0 }
}

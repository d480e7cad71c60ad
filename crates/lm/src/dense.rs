//! Products with dense weights on the CPU that libtorch does slowly.
//!
//! Three cases are taken out of its hands, everything else stays with it:
//! - one new place of few rows, without gradients (cached decoding): the weights are read once, by all threads ([`few_rows`]);
//! - bf16 on processors without bf16 arithmetic, where libtorch falls back to plain loops: weights are widened a
//!   block at a time and multiplied in f32, the result is rounded once ([`wide`]);
//! - the same with gradients: the widened weight is part of the graph until the backward pass has passed it.

mod few_rows;
pub(crate) mod wide;

use tch::{Device, Kind, Tensor};

/// `x W^T + b` for each weight and bias in one loop over the weights, x `[N, in]`, W `[out, in]` of x's type; results
/// `[N, out]` of x's type. `None` where it is not the faster way, or a weight is missing.
pub(crate) fn few<const L: usize>(
    x: &Tensor,
    weights: [Option<&Tensor>; L],
    biases: [Option<&Tensor>; L],
) -> Option<[Tensor; L]> {
    let mut products = few_rows::multiply(x, weights)?;
    for (y, bias) in products.iter_mut().zip(biases) {
        // In f32, before the one rounding.
        if let Some(bias) = bias {
            let _ = y.g_add_(bias);
        }
        if x.kind() != Kind::Float {
            *y = y.to_kind(x.kind());
        }
    }
    Some(products)
}

/// `x W^T + b`, x `[N, in]`, W `[out, in]` of x's type or another float type; result `[N, out]` of x's type.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let kind = x.kind();
    if kind != weight.kind() || !wide::wanted(weight) {
        let bias = bias.map(|bias| bias.to_kind(kind));
        return x.linear(&weight.to_kind(kind), bias);
    }
    if x.requires_grad() || weight.requires_grad() || bias.is_some_and(Tensor::requires_grad) {
        let bias = bias.map(|bias| bias.to_kind(Kind::Float));
        return x.to_kind(Kind::Float).linear(&weight.to_kind(Kind::Float), bias).to_kind(kind);
    }
    let y = wide::multiply(&x.to_kind(Kind::Float), weight);
    match bias {
        Some(bias) => (y + bias).to_kind(kind),
        None => y.to_kind(kind),
    }
}

/// Whether x of this shape `[B,S,D]` or `[B,D]` has one place per row, as a decode step; only such go to [`few`], so that
/// a pass over several places has the same bits with and without gradients.
pub(crate) fn single_place(shape: &[i64]) -> bool {
    match shape {
        [.., s, _] if shape.len() > 2 => *s == 1,
        _ => true,
    }
}

/// Whether the elements of `tensor` lie in a row in the memory of the CPU.
fn plain(tensor: &Tensor) -> bool {
    tensor.device() == Device::Cpu && tensor.is_contiguous()
}

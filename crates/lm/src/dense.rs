//! Products with dense weights on the CPU that libtorch does slowly.
//!
//! Three cases are taken out of its hands, everything else stays with it:
//! - one new place of few rows, without gradients (cached decoding): the weights are read once, by all threads ([`few_rows`]);
//! - bf16 on processors without bf16 arithmetic, where libtorch falls back to plain loops: weights are widened a
//!   block at a time and multiplied in f32, the result is rounded once ([`wide`]);
//! - the same with gradients: the widened weight is part of the graph until the backward pass has passed it.

mod few_rows;
mod tiles;
pub(crate) mod wide;

use half::bf16;
use tch::{Device, Kind, Tensor};

/// `x W^T + b` for each weight and bias in one loop over the weights, plus `residual` where there is one: x `[.., in]`,
/// W `[out, in]` and residual `[.., out]` of x's type; results `[.., out]` of that type. Sum and bias are rounded once, and
/// once more with the residual. `None` where it is not the faster way, or a weight is missing.
pub(crate) fn few<const L: usize>(
    x: &Tensor,
    weights: [Option<&Tensor>; L],
    biases: [Option<&Tensor>; L],
    residual: Option<&Tensor>,
) -> Option<[Tensor; L]> {
    few_rows::multiply(x, weights, biases, residual)
}

/// The nearest bf16, ties to even. Unlike [`bf16::from_f32`] it has no branch, so that loops over it use wide instructions.
#[inline(always)]
pub(crate) fn bf16_of(x: f32) -> bf16 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    bf16::from_bits(if x.is_nan() { 0x7fc0 } else { nearest as u16 })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_the_nearest_bf16() {
        let numbers = [0.0, -0.0, 1.0, 1.003_906_2, 1.011_718_8, -0.1, 3.0e-39, f32::MAX, f32::INFINITY, -7.7e20];
        for x in numbers {
            assert_eq!(bf16_of(x).to_bits(), bf16::from_f32(x).to_bits(), "{x}");
        }
        assert!(
            [f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(u32::MAX)].into_iter().all(|x| bf16_of(x).is_nan())
        );
    }
}

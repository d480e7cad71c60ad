//! Loops over the bytes of quantised weights on the CPU: unpack a whole matrix, or multiply with few rows while unpacking.
//!
//! The second form never writes the unpacked matrix to memory; it serves cached decoding, where reading the weights is
//! the cost.

use anyo_core::{
    best_of_machine,
    parallel::{SendPtr, for_each_chunk, for_each_part},
    torch::raw::{slice, slice_mut},
};
use tch::{Device, Kind, Tensor};

/// A number type that weights are unpacked to.
pub(super) trait Number: Copy + Send {
    /// The nearest number, ties to even; `x` is finite.
    fn of(x: f32) -> Self;
}

impl Number for f32 {
    #[inline(always)]
    fn of(x: f32) -> Self {
        x
    }
}

impl Number for half::bf16 {
    #[inline(always)]
    fn of(x: f32) -> Self {
        // Without the test for NaN of the library's form, which keeps the loop from being vectorised.
        let bits = x.to_bits();
        Self::from_bits(((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16)
    }
}

/// A quantised matrix that can be unpacked piece by piece.
pub(super) trait Packed: Sync {
    /// Writes elements `start..start + out.len()` of the row-major matrix to `out`; `start` is the first of a block where
    /// the format has blocks.
    fn unpack<T: Number>(&self, start: usize, out: &mut [T]);
}

/// The whole matrix `[rows, columns]` of type `kind`; f32 or bf16.
pub(super) fn unpack_all(packed: &impl Packed, rows: i64, columns: i64, kind: Kind) -> Tensor {
    let mut out =
        Tensor::empty([rows, columns], (if kind == Kind::BFloat16 { kind } else { Kind::Float }, Device::Cpu));
    if kind == Kind::BFloat16 {
        unpack_to::<half::bf16, _>(packed, slice_mut(&mut out));
    } else {
        unpack_to::<f32, _>(packed, slice_mut(&mut out));
    }
    out.to_kind(kind)
}

fn unpack_to<T: Number, P: Packed>(packed: &P, out: &mut [T]) {
    const PIECE: usize = 1 << 14;
    for_each_chunk(out, PIECE, |part, chunk| packed.unpack(part * PIECE, chunk));
}

/// `x W^T` for few rows: x `[N, in]`, result `[N, out]`, both contiguous f32 on the CPU.
pub(super) fn multiply<P: Packed>(packed: &P, x: &Tensor, n_out: usize, n_in: usize) -> Tensor {
    const ROWS: usize = 16;
    let rows = x.numel() / n_in.max(1);
    let mut out = Tensor::empty([rows as i64, n_out as i64], (Kind::Float, Device::Cpu));
    let (x, y) = (slice::<f32>(x), SendPtr(slice_mut::<f32>(&mut out).as_mut_ptr()));
    for_each_part(n_out.div_ceil(ROWS), |part| {
        let mut weights = vec![0f32; n_in];
        for o in part * ROWS..n_out.min((part + 1) * ROWS) {
            packed.unpack(o * n_in, &mut weights);
            for (row, x) in x.chunks_exact(n_in).enumerate() {
                // SAFETY: inside `out`, and no other part writes column `o`.
                unsafe { *y.at(row * n_out + o) = dot(x, &weights) };
            }
        }
    });
    out
}

best_of_machine! {
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        // Thirty-two running sums whatever the vector width: all machines add in the same order.
        const LANES: usize = 32;
        let mut sums = [0f32; LANES];
        let (a_blocks, b_blocks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        let rest: f32 = a_blocks.remainder().iter().zip(b_blocks.remainder()).map(|(a, b)| a * b).sum();
        for (a, b) in a_blocks.zip(b_blocks) {
            for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                *sum += a * b;
            }
        }
        sums.iter().sum::<f32>() + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_to_nearest_even() {
        for x in [0.0, 1.0, -1.5, 0.1, 1.003_906_2, 1.011_718_8, 3.0e-39, -7.7e20] {
            assert_eq!(<half::bf16 as Number>::of(x), half::bf16::from_f32(x), "{x}");
        }
    }

    #[test]
    fn dot_with_a_rest() {
        let a: Vec<f32> = (0..71).map(|i| i as f32).collect();
        assert_eq!(dot(&a, &a), (0..71).map(|i| (i * i) as f32).sum::<f32>());
    }
}

//! Norm and activation of a decode step on the CPU, each in one loop.
//!
//! libtorch takes some nine small operations for a norm in bf16; in a step of one place a row these cost more than their
//! arithmetic. Sums are f32, and each rounding of the general way is made here too.

use anyo_core::{best_of_machine, torch::raw, vecmath::exp};
use half::bf16;
use tch::{Device, Kind, Tensor, kind::Element};

use crate::dense::{bf16_of, single_place};

/// From more elements on libtorch's threads are worth their start.
const MOST: usize = 1 << 16;
const LANES: usize = 16;

/// A float that is computed with in f32.
trait Number: Element + Copy {
    fn get(self) -> f32;
    fn put(value: f32) -> Self;
}

impl Number for f32 {
    #[inline(always)]
    fn get(self) -> f32 {
        self
    }

    #[inline(always)]
    fn put(value: f32) -> Self {
        value
    }
}

impl Number for bf16 {
    #[inline(always)]
    fn get(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn put(value: f32) -> Self {
        bf16_of(value)
    }
}

/// RMSNorm of x `[B,1,D]` with a weight `[D]` of x's type; `None` where it is not a decode step on the CPU.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Option<Tensor> {
    if !fits(x, weight) || x.size().last() != weight.size().last() || weight.dim() != 1 {
        return None;
    }
    Some(match x.kind() {
        Kind::Float => norm::<f32>(x, weight, eps as f32),
        _ => norm::<bf16>(x, weight, eps as f32),
    })
}

/// `silu(gate) · up` for two tensors `[B,1,F]`; `None` where it is not a decode step on the CPU.
pub(crate) fn silu_mul(gate: &Tensor, up: &Tensor) -> Option<Tensor> {
    if !fits(gate, up) || gate.size() != up.size() {
        return None;
    }
    Some(match gate.kind() {
        Kind::Float => swiglu::<f32>(gate, up),
        _ => swiglu::<bf16>(gate, up),
    })
}

fn fits(x: &Tensor, other: &Tensor) -> bool {
    let plain = |t: &Tensor| t.device() == Device::Cpu && t.is_contiguous() && !t.requires_grad();
    let size = x.size();
    matches!(x.kind(), Kind::Float | Kind::BFloat16)
        && x.kind() == other.kind()
        && size.len() == 3
        && single_place(&size)
        && (1..=MOST).contains(&x.numel())
        && plain(x)
        && plain(other)
}

fn norm<T: Number>(x: &Tensor, weight: &Tensor, eps: f32) -> Tensor {
    let mut out = x.empty_like();
    let weight = raw::slice::<T>(weight);
    let (rows, into) = (raw::slice::<T>(x), raw::slice_mut::<T>(&mut out));
    for (x, out) in rows.chunks_exact(weight.len()).zip(into.chunks_exact_mut(weight.len())) {
        norm_row::<T>(x, weight, eps, out);
    }
    out
}

fn swiglu<T: Number>(gate: &Tensor, up: &Tensor) -> Tensor {
    let mut out = gate.empty_like();
    swiglu_row::<T>(raw::slice(gate), raw::slice(up), raw::slice_mut(&mut out));
    out
}

best_of_machine! {
    /// One row: x / √(mean x² + ε), rounded, times the weight.
    fn norm_row<T: Number>(x: &[T], weight: &[T], eps: f32, out: &mut [T]) {
        let mut lanes = [0f32; LANES];
        let chunks = x.chunks_exact(LANES);
        let mut sum = 0f32;
        for &x in chunks.remainder() {
            sum += x.get() * x.get();
        }
        for chunk in chunks {
            for (lane, &x) in lanes.iter_mut().zip(chunk) {
                *lane = x.get().mul_add(x.get(), *lane);
            }
        }
        for lane in lanes {
            sum += lane;
        }
        let scale = 1.0 / (sum / x.len() as f32 + eps).sqrt();
        for ((out, &x), &weight) in out.iter_mut().zip(x).zip(weight) {
            *out = T::put(T::put(x.get() * scale).get() * weight.get());
        }
    }
}

best_of_machine! {
    /// `gate / (1 + e^-gate)`, rounded, times up.
    fn swiglu_row<T: Number>(gate: &[T], up: &[T], out: &mut [T]) {
        for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
            let x = gate.get();
            *out = T::put(T::put(x / (1.0 + exp(-x))).get() * up.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn randn(shape: &[i64], kind: Kind, seed: i64) -> Tensor {
        tch::manual_seed(seed);
        Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(kind)
    }

    /// Largest difference relative to max(1, |wanted|).
    fn apart(got: &Tensor, wanted: &Tensor) -> f64 {
        assert_eq!((got.size(), got.kind()), (wanted.size(), wanted.kind()));
        let (got, wanted) = (got.to_kind(Kind::Double), wanted.to_kind(Kind::Double));
        ((&got - &wanted).abs() / wanted.abs().clamp_min(1.0)).max().double_value(&[])
    }

    /// Against libtorch's own operations: f32 to rounding, bf16 to one unit in the last place.
    #[test]
    fn norm_and_activation_are_libtorchs() {
        for (kind, bound) in [(Kind::Float, 1e-6), (Kind::BFloat16, 8e-3)] {
            for d in [5, 16, 77, 768] {
                let (x, weight) = (randn(&[3, 1, d], kind, 1) * 3.0, randn(&[d], kind, 2));
                let wide = x.to_kind(Kind::Float).rms_norm([d], None::<&Tensor>, 1e-5).to_kind(kind) * &weight;
                assert!(apart(&rms_norm(&x, &weight, 1e-5).unwrap(), &wide) <= bound, "{kind:?} {d}");
                let up = randn(&[3, 1, d], kind, 3);
                let gate = &x * 5.0;
                assert!(apart(&silu_mul(&gate, &up).unwrap(), &(gate.silu() * &up)) <= bound, "{kind:?} {d}");
            }
        }
        let far = Tensor::from_slice(&[-200f32, 200.0, 0.0]).view([1, 1, 3]);
        let got = silu_mul(&far, &far.ones_like()).unwrap();
        assert_eq!(Vec::<f32>::try_from(got.view(-1)).unwrap()[1..], [200.0, 0.0]);
        assert!(
            silu_mul(&(far * f64::NAN), &Tensor::ones([1, 1, 3], (Kind::Float, Device::Cpu)))
                .unwrap()
                .isnan()
                .all()
                .int64_value(&[])
                == 1
        );
    }

    #[test]
    fn everything_else_is_left_to_libtorch() {
        let (x, weight) = (randn(&[2, 3, 8], Kind::Float, 1), randn(&[8], Kind::Float, 2));
        assert!(rms_norm(&x, &weight, 1e-5).is_none(), "several places");
        let x = randn(&[2, 1, 8], Kind::Float, 1);
        assert!(rms_norm(&x.set_requires_grad(true), &weight, 1e-5).is_none(), "gradients");
        let x = randn(&[2, 1, 8], Kind::Float, 1);
        assert!(rms_norm(&x, &weight.to_kind(Kind::BFloat16), 1e-5).is_none(), "another type");
        assert!(silu_mul(&x, &randn(&[2, 1, 9], Kind::Float, 1)).is_none());
    }
}

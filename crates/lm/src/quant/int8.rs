//! Eight bits per weight with one scale per output row, and LLM.int8's treatment of activations (Dettmers et al., 2022).
//!
//! Weights: `c = max |row|`, `q = round(127·w / c)`, half to even; used as `q·c/127`. Activations with a threshold:
//! columns of x in which any row reaches it ("outliers") stay as they are; the others are rounded to 127 steps of each
//! row's largest remaining value. Both then meet in one matrix product.
//!
//! Differs: the reference multiplies the rounded part in int8 with int32 sums. Here the same numbers are multiplied as
//! floats of x's type: equal up to float rounding, with the reference's gradient (through the dequantised weight, as
//! if activations were not rounded), but no faster than a dense layer. Without a threshold activations are not rounded,
//! which is more exact.
//!
//! Outlier columns are found over all rows of a call, pads included, as in the reference: with a threshold a row's output
//! depends a little on the rows beside it.

use anyo_core::{
    Error, Result, best_of_machine,
    parallel::for_each_chunk,
    torch::{
        dims,
        raw::{slice, slice_mut},
    },
};
use half::bf16;
use tch::{Device, Kind, Tensor, kind::Element};

use super::kernel::{self, Number, Packed};
use crate::dense::bf16_of;

/// Adding and taking away this rounds an f32 below 2^22 to a whole number.
const ROUND: f32 = 12_582_912.0;

/// A matrix `[out, in]` in int8.
#[derive(Debug)]
pub struct Int8Weight {
    codes: Tensor,  // [out, in] i8
    absmax: Tensor, // [out] f32
    threshold: Option<f64>,
}

impl Int8Weight {
    /// Quantises `weight` `[out, in]` of any float type. `threshold`: from where on an activation is an outlier, 6.0 in
    /// LLM.int8; `None`: activations stay as they are.
    ///
    /// # Errors
    /// When it is no matrix, holds NaN or infinity, the threshold is not positive, or memory does not suffice.
    pub fn quantize(weight: &Tensor, threshold: Option<f64>) -> Result<Self> {
        dims("weight", weight, ["out", "in"])?;
        if let Some(threshold) = threshold.filter(|&t| t.is_nan() || t <= 0.0) {
            return Err(Error::invalid(format!("the threshold for outliers must be positive, got {threshold}")));
        }
        let dense = weight.f_detach()?.f_to_kind(Kind::Float)?.f_contiguous()?;
        let absmax = if dense.numel() == 0 {
            Tensor::f_zeros([dense.size()[0]], (Kind::Float, dense.device()))?
        } else {
            dense.f_abs()?.f_amax(1, false)?
        };
        if absmax.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            return Err(Error::invalid("the weight holds NaN or infinity and cannot be quantised"));
        }
        let codes = (dense * steps(&absmax).unsqueeze(1)).f_round()?.f_clamp(-127.0, 127.0)?.f_to_kind(Kind::Int8)?;
        Ok(Self { codes, absmax, threshold })
    }

    /// `(out, in)`.
    pub fn shape(&self) -> (i64, i64) {
        self.codes.size2().unwrap_or_default()
    }

    /// Bytes that the weight takes.
    pub fn bytes(&self) -> usize {
        self.codes.numel() + 4 * self.absmax.numel()
    }

    /// The steps, `[out, in]` in i8.
    pub fn codes(&self) -> &Tensor {
        &self.codes
    }

    /// Largest absolute weight of each row, `[out]` in f32.
    pub fn absmax(&self) -> &Tensor {
        &self.absmax
    }

    /// Where it lies.
    pub fn device(&self) -> Device {
        self.codes.device()
    }

    /// The weights as used, `[out, in]` of type `kind`.
    pub fn dequantize(&self, kind: Kind) -> Tensor {
        let (n_out, n_in) = self.shape();
        if self.device() == Device::Cpu {
            kernel::unpack_all(&self.packed(), n_out, n_in, kind)
        } else {
            (self.codes.to_kind(Kind::Float) * (&self.absmax / 127.0).unsqueeze(1)).to_kind(kind)
        }
    }

    /// Activations as LLM.int8 sees them, x `[N, in]`; the gradient passes unchanged.
    pub(super) fn activations(&self, x: &Tensor) -> Tensor {
        let Some(threshold) = self.threshold.filter(|_| x.numel() > 0) else { return x.shallow_clone() };
        let rounded = tch::no_grad(|| round_activations(&x.detach(), threshold));
        if !x.requires_grad() {
            return rounded;
        }
        let mut change = rounded;
        let _ = tch::no_grad(|| change.g_sub_(&x.detach()));
        x + change
    }

    /// `x W^T` without unpacking to memory: x `[N, in]` in f32 on the CPU.
    pub(super) fn multiply(&self, x: &Tensor) -> Option<Tensor> {
        let (n_out, n_in) = self.shape();
        (n_in > 0).then(|| kernel::multiply(&self.packed(), x, n_out as usize, n_in as usize))
    }

    fn packed(&self) -> View<'_> {
        View { codes: slice(&self.codes), absmax: slice(&self.absmax), n_in: self.shape().1.max(1) as usize }
    }
}

/// `127 / absmax`, 0 for rows of zeros (and of numbers so small that their inverse is infinite).
fn steps(absmax: &Tensor) -> Tensor {
    (absmax.reciprocal() * 127.0).nan_to_num(0.0, 0.0, 0.0)
}

/// x `[N, in]` with all but the outlier columns rounded to the steps of its rows, of x's type.
///
/// On the CPU in two loops over x and into one new tensor: as tensor operations it takes three more of its size in f32,
/// which were the peak of a pass.
fn round_activations(x: &Tensor, threshold: f64) -> Tensor {
    let x = &x.contiguous();
    let columns = x.size().last().map_or(0, |&n| n as usize);
    match x.kind() {
        Kind::Float if x.device() == Device::Cpu => rounded::<f32>(x, columns, threshold as f32),
        Kind::BFloat16 if x.device() == Device::Cpu => rounded::<bf16>(x, columns, threshold as f32),
        kind => {
            let wide = x.to_kind(Kind::Float);
            let mut size = wide.abs();
            let outlier = size.amax(0, true).ge(threshold); // [1, in]
            let absmax = size.masked_fill_(&outlier, 0.0).amax(1, true); // [N, 1]
            drop(size);
            let mut rounded = &wide * steps(&absmax);
            let _ = rounded.round_();
            let _ = rounded.g_mul_(&(absmax / 127.0));
            wide.where_self(&outlier, &rounded).to_kind(kind)
        }
    }
}

fn rounded<T: Activation>(x: &Tensor, columns: usize, threshold: f32) -> Tensor {
    let mut out = x.empty_like();
    let rows = slice::<T>(x);
    let mut largest = vec![0f32; columns];
    for row in rows.chunks_exact(columns) {
        largest_of_columns(row, &mut largest);
    }
    // 1 where the column is rounded.
    let inlier: Vec<f32> = largest.iter().map(|&max| if max >= threshold { 0.0 } else { 1.0 }).collect();
    for_each_chunk(slice_mut::<T>(&mut out), columns, |row, out| {
        round_row(&rows[row * columns..(row + 1) * columns], &inlier, out);
    });
    out
}

/// A number type of activations.
trait Activation: Element + Copy + Send + Sync {
    fn wide(self) -> f32;
    fn of(x: f32) -> Self;
}

impl Activation for f32 {
    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }

    #[inline(always)]
    fn of(x: f32) -> Self {
        x
    }
}

impl Activation for bf16 {
    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn of(x: f32) -> Self {
        bf16_of(x)
    }
}

best_of_machine! {
    fn largest_of_columns<T: Activation>(row: &[T], largest: &mut [f32]) {
        for (max, &x) in largest.iter_mut().zip(row) {
            *max = max.max(x.wide().abs());
        }
    }
}

best_of_machine! {
    fn round_row<T: Activation>(x: &[T], inlier: &[f32], out: &mut [T]) {
        const LANES: usize = 16;
        let mut lanes = [0f32; LANES];
        let mut max = 0f32;
        let (parts, flags) = (x.chunks_exact(LANES), inlier.chunks_exact(LANES));
        for (&x, &flag) in parts.remainder().iter().zip(flags.remainder()) {
            max = max.max(if flag > 0.0 { x.wide().abs() } else { 0.0 });
        }
        for (x, flag) in parts.zip(flags) {
            for i in 0..LANES {
                lanes[i] = lanes[i].max(if flag[i] > 0.0 { x[i].wide().abs() } else { 0.0 });
            }
        }
        for lane in lanes {
            max = max.max(lane);
        }
        let inverse = (1.0 / max) * 127.0;
        let (inverse, step) = (if inverse.is_finite() { inverse } else { 0.0 }, max / 127.0);
        for ((out, &x), &flag) in out.iter_mut().zip(x).zip(inlier) {
            let x = x.wide();
            // The sum with 1.5·2^23 rounds to a whole number, halves to even; |x·inverse| is at most 127.
            let whole = (x * inverse + ROUND) - ROUND;
            *out = T::of(if flag > 0.0 { whole * step } else { x });
        }
    }
}

struct View<'a> {
    codes: &'a [i8],
    absmax: &'a [f32],
    n_in: usize,
}

impl Packed for View<'_> {
    fn unpack<T: Number>(&self, start: usize, out: &mut [T]) {
        let (mut done, n) = (0, out.len());
        while done < n {
            let (row, column) = ((start + done) / self.n_in, (start + done) % self.n_in);
            let len = (self.n_in - column).min(n - done);
            scale(&self.codes[start + done..start + done + len], self.absmax[row] / 127.0, &mut out[done..done + len]);
            done += len;
        }
    }
}

best_of_machine! {
    fn scale<T: Number>(codes: &[i8], scale: f32, out: &mut [T]) {
        for (to, &code) in out.iter_mut().zip(codes) {
            *to = T::of(f32::from(code) * scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_worked_by_hand() {
        // specs/so8t.md section 7, test 13: column 2 is an outlier.
        let (x, w) = (Tensor::from_slice(&[1f32, -2.0, 8.0]).view([1, 3]), Tensor::from_slice(&[2f32, -1.0, 0.75]));
        let weight = Int8Weight::quantize(&w.view([1, 3]), Some(6.0)).unwrap();
        assert_eq!(slice::<i8>(weight.codes()), [127, -64, 48]);
        let seen = weight.activations(&x);
        let want = [64.0 * 2.0 / 127.0, -2.0, 8.0];
        assert!(slice::<f32>(&seen).iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-6), "{seen}");
        let inner = (seen.narrow(1, 0, 2) * weight.dequantize(Kind::Float).narrow(1, 0, 2)).sum(Kind::Float);
        assert!((inner.double_value(&[]) - 4.031_496_1).abs() < 1e-6);
        let y = seen.linear(&weight.dequantize(Kind::Float), None::<Tensor>).double_value(&[0, 0]);
        assert!((y - 10.078_740_2).abs() < 2e-6, "{y}");
        let plain = Int8Weight::quantize(&w.view([1, 3]), None).unwrap();
        assert_eq!(plain.activations(&x), x);
    }

    /// The loops against the definition in tensor operations, bit for bit.
    #[test]
    fn activations_are_those_of_the_definition() {
        tch::manual_seed(2);
        for kind in [Kind::Float, Kind::BFloat16] {
            for (n, columns) in [(1, 5), (3, 16), (7, 37), (40, 100)] {
                // About one in 80 numbers reaches the threshold; the second row is zero.
                let x = Tensor::randn([n, columns], (Kind::Float, Device::Cpu)) * 2.4;
                let _ = x.narrow(0, n - 1, 1).g_mul_scalar_(if n > 1 { 0.0 } else { 1.0 });
                let x = x.to_kind(kind);
                let wide = x.to_kind(Kind::Float);
                let outlier = wide.abs().amax(0, true).ge(6.0);
                let absmax = wide.abs().masked_fill(&outlier, 0.0).amax(1, true);
                let rounded = (&wide * steps(&absmax)).round() * (&absmax / 127.0);
                let want = wide.where_self(&outlier, &rounded).to_kind(kind);
                assert_eq!(round_activations(&x, 6.0), want, "{kind:?} {n} {columns}");
            }
        }
        let bad = Tensor::from_slice(&[f32::NAN, 1.0, 2.0, 3.0]).view([2, 2]);
        assert!(round_activations(&bad, 6.0).double_value(&[0, 0]).is_nan());
    }

    #[test]
    fn zero_rows_and_bad_numbers() {
        let w = Tensor::from_slice(&[0f32, 0.0, 1.0, 2.0]).view([2, 2]);
        let weight = Int8Weight::quantize(&w, Some(6.0)).unwrap();
        assert_eq!(slice::<i8>(weight.codes()), [0, 0, 64, 127]);
        assert_eq!(weight.dequantize(Kind::Float).double_value(&[0, 1]), 0.0);
        let zero = weight.activations(&Tensor::zeros([3, 2], (Kind::Float, Device::Cpu)));
        assert_eq!(zero.abs().max().double_value(&[]), 0.0);
        let _ = w.get(0).get(0).fill_(f64::NAN);
        assert!(Int8Weight::quantize(&w, None).unwrap_err().to_string().contains("NaN or infinity"));
        assert!(Int8Weight::quantize(&zero, Some(-1.0)).unwrap_err().to_string().contains("must be positive, got -1"));
    }
}

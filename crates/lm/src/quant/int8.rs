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
    torch::{dims, raw::slice},
};
use tch::{Device, Kind, Tensor};

use super::kernel::{self, Number, Packed};

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
        let rounded = tch::no_grad(|| {
            let x = x.to_kind(Kind::Float);
            // In place: each further tensor of x's size counts in the peak of a pass.
            let mut size = x.abs();
            let outlier = size.amax(0, true).ge(threshold); // [1, in]
            let absmax = size.masked_fill_(&outlier, 0.0).amax(1, true); // [N, 1]
            drop(size);
            let mut rounded = &x * steps(&absmax);
            let _ = rounded.round_();
            let _ = rounded.g_mul_(&(absmax / 127.0));
            x.where_self(&outlier, &rounded)
        });
        if !x.requires_grad() {
            return rounded.to_kind(x.kind());
        }
        x + (rounded.to_kind(x.kind()) - x.detach())
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

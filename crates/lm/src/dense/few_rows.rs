//! `x W^T` for the few rows of a decode step: limited by reading W, so W is read once, and several products with the
//! same x share one parallel loop. Bias, residual and the rounding to bf16 follow in one loop without tensor operations,
//! whose overhead is what a step of one row can least afford.
//!
//! A row's result depends on that row alone, not on how many there are: each output is one sum in one order.

use anyo_core::{
    best_of_machine,
    parallel::{SendPtr, for_each_part},
    torch::raw,
};
use half::bf16;
use tch::{Device, Kind, Tensor};

use super::{
    bf16_of, plain,
    tiles::{Piece, Weight},
};

/// From more rows on libtorch's own products are faster; where it has none for bf16, from this many.
const FEW: usize = 8;
const FEW_BF16: usize = 16;
/// Bytes of weights that one thread takes at a time.
const PIECE: usize = 96 << 10;

/// See [`super::few`].
pub(super) fn multiply<const L: usize>(
    x: &Tensor,
    weights: [Option<&Tensor>; L],
    biases: [Option<&Tensor>; L],
    residual: Option<&Tensor>,
) -> Option<[Tensor; L]> {
    let first = weights.first().copied().flatten()?;
    // All are there, so none is replaced by the first.
    let weights = weights.iter().all(Option::is_some).then(|| weights.map(|w| w.unwrap_or(first)))?;
    let kind = first.kind();
    let mut shape = x.size();
    let n_in = shape.last().copied().filter(|&n| n > 0)?;
    let few = match kind {
        Kind::Float => FEW,
        Kind::BFloat16 if super::wide::wanted(first) => FEW_BF16,
        Kind::BFloat16 => FEW,
        _ => return None,
    };
    let like = |t: &Tensor| t.kind() == kind && t.device() == Device::Cpu && !t.requires_grad();
    let usable = |w: &&Tensor| like(w) && plain(w) && w.size2().is_ok_and(|s| s.1 == n_in);
    if !like(x) || !weights.iter().all(usable) || !simd() {
        return None;
    }
    let n = x.numel() / n_in as usize;
    let rows = weights.map(|w| w.size()[0] as usize);
    let row = |t: &Tensor, numel: usize| like(t) && plain(t) && t.numel() == numel;
    let fits = rows.into_iter().zip(biases).all(|(n_out, bias)| {
        bias.is_none_or(|bias| row(bias, n_out)) && residual.is_none_or(|residual| row(residual, n * n_out))
    });
    if !(1..=few).contains(&n) || !fits {
        return None;
    }
    let copy = (!plain(x)).then(|| x.contiguous());
    let x = copy.as_ref().unwrap_or(x);
    let mut out = rows.map(|n_out| {
        if let Some(last) = shape.last_mut() {
            *last = n_out as i64;
        }
        Tensor::empty(shape.as_slice(), (kind, Device::Cpu))
    });
    match kind {
        Kind::Float => {
            let places = out.each_mut().map(|out| raw::f32_ptr(out));
            products::<f32, L>(raw::slice(x), weights, places, n);
            for (out, bias) in out.iter_mut().zip(biases) {
                let (bias, residual) = (bias.map_or(&[][..], raw::slice), residual.map_or(&[][..], raw::slice));
                add(raw::slice_mut(out), bias, residual);
            }
        }
        _ => {
            let mut wide = vec![0f32; x.numel()];
            widen(raw::slice(x), &mut wide);
            let mut sums = rows.map(|n_out| vec![0f32; n * n_out]);
            let places = sums.each_mut().map(|sums| SendPtr(sums.as_mut_ptr()));
            products::<bf16, L>(&wide, weights, places, n);
            for ((out, sums), bias) in out.iter_mut().zip(&mut sums).zip(biases) {
                let (bias, residual) = (bias.map_or(&[][..], raw::slice), residual.map_or(&[][..], raw::slice));
                round(sums, bias, residual, raw::slice_mut(out));
            }
        }
    }
    Some(out)
}

fn simd() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// x `[n, in]` times each weight `[out, in]`, written to `out`, `[n, out]` each.
fn products<W: Weight, const L: usize>(x: &[f32], weights: [&Tensor; L], out: [SendPtr<f32>; L], n: usize) {
    let n_in = x.len() / n;
    let step = (PIECE / (n_in * size_of::<W>())).next_multiple_of(12);
    let mut pieces: Vec<Piece<W>> = Vec::new();
    for (weight, out) in weights.into_iter().zip(out) {
        let n_out = weight.size()[0] as usize;
        let weight = weight.data_ptr().cast::<W>();
        for start in (0..n_out).step_by(step) {
            // SAFETY: `start` is a row of the weight and a column of the result.
            let (weight, out) = unsafe { (weight.add(start * n_in), out.at(start)) };
            pieces.push(Piece { weight: SendPtr(weight), out: SendPtr(out), rows: step.min(n_out - start), n_out });
        }
    }
    let x = SendPtr(x.as_ptr().cast_mut());
    for_each_part(pieces.len(), |part| {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `simd` said that the instructions exist; x is `[n, n_in]`, the weight `[rows, n_in]` and the result
        // has `n` rows of `n_out` columns, of which this piece alone writes its own.
        unsafe {
            W::piece(&pieces[part], x.at(0), n, n_in);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (&pieces[part], x, n);
    });
}

#[inline(always)]
fn wide(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

best_of_machine! {
    fn widen(x: &[bf16], out: &mut [f32]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = wide(x);
        }
    }
}

best_of_machine! {
    /// `(y + bias) + residual`, either of them absent where it is empty.
    fn add(y: &mut [f32], bias: &[f32], residual: &[f32]) {
        if !bias.is_empty() {
            for row in y.chunks_exact_mut(bias.len()) {
                for (y, &bias) in row.iter_mut().zip(bias) {
                    *y += bias;
                }
            }
        }
        for (y, &residual) in y.iter_mut().zip(residual) {
            *y += residual;
        }
    }
}

best_of_machine! {
    /// As [`add`]; the sum with the bias is rounded once, that with the residual again, as two operations of libtorch do.
    fn round(y: &mut [f32], bias: &[bf16], residual: &[bf16], out: &mut [bf16]) {
        if !bias.is_empty() {
            for row in y.chunks_exact_mut(bias.len()) {
                for (y, &bias) in row.iter_mut().zip(bias) {
                    *y += wide(bias);
                }
            }
        }
        for (out, &y) in out.iter_mut().zip(&*y) {
            *out = bf16_of(y);
        }
        for (out, &residual) in out.iter_mut().zip(residual) {
            *out = bf16_of(wide(*out) + wide(residual));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apart(got: &Tensor, want: &Tensor) -> f64 {
        assert_eq!(got.size(), want.size());
        (got.to_kind(Kind::Double) - want.to_kind(Kind::Double)).abs().max().double_value(&[])
    }

    /// All shapes of tiles: numbers of rows, widths with and without a rest, bf16 rows of x beyond the first cache.
    #[test]
    fn agrees_with_a_product_in_f64() {
        tch::manual_seed(3);
        for kind in [Kind::Float, Kind::BFloat16] {
            for (n, n_in, sizes) in [
                (1, 64, [5, 12]),
                (2, 37, [3, 100]),
                (3, 8, [1, 2]),
                (4, 40, [9, 3]),
                (5, 71, [13, 4]),
                (6, 2048, [5, 4]),
                (7, 1048, [3, 1]),
                (8, 300, [400, 7]),
            ] {
                let random = |rows: i64| Tensor::randn([rows, n_in], (Kind::Float, Device::Cpu)).to_kind(kind);
                let (x, weights) = (random(n), sizes.map(random));
                let given = [Some(&weights[0]), Some(&weights[1])];
                let Some(got) = multiply(&x, given, [None; 2], None) else {
                    println!("skipped: no AVX2 here");
                    return;
                };
                for (got, weight) in got.iter().zip(&weights) {
                    let sums = sums(&x, weight);
                    let want = x.to_kind(Kind::Double).matmul(&weight.to_kind(Kind::Double).tr());
                    let off = apart(&sums, &want);
                    assert!(off < 3e-5 * (n_in as f64 / 300.0).max(1.0), "{kind:?} {n} {n_in}: {off}");
                    assert_eq!(got, &sums.to_kind(kind), "rounded once");
                    // A row alone gives the same bits.
                    for row in 0..n {
                        let [alone] = multiply(&x.narrow(0, row, 1), [Some(weight)], [None], None).unwrap();
                        assert_eq!(alone, got.narrow(0, row, 1), "{kind:?} {n} {n_in} row {row}");
                    }
                }
            }
        }
    }

    /// The product before it is rounded, f32.
    fn sums(x: &Tensor, weight: &Tensor) -> Tensor {
        let (n, n_out) = (x.size()[0], weight.size()[0]);
        let mut out = Tensor::empty([n, n_out], (Kind::Float, Device::Cpu));
        let wide = x.to_kind(Kind::Float);
        let (x, place) = (raw::slice::<f32>(&wide), [SendPtr(raw::slice_mut::<f32>(&mut out).as_mut_ptr())]);
        match weight.kind() {
            Kind::Float => products::<f32, 1>(x, [weight], place, n as usize),
            _ => products::<bf16, 1>(x, [weight], place, n as usize),
        }
        out
    }

    /// Bias and residual are added where libtorch would add and round them, bit for bit.
    #[test]
    fn bias_and_residual_are_rounded_as_separate_operations() {
        tch::manual_seed(4);
        for kind in [Kind::Float, Kind::BFloat16] {
            let random = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu)).to_kind(kind);
            let (x, w) = (random(&[3, 1, 48]), random(&[20, 48]));
            let (bias, residual) = (random(&[20]), random(&[3, 1, 20]));
            let Some([plain]) = multiply(&x, [Some(&w)], [None], None) else { return };
            let [with_residual] = multiply(&x, [Some(&w)], [None], Some(&residual)).unwrap();
            assert_eq!(with_residual, &plain + &residual, "{kind:?}");
            let [with_bias] = multiply(&x, [Some(&w)], [Some(&bias)], None).unwrap();
            let [both] = multiply(&x, [Some(&w)], [Some(&bias)], Some(&residual)).unwrap();
            assert_eq!(both, &with_bias + &residual, "{kind:?}");
            let rounded_once = (sums(&x.view([3, 48]), &w) + &bias).to_kind(kind).view([3, 1, 20]);
            assert_eq!(with_bias, rounded_once, "{kind:?}");
        }
    }

    #[test]
    fn nan_and_infinity_come_through() {
        for kind in [Kind::Float, Kind::BFloat16] {
            let x = Tensor::from_slice(&[f32::NAN, 1.0, f32::INFINITY, 1.0]).view([2, 2]).to_kind(kind);
            let w = Tensor::ones([3, 2], (kind, Device::Cpu));
            let Some([y]) = multiply(&x, [Some(&w)], [None], None) else { return };
            let y = Vec::<f32>::try_from(y.to_kind(Kind::Float).view(-1)).unwrap();
            assert!(y[..3].iter().all(|y| y.is_nan()) && y[3..] == [f32::INFINITY; 3], "{kind:?} {y:?}");
        }
    }

    #[test]
    fn leaves_the_rest_to_libtorch() {
        let zeros = |size: [i64; 2], kind| Tensor::zeros(size, (kind, Device::Cpu));
        let w = zeros([4, 8], Kind::Float);
        let one = |x: Tensor, w: &Tensor| multiply(&x, [Some(w)], [None], None);
        assert!(multiply(&zeros([1, 8], Kind::Float), [Some(&w), None], [None; 2], None).is_none());
        assert!(one(zeros([0, 8], Kind::Float), &w).is_none());
        assert!(one(zeros([9, 8], Kind::Float), &w).is_none());
        assert!(one(zeros([1, 8], Kind::Double), &w).is_none());
        assert!(one(zeros([1, 8], Kind::Float), &zeros([8, 4], Kind::Float).tr()).is_none());
        assert!(one(zeros([1, 8], Kind::Float).set_requires_grad(true), &w).is_none());
        let x = zeros([1, 8], Kind::Float);
        for wrong in [zeros([1, 5], Kind::Float), zeros([1, 4], Kind::BFloat16)] {
            assert!(multiply(&x, [Some(&w)], [None], Some(&wrong)).is_none());
            assert!(multiply(&x, [Some(&w)], [Some(&wrong)], None).is_none());
        }
        assert!(one(x, &w.set_requires_grad(true)).is_none());
    }
}

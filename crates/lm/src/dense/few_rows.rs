//! `x W^T` for the few rows of a decode step: limited by reading W, so W is read once, and several products with the
//! same x share one parallel loop.
//!
//! A row's result depends on that row alone, not on how many there are: each output is one sum in one order.

use anyo_core::parallel::{SendPtr, for_each_part};
use tch::{Device, Kind, Tensor};

use super::plain;

/// From more rows on libtorch's own products are faster; where it has none for bf16, from this many.
const FEW: usize = 8;
const FEW_BF16: usize = 16;
/// Bytes of weights that one thread takes at a time.
const PIECE: usize = 96 << 10;

/// One product for each weight `[out, in]`, f32 `[N, out]`; `None` where this is not the faster way.
pub(super) fn multiply<const L: usize>(x: &Tensor, weights: [Option<&Tensor>; L]) -> Option<[Tensor; L]> {
    let first = weights.first().copied().flatten()?;
    // All are there, so none is replaced by the first.
    let weights = weights.iter().all(Option::is_some).then(|| weights.map(|w| w.unwrap_or(first)))?;
    let kind = first.kind();
    let (n, n_in) = x.size2().ok().map(|(n, n_in)| (n as usize, n_in as usize))?;
    let few = match kind {
        Kind::Float => FEW,
        Kind::BFloat16 if super::wide::wanted(first) => FEW_BF16,
        Kind::BFloat16 => FEW,
        _ => return None,
    };
    let fits =
        |w: &&Tensor| w.kind() == kind && plain(w) && !w.requires_grad() && w.size2().is_ok_and(|s| s.1 == n_in as i64);
    let usable = (1..=few).contains(&n) && n_in > 0 && x.device() == Device::Cpu && x.kind() == kind;
    if !usable || x.requires_grad() || !weights.iter().all(fits) || !simd() {
        return None;
    }
    let x = x.to_kind(Kind::Float).contiguous();
    let out = weights.map(|w| Tensor::empty([n as i64, w.size()[0]], (Kind::Float, Device::Cpu)));
    match kind {
        Kind::Float => run::<f32, L>(&x, weights, &out, n, n_in),
        _ => run::<half::bf16, L>(&x, weights, &out, n, n_in),
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

/// Some rows of one weight.
struct Piece<W> {
    weight: SendPtr<W>,
    out: SendPtr<f32>,
    /// Rows of the weight.
    rows: usize,
    /// Columns of the result.
    n_out: usize,
}

fn run<W: Weight, const L: usize>(x: &Tensor, weights: [&Tensor; L], out: &[Tensor; L], n: usize, n_in: usize) {
    let step = (PIECE / (n_in * size_of::<W>())).next_multiple_of(12);
    let mut pieces: Vec<Piece<W>> = Vec::new();
    for (weight, out) in weights.into_iter().zip(out) {
        let n_out = weight.size()[0] as usize;
        let (weight, out) = (weight.data_ptr().cast::<W>(), out.data_ptr().cast::<f32>());
        for start in (0..n_out).step_by(step) {
            // SAFETY: `start` is a row of the weight and a column of the result.
            let (weight, out) = unsafe { (weight.add(start * n_in), out.add(start)) };
            pieces.push(Piece { weight: SendPtr(weight), out: SendPtr(out), rows: step.min(n_out - start), n_out });
        }
    }
    let x = SendPtr(x.data_ptr().cast::<f32>());
    for_each_part(pieces.len(), |part| {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `simd` said that the instructions exist; x is `[n, n_in]`, the weight `[rows, n_in]` and the result
        // has `n` rows of `n_out` columns, of which this piece alone writes its own.
        unsafe {
            avx2::piece(&pieces[part], x.at(0), n, n_in);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (&pieces[part], x, n);
    });
}

/// A number type that weights are stored in.
trait Weight: Copy + Send + Sync {
    /// Its value.
    fn value(self) -> f32;

    /// The values of eight in a row.
    ///
    /// # Safety
    /// Eight elements lie at `at`, and the processor has AVX2.
    #[cfg(target_arch = "x86_64")]
    unsafe fn eight(at: *const Self) -> std::arch::x86_64::__m256;
}

impl Weight for f32 {
    fn value(self) -> f32 {
        self
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn eight(at: *const Self) -> std::arch::x86_64::__m256 {
        // SAFETY: promised by the caller.
        unsafe { std::arch::x86_64::_mm256_loadu_ps(at) }
    }
}

impl Weight for half::bf16 {
    fn value(self) -> f32 {
        self.to_f32()
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn eight(at: *const Self) -> std::arch::x86_64::__m256 {
        use std::arch::x86_64::{_mm_loadu_si128, _mm256_castsi256_ps, _mm256_cvtepu16_epi32, _mm256_slli_epi32};
        // SAFETY: promised by the caller. bf16 is the upper half of an f32.
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast())))) }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256, _MM_HINT_T0, _mm_add_ps, _mm_cvtss_f32, _mm_hadd_ps, _mm_prefetch, _mm256_castps256_ps128,
        _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps,
    };

    use super::{Piece, Weight};

    /// All rows of x with all rows of a piece.
    ///
    /// # Safety
    /// x is `[n, n_in]`, the piece's weight `[rows, n_in]`, its result has n rows; the processor has AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn piece<W: Weight>(piece: &Piece<W>, x: *const f32, n: usize, n_in: usize) {
        // Twelve sums at most, so that they, the weights and x stay in registers.
        let tall = if n <= 2 { 4 } else { 3 };
        let mut row = 0;
        while row < piece.rows {
            let height = if piece.rows - row >= tall { tall } else { 1 };
            let mut first = 0;
            while first < n {
                let width = (n - first).min(4);
                // SAFETY: rows `row..row + height` of the weight and `first..first + width` of x exist.
                unsafe {
                    let (w, x) = (piece.weight.at(row * n_in), x.add(first * n_in));
                    let y = piece.out.at(first * piece.n_out + row);
                    match (height, width, first == 0) {
                        (4, 1, _) => tile::<W, 4, 1, true>(w, x, y, piece.n_out, n_in),
                        (4, 2, _) => tile::<W, 4, 2, true>(w, x, y, piece.n_out, n_in),
                        (3, 1, _) => tile::<W, 3, 1, false>(w, x, y, piece.n_out, n_in),
                        (3, 2, _) => tile::<W, 3, 2, false>(w, x, y, piece.n_out, n_in),
                        (3, 3, true) => tile::<W, 3, 3, true>(w, x, y, piece.n_out, n_in),
                        (3, 3, false) => tile::<W, 3, 3, false>(w, x, y, piece.n_out, n_in),
                        (3, 4, true) => tile::<W, 3, 4, true>(w, x, y, piece.n_out, n_in),
                        (3, 4, false) => tile::<W, 3, 4, false>(w, x, y, piece.n_out, n_in),
                        (_, 1, _) => tile::<W, 1, 1, false>(w, x, y, piece.n_out, n_in),
                        (_, 2, _) => tile::<W, 1, 2, false>(w, x, y, piece.n_out, n_in),
                        (_, 3, _) => tile::<W, 1, 3, false>(w, x, y, piece.n_out, n_in),
                        _ => tile::<W, 1, 4, false>(w, x, y, piece.n_out, n_in),
                    }
                }
                first += width;
            }
            row += height;
        }
    }

    /// R rows of the weight with M rows of x.
    ///
    /// # Safety
    /// As [`piece`], for these rows; y is the first of R neighbours in each of M rows.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn tile<W: Weight, const R: usize, const M: usize, const FETCH: bool>(
        w: *const W,
        x: *const f32,
        y: *mut f32,
        n_out: usize,
        n_in: usize,
    ) {
        /// Bytes of a line of the cache.
        const LINE: usize = 64;
        let mut sums = [[_mm256_setzero_ps(); M]; R];
        let whole = n_in / 8 * 8;
        // The rows of the next tile are asked for while this one is computed: the processor itself follows a row only
        // until its end, which comes soon.
        let ahead = w.wrapping_add(R * n_in);
        for k in (0..whole).step_by(8) {
            if FETCH && k % (LINE / size_of::<W>()) == 0 {
                for r in 0..R {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(r * n_in + k).cast());
                }
            }
            // SAFETY: k + 8 <= n_in.
            unsafe {
                let mut weights = [_mm256_setzero_ps(); R];
                for (r, weights) in weights.iter_mut().enumerate() {
                    *weights = W::eight(w.add(r * n_in + k));
                }
                for m in 0..M {
                    let x = _mm256_loadu_ps(x.add(m * n_in + k));
                    for r in 0..R {
                        sums[r][m] = _mm256_fmadd_ps(weights[r], x, sums[r][m]);
                    }
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (m, sum) in sums.into_iter().enumerate() {
                let mut sum = total(sum);
                // SAFETY: inside the rows and the result.
                unsafe {
                    for k in whole..n_in {
                        sum += (*w.add(r * n_in + k)).value() * *x.add(m * n_in + k);
                    }
                    *y.add(m * n_out + r) = sum;
                }
            }
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn total(sums: __m256) -> f32 {
        let four = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps::<1>(sums));
        let two = _mm_hadd_ps(four, four);
        _mm_cvtss_f32(_mm_hadd_ps(two, two))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_a_product_in_f64() {
        tch::manual_seed(3);
        for kind in [Kind::Float, Kind::BFloat16] {
            for (n, n_in, sizes) in
                [(1, 64, [5, 12]), (2, 37, [3, 100]), (3, 8, [1, 2]), (5, 71, [13, 4]), (8, 300, [400, 7])]
            {
                let random = |rows: i64| Tensor::randn([rows, n_in], (Kind::Float, Device::Cpu)).to_kind(kind);
                let (x, weights) = (random(n), sizes.map(random));
                let got = multiply(&x, [Some(&weights[0]), Some(&weights[1])]);
                let Some(got) = got else {
                    println!("skipped: no AVX2 here");
                    return;
                };
                for (got, weight) in got.iter().zip(&weights) {
                    let want = x.to_kind(Kind::Double).matmul(&weight.to_kind(Kind::Double).tr());
                    let off = (got - want).abs().max().double_value(&[]);
                    assert!(off < 3e-5, "{kind:?} {n} {n_in}: {off}");
                    // A row alone gives the same bits.
                    let alone = multiply(&x.narrow(0, n - 1, 1), [Some(weight)]).unwrap();
                    assert_eq!(alone[0], got.narrow(0, n - 1, 1));
                }
            }
        }
    }

    #[test]
    fn leaves_the_rest_to_libtorch() {
        let zeros = |size: [i64; 2], kind| Tensor::zeros(size, (kind, Device::Cpu));
        let w = zeros([4, 8], Kind::Float);
        assert!(multiply(&zeros([1, 8], Kind::Float), [Some(&w), None]).is_none());
        assert!(multiply(&zeros([0, 8], Kind::Float), [Some(&w)]).is_none());
        assert!(multiply(&zeros([9, 8], Kind::Float), [Some(&w)]).is_none());
        assert!(multiply(&zeros([1, 8], Kind::Double), [Some(&w)]).is_none());
        assert!(multiply(&zeros([1, 8], Kind::Float), [Some(&zeros([8, 4], Kind::Float).tr())]).is_none());
        assert!(multiply(&zeros([1, 8], Kind::Float).set_requires_grad(true), [Some(&w)]).is_none());
        assert!(multiply(&zeros([1, 8], Kind::Float), [Some(&w.set_requires_grad(true))]).is_none());
    }
}

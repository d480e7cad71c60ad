//! Tiles of `x W^T` for few rows: how the rows of a weight are walked so that memory keeps up.

use anyo_core::parallel::SendPtr;

/// Some rows of one weight.
pub(super) struct Piece<W> {
    pub(super) weight: SendPtr<W>,
    pub(super) out: SendPtr<f32>,
    /// Rows of the weight.
    pub(super) rows: usize,
    /// Columns of the result.
    pub(super) n_out: usize,
}

/// A number type that weights are stored in.
pub(super) trait Weight: Copy + Send + Sync {
    /// Its value.
    fn value(self) -> f32;

    /// The values of eight in a row.
    ///
    /// # Safety
    /// Eight elements lie at `at`, and the processor has AVX2.
    #[cfg(target_arch = "x86_64")]
    unsafe fn eight(at: *const Self) -> std::arch::x86_64::__m256;

    /// All rows of x with all rows of a piece.
    ///
    /// # Safety
    /// x is `[n, n_in]`, the piece's weight `[rows, n_in]`, its result has n rows; the processor has AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    unsafe fn piece(piece: &Piece<Self>, x: *const f32, n: usize, n_in: usize);
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

    #[cfg(target_arch = "x86_64")]
    unsafe fn piece(piece: &Piece<Self>, x: *const f32, n: usize, n_in: usize) {
        // SAFETY: promised by the caller.
        unsafe { avx2::f32_piece(piece, x, n, n_in) }
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

    #[cfg(target_arch = "x86_64")]
    unsafe fn piece(piece: &Piece<Self>, x: *const f32, n: usize, n_in: usize) {
        // SAFETY: promised by the caller.
        unsafe { avx2::bf16_piece(piece, x, n, n_in) }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256, _MM_HINT_T0, _mm_add_ps, _mm_cvtss_f32, _mm_hadd_ps, _mm_prefetch, _mm256_add_ps,
        _mm256_castps256_ps128, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps,
    };

    use half::bf16;

    use super::{Piece, Weight};

    /// Several rows of the weight at a time, each with one sum for each row of x, so that x is loaded less often.
    ///
    /// # Safety
    /// As [`Weight::piece`].
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn f32_piece(piece: &Piece<f32>, x: *const f32, n: usize, n_in: usize) {
        // Twelve sums at most, so that they, the weights and x stay in registers.
        let tall = if n <= 2 { 4 } else { 3 };
        let mut row = 0;
        while row < piece.rows {
            let height = if piece.rows - row >= tall { tall } else { 1 };
            let mut first = 0;
            while first < n {
                let width = (n - first).min(4);
                // The rows of the next tile are asked for while this one is computed: the processor itself follows a row
                // only until its end, which comes soon.
                let tile = Tile { piece, row, first, n_in, ahead: if first == 0 { height * n_in } else { 0 } };
                // SAFETY: rows `row..row + height` of the weight and `first..first + width` of x exist.
                unsafe {
                    match (height, width) {
                        (4, 1) => tile.run::<4, 1, 1>(x),
                        (4, _) => tile.run::<4, 2, 1>(x),
                        (3, 1) => tile.run::<3, 1, 1>(x),
                        (3, 2) => tile.run::<3, 2, 1>(x),
                        (3, 3) => tile.run::<3, 3, 1>(x),
                        (3, _) => tile.run::<3, 4, 1>(x),
                        (_, 1) => tile.run::<1, 1, 1>(x),
                        (_, 2) => tile.run::<1, 2, 1>(x),
                        (_, 3) => tile.run::<1, 3, 1>(x),
                        _ => tile.run::<1, 4, 1>(x),
                    }
                }
                first += width;
            }
            row += height;
        }
    }

    /// bf16 rows are half as long: walked several at a time their short streams kept one core at 15 of the 20 GB/s that
    /// it can read, one behind the other at the limit. Two sums for each output hide the latency of the additions.
    ///
    /// # Safety
    /// As [`Weight::piece`].
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn bf16_piece(piece: &Piece<bf16>, x: *const f32, n: usize, n_in: usize) {
        /// Distance at which lines are asked for, 1 KiB.
        const AHEAD: usize = 512;
        /// Numbers of x that stay in the first cache beside the weights; beyond, two rows of the weight share each load.
        const NEAR: usize = 6 << 10;
        let high = if n > 4 && n * n_in > NEAR { 2 } else { 1 };
        let most = if high == 2 { 3 } else { 4 };
        let mut row = 0;
        while row < piece.rows {
            let height = high.min(piece.rows - row);
            let mut first = 0;
            while first < n {
                let width = (n - first).min(most);
                let tile = Tile { piece, row, first, n_in, ahead: if first == 0 { AHEAD } else { 0 } };
                // SAFETY: rows `row..row + height` of the weight and `first..first + width` of x exist.
                unsafe {
                    match (height, width) {
                        (1, 1) => tile.run::<1, 1, 2>(x),
                        (1, 2) => tile.run::<1, 2, 2>(x),
                        (1, 3) => tile.run::<1, 3, 2>(x),
                        (1, _) => tile.run::<1, 4, 2>(x),
                        (_, 1) => tile.run::<2, 1, 2>(x),
                        (_, 2) => tile.run::<2, 2, 2>(x),
                        _ => tile.run::<2, 3, 2>(x),
                    }
                }
                first += width;
            }
            row += height;
        }
    }

    /// A place in a piece from which rows of the weight and of x are multiplied.
    struct Tile<'a, W> {
        piece: &'a Piece<W>,
        row: usize,
        /// The first row of x.
        first: usize,
        n_in: usize,
        /// How many elements ahead lines are asked for; 0: not at all.
        ahead: usize,
    }

    impl<W: Weight> Tile<'_, W> {
        /// R rows of the weight with M rows of x, A sums for each output.
        ///
        /// # Safety
        /// As [`Weight::piece`], for these rows.
        #[target_feature(enable = "avx2,fma")]
        #[inline]
        #[allow(clippy::needless_range_loop, reason = "m, r and a count registers, in x, weights and sums alike")]
        unsafe fn run<const R: usize, const M: usize, const A: usize>(&self, x: *const f32) {
            if self.ahead > 0 {
                // SAFETY: promised by the caller.
                unsafe { self.walk::<R, M, A, true>(x) }
            } else {
                // SAFETY: promised by the caller.
                unsafe { self.walk::<R, M, A, false>(x) }
            }
        }

        /// # Safety
        /// As [`Tile::run`].
        #[target_feature(enable = "avx2,fma")]
        #[inline]
        #[allow(clippy::needless_range_loop, reason = "m, r and a count registers, in x, weights and sums alike")]
        unsafe fn walk<const R: usize, const M: usize, const A: usize, const FETCH: bool>(&self, x: *const f32) {
            /// Bytes of a line of the cache.
            const LINE: usize = 64;
            let (n_in, n_out) = (self.n_in, self.piece.n_out);
            // SAFETY: the rows exist.
            let (w, x, y) = unsafe {
                (
                    self.piece.weight.at(self.row * n_in).cast_const(),
                    x.add(self.first * n_in),
                    self.piece.out.at(self.first * n_out + self.row),
                )
            };
            let ahead = w.wrapping_add(self.ahead);
            let mut sums = [[[_mm256_setzero_ps(); A]; M]; R];
            let (even, whole) = (n_in / (8 * A) * (8 * A), n_in / 8 * 8);
            for k in (0..even).step_by(8 * A) {
                if FETCH && k % (LINE / size_of::<W>()) == 0 {
                    for r in 0..R {
                        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(r * n_in + k).cast());
                    }
                }
                for a in 0..A {
                    // SAFETY: k + 8·A <= n_in.
                    unsafe { Self::add(&mut sums, a, w, x, n_in, k + 8 * a) };
                }
            }
            for k in (even..whole).step_by(8) {
                // SAFETY: k + 8 <= n_in.
                unsafe { Self::add(&mut sums, 0, w, x, n_in, k) };
            }
            for r in 0..R {
                for m in 0..M {
                    let mut sum = sums[r][m][0];
                    for a in 1..A {
                        sum = _mm256_add_ps(sum, sums[r][m][a]);
                    }
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

        /// Adds eight products to the sums number `a`.
        ///
        /// # Safety
        /// Eight elements at `k` exist in all rows.
        #[target_feature(enable = "avx2,fma")]
        #[inline]
        #[allow(clippy::needless_range_loop, reason = "m and r count registers, in x, weights and sums alike")]
        unsafe fn add<const R: usize, const M: usize, const A: usize>(
            sums: &mut [[[__m256; A]; M]; R],
            a: usize,
            w: *const W,
            x: *const f32,
            n_in: usize,
            k: usize,
        ) {
            // SAFETY: promised by the caller.
            unsafe {
                let mut weights = [_mm256_setzero_ps(); R];
                for (r, weights) in weights.iter_mut().enumerate() {
                    *weights = W::eight(w.add(r * n_in + k));
                }
                for m in 0..M {
                    let x = _mm256_loadu_ps(x.add(m * n_in + k));
                    for r in 0..R {
                        sums[r][m][a] = _mm256_fmadd_ps(weights[r], x, sums[r][m][a]);
                    }
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

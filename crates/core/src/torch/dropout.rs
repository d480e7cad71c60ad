//! Dropout from a seed: a mask depends on (seed, call, shape) alone, so a recomputed or resumed step drops the same.

use std::cell::Cell;

use tch::{Device, Kind, Tensor};

use super::raw;
use crate::{best_of_machine, parallel};

/// The dropout masks of one training step: the n-th call of a step always gets the same one.
#[derive(Debug, Clone)]
pub struct DropoutStream {
    seed: u64,
    calls: Cell<u64>,
}

impl DropoutStream {
    /// A stream derived from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, calls: Cell::new(0) }
    }

    /// The next mask: factors of the shape, type and device of `like`, 0 with probability `p` in [0, 1) and
    /// `1 / (1 - p)` otherwise.
    ///
    /// On the CPU the kept share is rounded to a multiple of 2^-16. Elsewhere libtorch's generator draws, seeded anew
    /// for each mask.
    pub fn mask(&self, like: &Tensor, p: f64) -> Tensor {
        let seed = self.next();
        let _guard = tch::no_grad_guard();
        if like.device() == Device::Cpu {
            let mut mask = Tensor::empty(like.size(), (Kind::Float, Device::Cpu));
            fill(&mut mask, seed, p);
            return mask.to_kind(like.kind());
        }
        Self::drawn(like, seed, p)
    }

    /// As [`DropoutStream::mask`] where `like` `[P,D]` is only the rows `rows` of a matrix: on the CPU the mask's rows are
    /// those that the whole matrix would get.
    pub fn mask_rows(&self, like: &Tensor, rows: &[i64], p: f64) -> Tensor {
        let seed = self.next();
        let _guard = tch::no_grad_guard();
        if like.device() != Device::Cpu {
            return Self::drawn(like, seed, p);
        }
        let mut mask = Tensor::empty(like.size(), (Kind::Float, Device::Cpu));
        let width = mask.numel() / rows.len().max(1);
        let (threshold, scale) = kept(p);
        let mut buffer = Vec::new();
        for (own, &row) in raw::slice_mut(&mut mask).chunks_mut(width.max(1)).zip(rows) {
            // Hashes decide blocks of elements, which may begin in the row before.
            let start = row as u64 * width as u64;
            let before = (start % BLOCK as u64) as usize;
            buffer.resize(before + width, 0.0);
            fill_chunk(&mut buffer, seed, start - before as u64, threshold, scale);
            own.copy_from_slice(&buffer[before..]);
        }
        mask.to_kind(like.kind())
    }

    /// The seed of the next mask.
    fn next(&self) -> u64 {
        let call = self.calls.replace(self.calls.get() + 1);
        mix(self.seed ^ mix(call))
    }

    fn drawn(like: &Tensor, seed: u64, p: f64) -> Tensor {
        // The global generator's earlier state does not matter.
        tch::manual_seed(seed as i64);
        Tensor::full(like.size(), 1.0 - p, (like.kind(), like.device())).bernoulli() / (1.0 - p)
    }

    /// How many masks were drawn; with [`DropoutStream::rewind`] a recomputed layer draws its masks again.
    pub fn position(&self) -> u64 {
        self.calls.get()
    }

    /// Goes back to an earlier [`DropoutStream::position`].
    pub fn rewind(&self, position: u64) {
        self.calls.set(position);
    }
}

/// The finalizer of SplitMix64: every bit of the input reaches every bit of the output.
#[inline(always)]
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn fill(mask: &mut Tensor, seed: u64, p: f64) {
    const CHUNK: usize = 1 << 14;
    let (threshold, scale) = kept(p);
    parallel::for_each_chunk(raw::slice_mut(mask), CHUNK, |part, chunk| {
        fill_chunk(chunk, seed, (part * CHUNK) as u64, threshold, scale)
    });
}

/// The kept share in multiples of 2^-16, and the scale for that exact share.
fn kept(p: f64) -> (u32, f32) {
    let threshold = (((1.0 - p) * 65536.0).round() as u32).max(1);
    (threshold, 65536.0 / threshold as f32)
}

/// Elements of a block.
const BLOCK: usize = 2 * LANES;
/// Lanes of one vector: each hash of 32 bits decides two elements.
const LANES: usize = 8;

best_of_machine! {
    /// Fills a chunk that starts at element `start`, a multiple of 16: elements `16 i + j` and `16 i + 8 + j` come from
    /// the halves of hash number `8 i + j`. All steps are 32 bits wide, which AVX2 multiplies eight at a time.
    fn fill_chunk(chunk: &mut [f32], seed: u64, start: u64, threshold: u32, scale: f32) {
        // Beyond 2^33 elements the hashes' numbers overflow into the key.
        let (low, high) = (seed as u32, (seed >> 32) as u32 ^ (start >> 33) as u32);
        let first = (start / 2) as u32;
        for (i, block) in chunk.chunks_mut(BLOCK).enumerate() {
            let base = first.wrapping_add((i * LANES) as u32);
            let mut hash = [0u32; LANES];
            for (j, h) in hash.iter_mut().enumerate() {
                // Two rounds of the finalizer of MurmurHash3, keyed before each.
                let mut x = base.wrapping_add(j as u32).wrapping_mul(0x9e37_79b9) ^ low;
                x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
                x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35).wrapping_add(high);
                x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
                *h = x ^ (x >> 15);
            }
            let mut out = [0f32; BLOCK];
            let (left, right) = out.split_at_mut(LANES);
            for j in 0..LANES {
                left[j] = if (hash[j] & 0xffff) < threshold { scale } else { 0.0 };
                right[j] = if (hash[j] >> 16) < threshold { scale } else { 0.0 };
            }
            block.copy_from_slice(&out[..block.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_keep_the_mean_and_repeat() {
        let x = Tensor::ones([1000, 100], (Kind::Float, Device::Cpu));
        for p in [0.1, 0.5, 0.9] {
            let stream = DropoutStream::new(7);
            let (first, second) = (stream.mask(&x, p), stream.mask(&x, p));
            let mean = first.mean(Kind::Double).double_value(&[]);
            assert!((mean - 1.0).abs() < 0.02, "{p}: {mean}");
            let dropped = first.eq(0.0).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
            assert!((dropped - p).abs() < 0.01, "{p}: {dropped}");
            // Neighbours in memory, in a vector's halves and across rows are independent.
            let flat = first.eq(0.0).to_kind(Kind::Double).view([-1]) - p;
            for lag in [1, 2, 8, 16, 100, 8192] {
                let n = 100_000 - lag;
                let product = (flat.narrow(0, 0, n) * flat.narrow(0, lag, n)).mean(Kind::Double).double_value(&[]);
                assert!((product / (p * (1.0 - p))).abs() < 0.02, "{p}, lag {lag}: {product}");
            }
            assert_ne!(first, second);
            assert_eq!(DropoutStream::new(7).mask(&x, p), first);
            assert_ne!(DropoutStream::new(8).mask(&x, p), first);
            assert_eq!(stream.position(), 2);
            stream.rewind(0);
            assert_eq!(stream.mask(&x, p), first);
        }
        let half = DropoutStream::new(7).mask(&x.to_kind(Kind::BFloat16), 0.5);
        assert_eq!((half.kind(), half.size()), (Kind::BFloat16, x.size()));
        assert_eq!(DropoutStream::new(7).mask(&Tensor::empty([0, 3], (Kind::Float, Device::Cpu)), 0.5).size(), [0, 3]);
    }

    #[test]
    fn some_rows_get_the_masks_of_the_whole() {
        for (width, p) in [(16, 0.5), (352, 0.05), (7, 0.3)] {
            let x = Tensor::ones([40, width], (Kind::Float, Device::Cpu));
            let rows = [3i64, 39, 0, 17];
            let (whole, some) = (DropoutStream::new(5), DropoutStream::new(5));
            for _ in 0..2 {
                let picked = x.index_select(0, &Tensor::from_slice(&rows));
                let want = whole.mask(&x, p).index_select(0, &Tensor::from_slice(&rows));
                assert_eq!(some.mask_rows(&picked, &rows, p), want, "{width}");
            }
            assert_eq!(whole.position(), some.position());
        }
    }

    #[test]
    fn the_bits_are_those_of_the_published_figures() {
        let mask = DropoutStream::new(42).mask(&Tensor::empty([40], (Kind::Float, Device::Cpu)), 0.5);
        let kept = (0..40).fold(0u64, |bits, i| bits | u64::from(mask.double_value(&[i]) == 2.0) << i);
        assert_eq!(kept, 0x42_69fa_7077, "{kept:#x}");
    }
}

//! Dropout whose masks depend on (seed, call) alone, so a resumed run draws what the uninterrupted one drew.

use std::cell::Cell;

use anyo_core::{best_of_machine, parallel};
use tch::{Device, Kind, Tensor};

/// Whether a forward pass trains.
#[derive(Debug)]
pub enum Mode {
    /// No dropout.
    Eval,
    /// Dropout from this stream.
    Train(DropoutStream),
}

/// The dropout masks of one training step.
#[derive(Debug)]
pub struct DropoutStream {
    seed: u64,
    calls: Cell<u64>,
}

impl Mode {
    /// Training with masks derived from `seed`.
    pub fn train(seed: u64) -> Self {
        Self::Train(DropoutStream { seed, calls: Cell::new(0) })
    }

    /// Zeroes each element of `x` with probability `p` and scales the others by `1 / (1 - p)`.
    pub fn dropout(&self, x: &Tensor, p: f64) -> Tensor {
        match self.mask(x, p) {
            Some(mask) => x * mask,
            None => x.shallow_clone(),
        }
    }

    /// `residual` plus the dropout of `x`, in one pass over both.
    pub fn add_dropped(&self, residual: &Tensor, x: &Tensor, p: f64) -> Tensor {
        match self.mask(x, p) {
            Some(mask) => residual.addcmul(x, &mask),
            None => residual + x,
        }
    }

    /// The factors that [`Self::dropout`] would multiply by; `None` when nothing is dropped.
    pub fn mask(&self, like: &Tensor, p: f64) -> Option<Tensor> {
        let Self::Train(stream) = self else { return None };
        (p > 0.0).then(|| stream.mask(like, p))
    }
}

impl DropoutStream {
    fn mask(&self, like: &Tensor, p: f64) -> Tensor {
        let call = self.calls.replace(self.calls.get() + 1);
        let seed = mix(self.seed ^ mix(call));
        let _guard = tch::no_grad_guard();
        let size = like.size();
        let mut mask = Tensor::empty(&size, (Kind::Float, Device::Cpu));
        if like.device() == Device::Cpu {
            fill(&mut mask, seed, p);
            return mask.to_kind(like.kind());
        }
        // The global generator is seeded anew for each mask, so its earlier state does not matter.
        tch::manual_seed(seed as i64);
        let keep = Tensor::full(&size, 1.0 - p, (like.kind(), like.device())).bernoulli();
        keep / (1.0 - p)
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
    // SAFETY: a fresh contiguous f32 tensor on the CPU that nobody else holds.
    let data = unsafe { std::slice::from_raw_parts_mut(mask.data_ptr().cast::<f32>(), mask.numel()) };
    // The kept share is a multiple of 2^-16, and the scale uses that exact share.
    let threshold = (((1.0 - p) * 65536.0).round() as u32).max(1);
    let scale = 65536.0 / threshold as f32;
    parallel::for_each_chunk(data, CHUNK, |part, chunk| {
        fill_chunk(chunk, seed, (part * CHUNK) as u64, threshold, scale)
    });
}

/// Lanes of one vector: each hash of 32 bits decides two elements.
const LANES: usize = 8;

best_of_machine! {
    /// Fills a chunk that starts at element `start`, a multiple of 16: elements `16 i + j` and `16 i + 8 + j` come from
    /// the halves of hash number `8 i + j`. All steps are 32 bits wide, which AVX2 multiplies eight at a time.
    fn fill_chunk(chunk: &mut [f32], seed: u64, start: u64, threshold: u32, scale: f32) {
        let (low, high) = (seed as u32, (seed >> 32) as u32);
        let first = (start / 2) as u32;
        for (i, block) in chunk.chunks_mut(2 * LANES).enumerate() {
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
            let mut out = [0f32; 2 * LANES];
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
            let mode = Mode::train(7);
            let (first, second) = (mode.dropout(&x, p), mode.dropout(&x, p));
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
            let again = Mode::train(7);
            assert_eq!(again.dropout(&x, p), first);
        }
        assert_eq!(Mode::Eval.dropout(&x, 0.5), x);
    }
}

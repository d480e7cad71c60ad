//! Dropout whose masks depend on (seed, call) alone, so a resumed run draws what the uninterrupted one drew.

use std::cell::Cell;

use anyo_core::parallel;
use tch::{Device, Kind, Tensor};

use crate::loss::best_of_machine;

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

best_of_machine! {
    /// Fills a chunk that starts at element `start`: element `i` comes from 16 bits of hash number `i / 4`.
    fn fill_chunk(chunk: &mut [f32], seed: u64, start: u64, threshold: u32, scale: f32) {
        for (i, four) in chunk.chunks_mut(4).enumerate() {
            let hash = mix(seed.wrapping_add((start / 4 + i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            for (j, x) in four.iter_mut().enumerate() {
                let bits = (hash >> (16 * j)) as u32 & 0xffff;
                *x = if bits < threshold { scale } else { 0.0 };
            }
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
            assert_ne!(first, second);
            let again = Mode::train(7);
            assert_eq!(again.dropout(&x, p), first);
        }
        assert_eq!(Mode::Eval.dropout(&x, 0.5), x);
    }
}

//! Dropout from a seed: the mask depends on the seed and the shape alone, so a recomputed or resumed step drops the same.

use anyo_core::parallel;
use tch::{Device, Kind, Tensor};

/// Zeroes each element of `x` with probability `p` in [0, 1) and scales the others by `1 / (1 - p)`.
pub(crate) fn drop(x: &Tensor, p: f64, seed: u64) -> Tensor {
    if p <= 0.0 {
        return x.shallow_clone();
    }
    let mask = tch::no_grad(|| {
        if x.device() == Device::Cpu {
            return mask(x.numel(), p, seed).view(x.size().as_slice()).to_kind(x.kind());
        }
        // Seeded anew for each mask, so the global generator's earlier state does not matter.
        tch::manual_seed(seed as i64);
        Tensor::full(x.size(), 1.0 - p, (x.kind(), x.device())).bernoulli() / (1.0 - p)
    });
    x * mask
}

/// The factors for `n` elements, f32 on the CPU.
fn mask(n: usize, p: f64, seed: u64) -> Tensor {
    const CHUNK: usize = 1 << 14;
    let mask = Tensor::empty([n as i64], (Kind::Float, Device::Cpu));
    if n == 0 {
        return mask;
    }
    // SAFETY: a fresh contiguous f32 tensor on the CPU that nobody else holds.
    let data = unsafe { std::slice::from_raw_parts_mut(mask.data_ptr().cast::<f32>(), n) };
    // The kept share is a multiple of 2^-16, and the scale uses that exact share.
    let threshold = (((1.0 - p) * 65536.0).round() as u32).max(1);
    let scale = 65536.0 / threshold as f32;
    parallel::for_each_chunk(data, CHUNK, |part, chunk| fill(chunk, seed, (part * CHUNK) as u64, threshold, scale));
    mask
}

fn fill(chunk: &mut [f32], seed: u64, start: u64, threshold: u32, scale: f32) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { fill_avx2(chunk, seed, start, threshold, scale) };
    }
    fill_loop(chunk, seed, start, threshold, scale);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn fill_avx2(chunk: &mut [f32], seed: u64, start: u64, threshold: u32, scale: f32) {
    fill_loop(chunk, seed, start, threshold, scale);
}

/// Two rounds of MurmurHash3's finalizer over the element's number, keyed before each; 32 bits wide, which AVX2
/// multiplies eight at a time.
#[inline(always)]
fn fill_loop(chunk: &mut [f32], seed: u64, start: u64, threshold: u32, scale: f32) {
    let (low, high) = (seed as u32, (seed >> 32) as u32 ^ (start >> 32) as u32);
    let first = start as u32;
    for (i, to) in chunk.iter_mut().enumerate() {
        let mut x = first.wrapping_add(i as u32).wrapping_mul(0x9e37_79b9) ^ low;
        x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
        x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35).wrapping_add(high);
        x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
        x ^= x >> 15;
        *to = if (x >> 16) < threshold { scale } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_keep_the_mean_and_repeat() {
        let x = Tensor::ones([1000, 100], (Kind::Float, Device::Cpu));
        for p in [0.1, 0.5, 0.9] {
            let dropped = drop(&x, p, 7);
            let mean = dropped.mean(Kind::Double).double_value(&[]);
            assert!((mean - 1.0).abs() < 0.02, "{p}: {mean}");
            // Neighbours are independent.
            let flat = dropped.eq(0.0).to_kind(Kind::Double).view([-1]) - p;
            for lag in [1, 2, 8, 100, 8192] {
                let n = 100_000 - lag;
                let product = (flat.narrow(0, 0, n) * flat.narrow(0, lag, n)).mean(Kind::Double).double_value(&[]);
                assert!((product / (p * (1.0 - p))).abs() < 0.02, "{p}, lag {lag}: {product}");
            }
            assert_eq!(drop(&x, p, 7), dropped);
            assert_ne!(drop(&x, p, 8), dropped);
        }
        assert_eq!(drop(&x, 0.0, 7), x);
    }
}

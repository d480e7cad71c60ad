//! Random streams derived from (seed, stream, epoch, step): resuming needs no saved generator state.

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use sha2::{Digest, Sha256};

/// What a random stream is used for; each has numbers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Initial weights.
    Init,
    /// Order of the rows in an epoch.
    Shuffle,
    /// Negative items.
    Negatives,
    /// Dropout masks.
    Dropout,
    /// Generated data.
    Data,
    /// Resampling in confidence intervals.
    Bootstrap,
    /// Which training rows a teacher labels.
    Labelled,
    /// Negative items and selection of distillation.
    Distill,
}

/// A 64-bit seed that depends on every argument.
pub fn derive(seed: u64, stream: Stream, epoch: u64, step: u64) -> u64 {
    let mut hash = Sha256::new();
    hash.update(b"anyo-seed-1");
    for part in [seed, stream as u64, epoch, step] {
        hash.update(part.to_le_bytes());
    }
    let digest = hash.finalize();
    u64::from_le_bytes([digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6], digest[7]])
}

/// A generator for that derived seed; its stream is the same on every machine and version.
pub fn rng(seed: u64, stream: Stream, epoch: u64, step: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(derive(seed, stream, epoch, step))
}

/// A generator for one row of many under a derived `base`; cheaper than [`rng`], for use once per training row.
pub fn row_rng(base: u64, row: u64) -> ChaCha8Rng {
    // Neighbouring rows must not give neighbouring seeds: multiply by an odd constant before mixing in.
    ChaCha8Rng::seed_from_u64(base ^ row.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_argument_matters() {
        let base = derive(1, Stream::Shuffle, 2, 3);
        assert_eq!(base, derive(1, Stream::Shuffle, 2, 3));
        for other in [
            derive(2, Stream::Shuffle, 2, 3),
            derive(1, Stream::Init, 2, 3),
            derive(1, Stream::Shuffle, 3, 3),
            derive(1, Stream::Shuffle, 2, 4),
        ] {
            assert_ne!(base, other);
        }
    }
}

//! What one forward pass is told besides its tokens; nothing of it is global.

use std::cell::Cell;

use tch::Tensor;

/// Settings of one forward pass.
#[derive(Debug, Default)]
pub struct Pass<'a> {
    /// Dropout masks derive from this; `None`: no dropout.
    pub dropout: Option<DropoutStream>,
    /// Weight of each expert of a gated adapter for each row, `[B, E]`; without it gated adapters are an error to call.
    pub gate: Option<&'a Tensor>,
    /// Leave all adapters out.
    pub base_only: bool,
    /// Recompute each layer's activations in the backward pass instead of keeping them.
    pub checkpointing: bool,
}

/// Seeds for the dropout masks of one training step: the n-th call of a step always gets the same one.
#[derive(Debug)]
pub struct DropoutStream {
    seed: u64,
    calls: Cell<u64>,
}

impl DropoutStream {
    /// A stream derived from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, calls: Cell::new(0) }
    }

    /// The next mask's seed.
    pub fn next_seed(&self) -> u64 {
        let call = self.calls.replace(self.calls.get() + 1);
        mix(self.seed ^ mix(call))
    }

    /// How many seeds were taken; with [`DropoutStream::rewind`] a recomputed layer draws its masks again.
    pub fn position(&self) -> u64 {
        self.calls.get()
    }

    /// Goes back to an earlier [`DropoutStream::position`].
    pub fn rewind(&self, position: u64) {
        self.calls.set(position);
    }
}

/// The finalizer of SplitMix64.
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

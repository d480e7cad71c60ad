//! What one forward pass is told besides its tokens; nothing of it is global.

use anyo_core::torch::DropoutStream;
use tch::Tensor;

/// Settings of one forward pass.
#[derive(Debug, Default)]
pub struct Pass<'a> {
    /// Dropout masks derive from this; `None`: no dropout.
    pub dropout: Option<DropoutStream>,
    /// Weight of each expert of a gated adapter for each row, `[B, E]`; without it gated adapters are an error to call.
    pub gate: Option<&'a Tensor>,
    /// Where x is only some of the flat rows `[N,in]` of a layer's input: which ones, so that dropout drops what it would
    /// drop there; [`Pass::gate`] then has a row for each. `None`: all.
    pub rows: Option<&'a [i64]>,
    /// Leave all adapters out.
    pub base_only: bool,
    /// Recompute each layer's activations in the backward pass instead of keeping them.
    pub checkpointing: bool,
}

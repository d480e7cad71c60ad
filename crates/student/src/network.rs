//! What training and ranking need of a network.

use tch::Tensor;

use crate::{batch::Input, dropout::Mode, loss::Head};

/// A sequence encoder with a scoring head.
pub trait Network {
    /// The id that stands at empty places of an input.
    fn pad(&self) -> i64;

    /// The table of item vectors that enter the network, `[n_items, D]` or with a row for the pad.
    fn items(&self) -> &Tensor;

    /// [`Network::states`] with another table in place of [`Network::items`], of the same shape.
    fn states_from(&self, items: &Tensor, input: &Input, mode: &Mode) -> Tensor;

    /// States after each place, `[B,T,D]`; place t has seen items 0..=t. Only rows for which a state at every place
    /// exists are asked for (see `rows` in the configuration).
    fn states(&self, input: &Input, mode: &Mode) -> Tensor {
        self.states_from(self.items(), input, mode)
    }

    /// State after the newest item of each row, `[B,D]`, without dropout.
    fn newest(&self, input: &Input) -> Tensor;

    /// The scoring head.
    fn head(&self) -> Head;
}

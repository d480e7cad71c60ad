//! Causal language models in Hugging Face format: loading, generation, adapters, quantised bases, training.
//!
//! Axis letters: `B` rows, `S` positions, `D` width, `H` heads, `V` vocabulary, `E` experts, `R` rank.

mod causal;
mod linear;
mod pass;
pub mod train;

pub use causal::{Causal, LmInput};
pub use linear::Linear;
pub use pass::{DropoutStream, Pass};

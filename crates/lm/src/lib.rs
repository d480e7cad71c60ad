//! Causal language models in Hugging Face format: loading, generation, adapters, quantised bases, training.
//!
//! Axis letters: `B` rows, `S` positions, `D` width, `H` heads, `V` vocabulary, `E` experts, `R` rank.

mod causal;
pub mod chat;
pub mod generate;
mod linear;
mod pass;
pub mod tokenizer;

pub use causal::{Causal, LmInput};
pub use linear::Linear;
pub use pass::{DropoutStream, Pass};
pub use tokenizer::Tokenizer;

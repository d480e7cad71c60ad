//! Causal language models in Hugging Face format: loading, generation, adapters, quantised bases, training.
//!
//! Axis letters: `B` rows, `S` positions, `D` width, `H` heads, `V` vocabulary, `E` experts, `R` rank.

mod attention;
pub mod builtin;
mod cache;
mod causal;
pub mod config;
mod linear;
pub mod llama2c;
mod model;
mod pass;
pub mod plan;
mod rope;
pub mod train;
pub mod weights;

pub use cache::KvCache;
pub use causal::{Causal, LmInput};
pub use config::{Architecture, LmConfig, RopeConfig, RopeScaling};
pub use linear::Linear;
pub use model::{CausalLm, Checkpointed, Gradients, LoadOptions};
pub use pass::{DropoutStream, Pass};
pub use weights::WeightFiles;

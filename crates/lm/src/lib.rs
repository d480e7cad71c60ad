//! Causal language models in Hugging Face format: loading, generation, adapters, quantised bases, training.
//!
//! Axis letters: `B` rows, `S` positions, `D` width, `H` heads, `V` vocabulary, `E` experts, `R` rank.

mod attention;
mod cache;
mod causal;
pub mod config;
mod linear;
pub mod llama2c;
mod model;
mod pass;
mod rope;
pub mod weights;

pub use cache::KvCache;
pub use causal::{Causal, LmInput};
pub use config::{Architecture, LmConfig, RopeConfig, RopeScaling};
pub use linear::Linear;
pub use model::{CausalLm, Checkpointed, CheckpointedGradients, LoadOptions};
pub use pass::{DropoutStream, Pass};
pub use weights::WeightFiles;

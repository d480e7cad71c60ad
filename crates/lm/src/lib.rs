//! Causal language models in Hugging Face format: loading, generation, adapters, quantised bases, training.
//!
//! Axis letters: `B` rows, `S` positions, `D` width, `H` heads, `V` vocabulary, `E` experts, `R` rank.

mod attach;
mod attention;
pub mod builtin;
mod cache;
mod causal;
pub mod chat;
pub mod config;
mod dense;
#[doc(hidden)]
pub mod fuzz;
mod gated;
pub mod generate;
mod linear;
pub mod llama2c;
mod lora;
mod model;
mod pass;
mod peft;
pub mod plan;
pub mod quant;
mod rope;
mod single_place;
mod single_query;
pub mod tokenizer;
pub mod train;
pub mod weights;

pub use anyo_core::torch::DropoutStream;
pub use attach::{Attached, LoraConfig, Targets, attach};
pub use cache::KvCache;
pub use causal::{Causal, LmInput};
pub use config::{Architecture, LmConfig, RopeConfig, RopeScaling};
pub use gated::{GatedLora, check_gate};
pub use linear::{Adapter, AdapterKind, Linear};
pub use lora::Lora;
pub use model::{CausalLm, Checkpointed, CheckpointedGradients, LoadOptions};
pub use pass::Pass;
pub use peft::{PeftAdapter, load_peft, save_peft};
pub use tokenizer::Tokenizer;
pub use weights::WeightFiles;

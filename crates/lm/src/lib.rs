//! Causal language models in Hugging Face format: loading, generation, adapters, quantised bases, training.
//!
//! Axis letters: `B` rows, `S` positions, `D` width, `H` heads, `V` vocabulary, `E` experts, `R` rank.

mod attach;
mod causal;
mod dropout;
mod gated;
mod linear;
mod lora;
mod pass;
mod peft;
pub mod quant;

pub use attach::{Attached, LoraConfig, Targets, attach};
pub use causal::{Causal, LmInput};
pub use gated::{GatedLora, check_gate};
pub use linear::{Adapter, AdapterKind, Linear};
pub use lora::Lora;
pub use pass::{DropoutStream, Pass};
pub use peft::{PeftAdapter, load_peft, save_peft};

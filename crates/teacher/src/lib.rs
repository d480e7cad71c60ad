//! The LLM teacher iLoRA: a gate computed from each user's history weighs the experts of a low-rank adapter.
//!
//! Axis letters: `B` rows, `S` tokens, `D` width of the language model, `d` width of the sequence encoder, `E` experts,
//! `I` items of the catalogue.

mod tokens;

pub use tokens::{Mark, PromptMode, PromptSource, Prompted};

//! The LLM teacher iLoRA: a gate computed from each user's history weighs the experts of a low-rank adapter.
//!
//! Axis letters: `B` rows, `S` tokens, `D` width of the language model, `d` width of the sequence encoder, `E` experts,
//! `I` items of the catalogue.

pub mod config;
mod encoder;
mod gate;
mod head;
mod model;
mod projector;
mod rank;
mod tokens;
mod train;

pub use config::TeacherConfig;
pub use encoder::Encoder;
pub use gate::{Gate, GateMode, GateStats, row_key};
pub use head::{Head, HeadLoss, ItemVectors, encode_titles};
pub use model::{AddedTokens, Counts, Layout, Parts, Prepared, Sequence, Side, Teacher};
pub use projector::Projector;
pub use rank::{RankSettings, Ranker};
pub use tokens::{Mark, PromptMode, PromptSource, Prompted};
pub use train::{
    CandidateSource, TeacherFitted, TeacherSetup, TrainRow, TrainRows, Validate, fit_teacher, hybrid_probability,
};

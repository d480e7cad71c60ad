//! Distillation: a student learns from a teacher bundle (DLLM2Rec, and what goes beyond it).
//!
//! The specification is `docs/specification/03_distill_dllm2rec.md`. Axes: N targets of a batch, K items of a list, D width
//! of a state or a table, T width of a teacher's item vector.

mod batch;
mod config;
mod distillation;
mod figures;
mod fuse;
pub mod gate;
mod lists;
pub mod look;
pub mod negatives;
mod overlap;
pub mod pairs;
mod pipeline;
pub mod policy;
pub mod terms;
pub mod weights;

pub use config::{
    ConfidenceForm, ConsistencyConfig, DistillConfig, DrosTerm, EmbeddingConfig, EmbeddingName, GateConfig, GateName,
    ListwiseConfig, Missing, NegativeTerm, Over, RankingLoss, RdNegatives, Side, WeightsConfig,
};
pub use distillation::Distillation;
pub use fuse::{Fused, Hint, Vectors, attach, is_tied};
pub use lists::{List, RowInfo, TeacherLists};
pub use pipeline::{DistillRunConfig, run_distill};

//! The LLM teacher iLoRA: a gate computed from each user's history weighs the experts of a low-rank adapter.
//!
//! Axis letters: `B` rows, `S` tokens, `D` width of the language model, `d` width of the sequence encoder, `E` experts,
//! `I` items of the catalogue.

pub mod answers;
mod asked;
pub mod candidates;
pub mod config;
mod encoder;
mod gate;
mod ground;
mod head;
mod likelihood;
pub mod metric;
mod model;
mod pipeline;
mod projector;
pub mod prompt;
mod rank;
mod say;
pub mod titles;
mod tokens;
mod train;

pub use answers::{Answer, evaluate_choices};
pub use candidates::{Candidates, ChoiceRow, Draw};
pub use config::{SoftConfig, TeacherConfig};
pub use encoder::Encoder;
pub use gate::{Gate, GateMode, GateStats, row_key};
pub use ground::{Grounded, Grounding, TitleState};
pub use head::{Aim, Head, HeadLoss, ItemVectors, Listed, encode_titles, title_features};
pub use likelihood::{Likelihood, Likely, Rerank};
pub use metric::{
    ChoiceMetrics, Rates,
    matcher::{Found, Matcher},
};
pub use model::{AddedTokens, Counts, Layout, Parts, Prepared, Sequence, Side, Teacher};
pub use pipeline::{
    BuiltinRecipe, ChoiceConfig, EncoderRecipe, FirstRanker, GroundConfig, RankersConfig, RerankConfig, TEACHER_FILE,
    TeacherExport, TeacherRunConfig, TeacherWay, assemble, builtin_texts, run_teacher,
};
pub use projector::Projector;
pub use prompt::{
    Prompts,
    config::{AnswerEnd, Bos, CandidatesConfig, MarkerNames, PromptConfig, Repeated, Template, TitleShown},
    counts::{PromptCounts, PromptSummary},
    in_row,
    markers::{MarkerIds, Markers},
};
pub use rank::{RankSettings, Ranker};
pub use say::Speaker;
pub use titles::{TitleReport, Titles};
pub use tokens::{Mark, PromptMode, PromptSource, Prompted};
pub use train::{
    CandidateSource, SoftTargets, TeacherFitted, TeacherSetup, TrainRow, TrainRows, Validate, fit_teacher,
    hybrid_probability,
};

//! The LLM teacher iLoRA: a gate computed from each user's history weighs the experts of a low-rank adapter.
//!
//! Axis letters: `B` rows, `S` tokens, `D` width of the language model, `d` width of the sequence encoder, `E` experts,
//! `I` items of the catalogue.

pub mod answers;
pub mod candidates;
pub mod metric;
pub mod metric_match;
mod prompt;
mod prompt_config;
mod prompt_counts;
mod prompt_form;
mod prompt_markers;
mod prompt_pieces;
mod prompt_titles;
mod template;
pub mod titles;
mod tokens;

pub use answers::{Answer, evaluate_choices};
pub use candidates::{Candidates, ChoiceRow, Draw, Instance, Instances};
pub use metric::{ChoiceMetrics, Rates};
pub use metric_match::{Found, Matcher};
pub use prompt::{Prompts, in_row};
pub use prompt_config::{AnswerEnd, Bos, CandidatesConfig, MarkerNames, PromptConfig, Repeated, Template, TitleShown};
pub use prompt_counts::{PromptCounts, PromptSummary};
pub use prompt_markers::{MarkerIds, Markers};
pub use titles::{TitleReport, Titles};
pub use tokens::{Mark, PromptMode, PromptSource, Prompted};

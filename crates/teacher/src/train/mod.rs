//! Training of the teacher: rows, prompts, losses, steps, checkpoints, exact resume.

mod curriculum;
mod fit;
mod micro;
mod prompts;
mod rows;
mod soft;
mod state;

use std::path::Path;

use anyo_core::{Result, data::Dataset, eval::EvalConfig};

pub use curriculum::hybrid_probability;
pub use fit::fit_teacher;
pub(crate) use fit::valid_rows;
pub use rows::{TrainRow, TrainRows};
pub use soft::SoftTargets;
pub use state::TeacherFitted;

use crate::{config::TeacherConfig, encoder::Encoder, model::Teacher, tokens::PromptSource};

/// Where training gets the candidates of a choice prompt from; closures of the same shape are such sources.
pub trait CandidateSource {
    /// Candidates in the order shown, `target` among them, for the row `key` ([`TrainRow::key`]) in `epoch`. The history
    /// comes whole, oldest first.
    ///
    /// # Errors
    /// When there are not enough items to draw from.
    fn draw(&self, epoch: u64, key: u64, history: &[u32], target: u32) -> Result<Vec<u32>>;
}

impl<F: Fn(u64, u64, &[u32], u32) -> Result<Vec<u32>>> CandidateSource for F {
    fn draw(&self, epoch: u64, key: u64, history: &[u32], target: u32) -> Result<Vec<u32>> {
        self(epoch, key, history, target)
    }
}

/// A validation of one's own: names and values, among them the metric that selects.
pub type Validate<'a> = dyn Fn(&Teacher) -> Result<Vec<(String, f64)>> + 'a;

/// What a training is made of.
#[derive(Clone, Copy)]
pub struct TeacherSetup<'a> {
    /// The configuration of model and loop.
    pub config: &'a TeacherConfig,
    /// The data; only training and validation rows are used.
    pub dataset: &'a Dataset,
    /// The frozen encoder.
    pub encoder: &'a Encoder,
    /// The prompts.
    pub prompts: &'a dyn PromptSource,
    /// The candidates of choice prompts.
    pub candidates: &'a dyn CandidateSource,
    /// What the scoring head learns beside the true items.
    pub soft: Option<&'a SoftTargets<'a>>,
    /// How weights are selected; `None`: by ranking validation rows with the scoring head.
    pub validate: Option<&'a Validate<'a>>,
    /// How that ranking is measured.
    pub eval: &'a EvalConfig,
    /// Root of all random streams.
    pub seed: u64,
    /// Where checkpoints and the best weights go; `None` keeps the best in memory only.
    pub folder: Option<&'a Path>,
    /// Continue from the newest whole checkpoint in `folder`.
    pub resume: bool,
}

//! The whole configuration of `run-teacher`; defaults and meanings stand in `conf/run-teacher.yaml`.

use std::{collections::BTreeMap, path::PathBuf};

use anyo_core::{
    bundle::Distance,
    config::{Check, Problem},
    data::{DataConfig, DatasetConfig},
    eval::EvalConfig,
    run::RunConfig,
    torch::DeviceChoice,
};
use anyo_lm::builtin::BuiltinConfig;
use anyo_student::{TrainConfig, config::StudentConfig};
use serde::{Deserialize, Serialize};

use crate::{config::TeacherConfig, tokens::PromptMode};

/// Everything that `run-teacher` reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherRunConfig {
    /// Which data.
    pub dataset: DatasetConfig,
    /// Model, prompts and training.
    pub teacher: TeacherConfig,
    /// The encoder that is trained on the spot where `teacher.encoder_run` is null.
    pub encoder: EncoderRecipe,
    /// The language model that is trained on the spot where `teacher.lm` is `builtin`.
    pub builtin: BuiltinRecipe,
    /// Root of all random streams.
    pub seed: u64,
    /// Where to compute.
    pub device: DeviceChoice,
    /// CPU threads, 0 for all cores.
    pub threads: usize,
    /// Where data lies.
    pub data: DataConfig,
    /// How the whole catalogue is ranked and measured.
    pub eval: EvalConfig,
    /// The questions with candidates.
    pub choice: ChoiceConfig,
    /// Rows beside the teacher, by name; popularity and the encoder are always there.
    pub baselines: BTreeMap<String, StudentConfig>,
    /// The teacher bundle.
    pub export: TeacherExport,
    /// Where the run writes.
    pub run: RunConfig,
}

/// A student and its training.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderRecipe {
    /// The model.
    pub student: StudentConfig,
    /// Its training.
    pub train: TrainConfig,
}

/// The built-in language model.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuiltinRecipe {
    /// Training histories that it reads as running text.
    pub histories: usize,
    /// Finished models, found again by the hash of texts and settings.
    pub cache: PathBuf,
    /// Sizes and training.
    pub model: BuiltinConfig,
}

/// `choice:`, asking which of some candidates comes next.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChoiceConfig {
    /// Test rows that are asked, the first ones; 0 asks none; null asks all.
    #[serde(deserialize_with = "Option::deserialize")]
    pub rows: Option<usize>,
    /// Rows with a shorter history are not asked.
    pub min_history: usize,
    /// Prompts generated together.
    pub batch: usize,
}

/// `export:`, what becomes of the training rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherExport {
    /// Whether to write a bundle; a teacher without a scoring head has none to write, which the log says.
    pub enabled: bool,
    /// K, the length of a list.
    pub top_n: usize,
    /// How scores become distances.
    pub distance: Distance,
    /// Leave items of the history out of the lists (the target never is on that account).
    pub exclude_history: bool,
    /// Whether a list may hold its row's target.
    pub target_may_appear: bool,
    /// Label so many rows drawn at random; null: all.
    #[serde(deserialize_with = "Option::deserialize")]
    pub rows: Option<usize>,
    /// Draws them.
    pub rows_seed: u64,
    /// Rows in memory before they become a part on disk.
    pub part_rows: usize,
    /// Seconds in memory before they do.
    pub part_seconds: u64,
    /// Write DLLM2Rec's three files beside the bundle.
    pub dllm2rec: bool,
}

impl TeacherRunConfig {
    /// Prompts of evaluation and export carry item vectors where the teacher was given any.
    pub(super) fn mode(&self) -> PromptMode {
        match self.teacher.injection {
            true => PromptMode::Hybrid,
            false => PromptMode::TextOnly,
        }
    }
}

impl Check for TeacherRunConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut list = Vec::new();
        let mut nested = |key: &str, config: &dyn Check| {
            list.extend(config.problems().into_iter().map(|p| p.under(key)));
        };
        nested("dataset", &self.dataset);
        nested("teacher", &self.teacher);
        nested("encoder.student", &self.encoder.student);
        nested("encoder.train", &self.encoder.train);
        nested("data", &self.data);
        nested("eval", &self.eval);
        for (name, config) in &self.baselines {
            nested(&format!("baselines.{name}"), config);
        }
        for (name, config) in &self.baselines {
            if config.recipe().is_some() {
                list.push(Problem::new(
                    format!("baselines.{name}"),
                    format!("`{}` must be trained; give it a run of its own", config.name()),
                ));
            }
        }
        let sizes = [
            ("choice.batch", self.choice.batch),
            ("export.top_n", self.export.top_n),
            ("export.part_rows", self.export.part_rows),
        ];
        for (key, value) in sizes {
            if value == 0 {
                list.push(Problem::new(key, "wanted at least 1, got 0"));
            }
        }
        if self.export.rows == Some(0) {
            let hint = Some("write export.rows=null for all, export.enabled=false for no bundle".to_owned());
            list.push(Problem { hint, ..Problem::new("export.rows", "wanted at least 1 or null, got 0") });
        }
        list
    }
}

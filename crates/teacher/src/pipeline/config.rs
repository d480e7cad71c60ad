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

use crate::{
    config::{SoftConfig, TeacherConfig},
    ground::TitleState,
    likelihood::Likely,
    tokens::PromptMode,
};

/// Everything that `run-teacher` reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherRunConfig {
    /// Which data.
    pub dataset: DatasetConfig,
    /// Model, prompts and training.
    pub teacher: TeacherConfig,
    /// What the scoring head learns from a student's bundle beside the true items.
    pub soft_targets: SoftConfig,
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
    /// Further ways to rank the test rows with the teacher.
    pub rankers: RankersConfig,
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

/// `rankers:`, ways beside the scoring head, each a row of the comparison. The bundle's lists are the head's alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RankersConfig {
    /// Which ways; none by default.
    pub also: Vec<TeacherWay>,
    /// Rank so many test rows drawn once, in a table of their own; 0 ranks all.
    pub rows: usize,
    /// Prompts, and titles, in one forward pass.
    pub batch: usize,
    /// What a title's likelihood is, for itself and for reranking.
    pub likely: Likely,
    /// Reranking.
    pub rerank: RerankConfig,
    /// Grounding.
    pub ground: GroundConfig,
}

/// A way to rank the catalogue with a teacher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TeacherWay {
    /// Log-likelihood of every title: for small catalogues.
    Likelihood,
    /// The best of another ranker in the order of their titles' likelihood.
    Rerank,
    /// Distance of every title to a generated answer (BIGRec).
    Ground,
}

impl TeacherWay {
    /// Its name in configurations and tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Likelihood => "likelihood",
            Self::Rerank => "rerank",
            Self::Ground => "ground",
        }
    }
}

/// Whose best items are reranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstRanker {
    /// The scoring head's.
    Head,
    /// The frozen encoder's.
    Encoder,
}

/// `rankers.rerank:`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RerankConfig {
    /// Whose.
    pub first: FirstRanker,
    /// How many.
    pub top_k: usize,
}

/// `rankers.ground:`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroundConfig {
    /// Which state stands for a title.
    pub state: TitleState,
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
        nested("soft_targets", &self.soft_targets);
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
            ("rankers.batch", self.rankers.batch),
            ("rankers.rerank.top_k", self.rankers.rerank.top_k),
            ("export.top_n", self.export.top_n),
            ("export.part_rows", self.export.part_rows),
        ];
        for (key, value) in sizes {
            if value == 0 {
                list.push(Problem::new(key, "wanted at least 1, got 0"));
            }
        }
        let RankersConfig { also, rerank, .. } = &self.rankers;
        for (i, way) in also.iter().enumerate() {
            if also[..i].contains(way) {
                list.push(Problem::new("rankers.also", format!("`{}` is named twice", way.name())));
            }
        }
        let needs_head = also.contains(&TeacherWay::Rerank) && rerank.first == FirstRanker::Head;
        if needs_head && self.teacher.head.is_none() {
            let hint = Some("write rankers.rerank.first=encoder".to_owned());
            let message = "`head` needs a teacher with a scoring head, and teacher.head is null";
            list.push(Problem { hint, ..Problem::new("rankers.rerank.first", message) });
        }
        if self.soft_targets.run.is_some() && self.teacher.head.is_none() {
            let hint = Some("write soft_targets.run=null, or keep teacher.head".to_owned());
            let message = "the scoring head learns from these lists, and teacher.head is null";
            list.push(Problem { hint, ..Problem::new("soft_targets.run", message) });
        }
        if self.export.rows == Some(0) {
            let hint = Some("write export.rows=null for all, export.enabled=false for no bundle".to_owned());
            list.push(Problem { hint, ..Problem::new("export.rows", "wanted at least 1 or null, got 0") });
        }
        list
    }
}

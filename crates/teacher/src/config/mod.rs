//! Configuration of the teacher's model and training; the defaults and their reasons stand in `conf/teacher/*.yaml`.

mod gate;
mod soft;
mod train;

use std::path::PathBuf;

use anyo_core::{
    config::{Check, Problem, Ranges},
    torch::Dtype,
};
use anyo_lm::{LoraConfig, Targets};
use serde::{Deserialize, Serialize};

use crate::prompt::config::PromptConfig;
pub use gate::{GateConfig, GateName, GateNorm};
pub use soft::SoftConfig;
pub use train::{Curriculum, GroupRecipe, Groups, RecipeConfig, TeacherTrainConfig};

/// `teacher:` in the configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherConfig {
    /// What tables call it.
    pub name: String,
    /// `builtin`, or the folder of a language model in Hugging Face format.
    pub lm: String,
    /// Number type of the language model; adapters, gate, projector and head are f32.
    pub dtype: Dtype,
    /// Run folder of the trained sequence encoder, or `latest`; null: trained on the spot.
    #[serde(deserialize_with = "Option::deserialize")]
    pub encoder_run: Option<PathBuf>,
    /// How histories and candidates become text. Its window is what the prompt shows of a history; the encoder sees as
    /// many items as it was made for.
    pub prompt: PromptConfig,
    /// Hybrid prompts carry projected item vectors at their markers; false: no projector, prompts are text only.
    pub injection: bool,
    /// The added tokens' vectors learn too; false: they stay as drawn. They are saved either way.
    pub train_tokens: bool,
    /// The adapters; null: the language model stays as it is.
    #[serde(deserialize_with = "Option::deserialize")]
    pub lora: Option<LoraPart>,
    /// What weighs the adapters' experts; null: plain LoRA.
    #[serde(deserialize_with = "Option::deserialize")]
    pub gate: Option<GateConfig>,
    /// The head that scores the whole catalogue; null: none.
    #[serde(deserialize_with = "Option::deserialize")]
    pub head: Option<HeadConfig>,
    /// The training loop.
    pub train: TeacherTrainConfig,
}

/// `teacher.lora:`, adapters on the linears of the language model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraPart {
    /// Rank of all experts together.
    pub rank: i64,
    /// The scale is alpha / (rank / experts) with a gate, alpha / rank without.
    pub alpha: f64,
    /// Dropout before the down projection.
    pub dropout: f64,
    /// Which linears: `all-linear`, a list of names, or a regular expression.
    pub targets: Targets,
}

/// `teacher.head:`, an extension of the method: every item scored from the last state of the prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadConfig {
    /// What item vectors are made of.
    pub items: HeadItems,
    /// Width in which users and items are compared, at least 1.
    pub dim: i64,
    /// Compare directions only (cosine).
    pub normalize: bool,
    /// Initial factor of the scores, which is learned; above 0.
    pub scale: f64,
    /// Learn a number for each item that is added to its score.
    pub item_bias: bool,
    /// Share of the items that lose their encoder vector in a training step, so that titles learn to stand alone
    /// (DropoutNet, Volkovs et al. 2017); needs `items: both`.
    pub id_dropout: f64,
    /// What items are that were never a training target.
    pub unseen: Unseen,
    /// How much of the log of an item's frequency as a training target is added to its score in the softmax (logit
    /// adjustment, Menon et al. 2021): 1 leaves to the vectors only what frequency does not explain, so rare items are not
    /// pushed down for being rare. How much of it ranks is chosen on validation. 0: none.
    pub prior: f64,
    /// Whether the encoder's own scores are added, in the share that is best on validation.
    pub encoder: bool,
}

/// How the head treats items that are no target of any training row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unseen {
    /// Wrong answers to every row, with an encoder vector that was hardly ever moved: they sink to the end.
    AsOthers,
    /// Left out of the softmax and without an encoder vector: their title speaks for them.
    ByTitle,
}

/// What the head's item vectors are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadItems {
    /// The encoder's item vector: knows nothing of items that are rare in training.
    Id,
    /// The title as the bare language model reads it.
    Title,
    /// The sum of both, each through a matrix of its own.
    Both,
}

impl TeacherConfig {
    /// The adapters as the language model's crate wants them.
    pub fn lora_config(&self) -> Option<LoraConfig> {
        self.lora.as_ref().map(|lora| LoraConfig {
            rank: lora.rank,
            alpha: lora.alpha,
            dropout: lora.dropout,
            rslora: false,
            targets: lora.targets.clone(),
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            experts: self.gate.as_ref().map(|gate| gate.experts),
        })
    }

    /// Whether there is anything to train.
    pub fn learns(&self) -> bool {
        self.lora.is_some() || self.injection || self.train_tokens || self.head.is_some()
    }
}

impl Check for TeacherConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut list = Ranges::default();
        if self.lm.is_empty() {
            list.push("lm", "wanted builtin or the folder of a language model, got an empty text".into());
        }
        list.nested("prompt", &self.prompt);
        if let Some(config) = self.lora_config() {
            for message in config.problems() {
                list.push("lora", message);
            }
            if let Some(experts) = config.experts.filter(|&e| e > 0 && config.rank % e != 0) {
                list.push("lora.rank", format!("wanted a multiple of {experts} experts, got {}", config.rank));
            }
        }
        if let Some(gate) = &self.gate {
            list.nested("gate", gate);
            if self.lora.is_none() {
                list.push("gate", "a gate weighs the experts of teacher.lora, which is null".into());
            }
        }
        if let Some(head) = &self.head {
            list.nested("head", head);
        }
        list.nested("train", &self.train);
        let train = &self.train;
        if train.epochs > 0 && !self.learns() {
            list.push("train.epochs", "nothing learns (no lora, injection, tokens or head): wanted 0".into());
        }
        if train.choice_share < 1.0 && train.open_lm_weight == 0.0 && (self.head.is_none() || train.head_weight == 0.0)
        {
            list.push(
                "train.choice_share",
                "open prompts have no loss here (no head, open_lm_weight 0): wanted 1".into(),
            );
        }
        if !self.injection && train.curriculum != Curriculum::AlwaysText && train.epochs > 0 {
            list.push("train.curriculum", "without teacher.injection every prompt is text: wanted always_text".into());
        }
        list.0
    }
}

impl Check for HeadConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut list = Ranges::default();
        list.at_least("dim", self.dim as f64, 1.0);
        list.positive("scale", self.scale);
        list.probability("id_dropout", self.id_dropout);
        if !(0.0..=1.0).contains(&self.prior) {
            list.push("prior", format!("wanted 0 to 1, got {}", self.prior));
        }
        if self.id_dropout > 0.0 && self.items != HeadItems::Both {
            list.push("id_dropout", "titles can stand in for vectors with items: both only; wanted 0".into());
        }
        list.0
    }
}

#[cfg(test)]
pub(crate) mod tests;

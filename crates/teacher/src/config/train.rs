//! Configuration of the teacher's training.

use anyo_core::{
    config::{Check, Problem, Ranges},
    torch::{Group, OptimConfig, OptimName, Params, ScheduleConfig, ScheduleName},
};
use anyo_student::CheckpointConfig;
use serde::{Deserialize, Serialize};

/// `teacher.train:`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherTrainConfig {
    /// Rows of a micro-batch, at least 1.
    pub batch_size: usize,
    /// Micro-batches of a step, at least 1; the gradient is the same however a step is cut.
    pub accumulation: usize,
    /// Passes over the training rows at most; 0 trains nothing.
    pub epochs: u64,
    /// Steps at most; null: all epochs. It also is the length of schedule and curriculum.
    #[serde(deserialize_with = "Option::deserialize")]
    pub max_steps: Option<u64>,
    /// Train on so many rows drawn once at random; 0 takes all.
    pub max_rows: usize,
    /// Rows with a shorter history are left out, and counted.
    pub min_history: usize,
    /// Share of the micro-batches that list candidates; the others ask for any item of the catalogue.
    pub choice_share: f64,
    /// Weight of the language model's loss where no candidates are listed.
    pub open_lm_weight: f64,
    /// Weight of the scoring head's loss, which prompts without candidates train.
    pub head_weight: f64,
    /// When prompts carry item vectors.
    pub curriculum: Curriculum,
    /// Rows are sorted by length within so many shuffled micro-batches; 1 leaves them shuffled.
    pub sort_chunk: usize,
    /// Recompute each layer in the backward pass: less memory, about a third more time.
    pub checkpointing: bool,
    /// Megabytes for tokenised prompts that are kept from epoch to epoch.
    pub cache_mb: usize,
    /// Steps between validations; 0 validates at the end only.
    pub valid_every: u64,
    /// Validate on so many rows drawn once at random; 0 takes all.
    pub valid_rows: usize,
    /// The validation metric that selects the weights, such as `ndcg@10`.
    pub metric: String,
    /// Stop after so many validations without a better value; 0 never stops early.
    pub patience: u64,
    /// Steps between scalars.
    pub log_every: u64,
    /// When checkpoints are written.
    pub checkpoint: CheckpointConfig,
    /// Optimizer and schedule.
    pub optim: RecipeConfig,
}

/// When prompts carry item vectors: the step is s of T, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Curriculum {
    /// With probability s/T: text first, vectors more and more.
    Linear,
    /// Always.
    AlwaysHybrid,
    /// Never.
    AlwaysText,
}

/// Adam and the rate over the steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeConfig {
    /// `adam` (decay as L2 in the gradient) or `adamw`.
    pub name: OptimName,
    /// Peak rate; above 0.
    pub lr: f64,
    /// β₁ and β₂.
    pub betas: [f64; 2],
    /// ε beside the square root.
    pub eps: f64,
    /// Largest norm of all gradients together; null: no clipping.
    #[serde(deserialize_with = "Option::deserialize")]
    pub clip_norm: Option<f64>,
    /// Share of the steps that warm up, 0 to below 1.
    pub warmup: f64,
    /// Rate at the first and the last step as a share of the peak.
    pub floor: f64,
    /// Factor of the rate and decay of each part.
    pub groups: Groups,
}

/// The parts with rates of their own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Groups {
    /// The adapters.
    pub lora: GroupRecipe,
    /// The gate.
    pub gate: GroupRecipe,
    /// The projector.
    pub projector: GroupRecipe,
    /// The scoring head.
    pub head: GroupRecipe,
    /// The added tokens.
    pub tokens: GroupRecipe,
}

/// Rate and decay of one part.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRecipe {
    /// Factor of the rate; above 0.
    pub lr: f64,
    /// Decay; at least 0.
    pub decay: f64,
}

impl RecipeConfig {
    /// The optimizer's configuration for a training of `total` steps.
    pub fn optim(&self, total: u64) -> OptimConfig {
        OptimConfig {
            name: self.name,
            lr: self.lr,
            betas: self.betas,
            eps: self.eps,
            weight_decay: 0.0,
            clip_norm: self.clip_norm,
            schedule: ScheduleConfig {
                name: ScheduleName::Cosine,
                warmup_steps: (total as f64 * self.warmup) as u64,
                total_steps: Some(total.max(1)),
                floor: self.floor,
            },
        }
    }

    /// The optimizer's groups that occur in `params`, by the first part of a name.
    pub fn groups(&self, params: &Params) -> Vec<Group> {
        let g = &self.groups;
        [
            ("lora", "base_model.", g.lora),
            ("gate", "gate.", g.gate),
            ("projector", "projector.", g.projector),
            ("head", "head.", g.head),
            ("tokens", "tokens.", g.tokens),
        ]
        .into_iter()
        .filter(|(_, prefix, _)| params.trainable().any(|(name, _)| name.starts_with(prefix)))
        .map(|(label, prefix, group)| Group::new(label, move |name| name.starts_with(prefix), group.lr, group.decay))
        .collect()
    }
}

impl Check for TeacherTrainConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut list = Ranges::default();
        list.at_least("batch_size", self.batch_size as f64, 1.0);
        list.at_least("accumulation", self.accumulation as f64, 1.0);
        if let Some(steps) = self.max_steps {
            list.at_least("max_steps", steps as f64, 1.0);
        }
        list.at_least("min_history", self.min_history as f64, 1.0);
        list.share("choice_share", self.choice_share);
        list.not_negative("open_lm_weight", self.open_lm_weight);
        list.not_negative("head_weight", self.head_weight);
        list.at_least("sort_chunk", self.sort_chunk as f64, 1.0);
        list.at_least("log_every", self.log_every as f64, 1.0);
        list.at_least("checkpoint.keep", self.checkpoint.keep as f64, 1.0);
        list.not_negative("checkpoint.every_minutes", self.checkpoint.every_minutes);
        list.nested("optim", &self.optim);
        list.0
    }
}

impl Check for RecipeConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut list = Ranges::default();
        list.0.extend(self.optim(1000).problems().into_iter().filter(|p| !p.key.starts_with("schedule")));
        if !(0.0..1.0).contains(&self.warmup) {
            list.push("warmup", format!("wanted 0 up to but not including 1, got {}", self.warmup));
        }
        list.share("floor", self.floor);
        let g = &self.groups;
        for (name, group) in
            [("lora", g.lora), ("gate", g.gate), ("projector", g.projector), ("head", g.head), ("tokens", g.tokens)]
        {
            list.positive(&format!("groups.{name}.lr"), group.lr);
            list.not_negative(&format!("groups.{name}.decay"), group.decay);
        }
        list.0
    }
}

//! Configuration of distillation; the defaults and their reasons stand in `conf/distill/*.yaml`.

use anyo_core::config::{Check, Problem, Ranges};
use serde::{Deserialize, Serialize};

/// `distill:` in the configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistillConfig {
    /// λ_d, weight of the ranking term; 0 leaves it out and never opens the teacher's lists.
    pub lambda_d: f64,
    /// K, items of the teacher's list that teach.
    pub top_k: usize,
    /// The form of the ranking term.
    pub loss: RankingLoss,
    /// Negatives of the form `bce`.
    pub rd_negatives: RdNegatives,
    /// How many of them a target meets, where they are `fresh`.
    pub n_negatives: usize,
    /// What a negative costs in the form `bce`.
    pub negative_term: NegativeTerm,
    /// DROS's term of the candidates in the form `bce`, where `student.loss.dros_alpha` is above 0.
    pub dros: DrosTerm,
    /// Factor on those terms beside `student.loss.dros_alpha`.
    pub dros_scale: f64,
    /// The form `listwise`.
    pub listwise: ListwiseConfig,
    /// Weights of the candidates in the form `bce`.
    pub weights: WeightsConfig,
    /// The weights that look at the student's own list.
    pub consistency: ConsistencyConfig,
    /// How far each row's list is trusted as a whole.
    pub gate: GateConfig,
    /// Let items of the history stay in the teacher's lists.
    pub keep_history: bool,
    /// What becomes of the teacher's item vectors.
    pub embedding: EmbeddingConfig,
    /// What becomes of targets without a teacher's list.
    pub missing: Missing,
}

/// The form of the ranking term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RankingLoss {
    /// Binary cross-entropy of each candidate, weighted (DLLM2Rec).
    Bce,
    /// Kullback–Leibler divergence from the teacher's distribution over its list to the student's.
    Listwise,
}

/// Negatives of the ranking term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RdNegatives {
    /// None: positives only, as in the paper.
    None,
    /// Those of the student's own loss, as released; one of them may be a candidate.
    Shared,
    /// Drawn outside the row's sequence and the candidates.
    Fresh,
}

/// What a negative's score s costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NegativeTerm {
    /// `-log σ(-s)`.
    Fixed,
    /// `-log σ(1 - s)`, as released.
    Released,
}

/// DROS's term of the candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrosTerm {
    /// Left out.
    None,
    /// Each candidate's term with its own weight.
    Elementwise,
    /// Each place's mean weight with each place's mean term, as the released code's broadcast comes to.
    Broadcast,
}

/// The form `listwise`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListwiseConfig {
    /// What the student's probabilities are taken over.
    pub over: Over,
    /// Softens the teacher's distribution; over the list also the student's.
    pub temperature: f64,
}

/// What the student's probabilities are taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    /// All items: what is in no list is pushed down.
    Catalogue,
    /// The list's items.
    List,
}

/// Weights of the candidates (spec section 1): a mix of three parts, each row's sum being 1.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsConfig {
    /// γ_p, share of the weights by place in the list.
    pub position: f64,
    /// γ_c, share of the weights by distance.
    pub confidence: f64,
    /// γ_o, share of the weights of items that are in the student's list too.
    pub consistency: f64,
    /// β of the weights by place, `exp(-rank / β)`.
    pub beta: f64,
    /// The weights by distance.
    pub form: ConfidenceForm,
    /// τ of the weights by distance; `None`: the row's standard deviation.
    #[serde(deserialize_with = "Option::deserialize")]
    pub tau: Option<f64>,
}

/// The weights by distance d.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfidenceForm {
    /// `softmax(-(d - smallest d) / τ)` over the row: units do not matter.
    Gap,
    /// `exp(-d) + 1e-8`, divided by the row's sum; all alike once d is above 18.
    Released,
}

/// When the student's list is looked at.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsistencyConfig {
    /// In every so many epochs; between them what was seen last holds.
    pub every: u64,
}

/// How far each row's list is trusted, outside the normalisation of its weights.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateConfig {
    /// The form.
    pub name: GateName,
    /// M of `top`.
    pub top: u32,
    /// Smallest weight of a row, 0 to 1.
    pub floor: f64,
    /// τ of `distance`; `None`: the median over the labelled rows.
    #[serde(deserialize_with = "Option::deserialize")]
    pub tau: Option<f64>,
    /// Weight of a row whose target the teacher did not rank.
    pub unknown: f64,
}

/// The form of the gate; r and d are the teacher's rank and distance of the row's target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateName {
    /// 1.
    None,
    /// 1 where r is at most M, else the floor.
    Top,
    /// `1 / log2(1 + r)`.
    Gain,
    /// `exp(-d / τ)`.
    Distance,
}

/// What becomes of the teacher's item vectors.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingConfig {
    /// The form.
    pub name: EmbeddingName,
    /// Weight of `fuse` and `hint`; 0 leaves the vectors out and never opens them, whatever the form.
    pub ed_weight: f64,
    /// `fuse`: keep the student's own vector beside the projected one.
    pub offset: bool,
    /// `fuse` and `init`: which of the student's tables.
    pub side: Side,
}

/// What becomes of the teacher's item vectors z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmbeddingName {
    /// Nothing.
    None,
    /// `b + ed_weight · g(z)`, g linear and trained with the student (DLLM2Rec).
    Fuse,
    /// A penalty: the squared distance between z and a linear map of the student's vector (Hint).
    Hint,
    /// The student's table starts from the principal components of z.
    Init,
}

/// Which of the student's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The input table; the one table where the head is tied to it.
    Auto,
    /// What enters the network.
    Input,
    /// The head's weight.
    Output,
    /// Both, each with a map of its own; one map where the head is tied.
    Both,
}

/// What becomes of targets without a teacher's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// They learn without the teacher.
    Skip,
    /// Nothing is trained.
    Error,
}

impl DistillConfig {
    /// Whether the teacher's lists are needed.
    pub fn wants_rankings(&self) -> bool {
        self.lambda_d > 0.0
    }

    /// Whether the teacher's item vectors are needed.
    pub fn wants_embeddings(&self) -> bool {
        self.embedding.name != EmbeddingName::None && self.embedding.ed_weight > 0.0
    }

    /// γ_o where it means anything.
    pub(crate) fn consistency_weight(&self) -> f64 {
        if self.loss == RankingLoss::Bce { self.weights.consistency } else { 0.0 }
    }
}

impl Check for DistillConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut list = Ranges::default();
        list.not_negative("lambda_d", self.lambda_d);
        list.at_least("top_k", self.top_k as f64, 1.0);
        if self.top_k > 64 && self.wants_rankings() && self.consistency_weight() > 0.0 {
            let message = "the weights by consistency take lists of at most 64 items";
            list.push("top_k", format!("{message}, got {}", self.top_k));
        }
        list.at_least("n_negatives", self.n_negatives as f64, 1.0);
        list.not_negative("dros_scale", self.dros_scale);
        list.positive("listwise.temperature", self.listwise.temperature);
        let w = &self.weights;
        for (key, value) in [("position", w.position), ("confidence", w.confidence), ("consistency", w.consistency)] {
            list.not_negative(&format!("weights.{key}"), value);
        }
        if w.position + w.confidence + w.consistency <= 0.0 {
            list.push("weights", "one of position, confidence and consistency must be above 0".into());
        }
        list.positive("weights.beta", w.beta);
        if let Some(tau) = w.tau {
            list.positive("weights.tau", tau);
        }
        list.at_least("consistency.every", self.consistency.every as f64, 1.0);
        let gate = &self.gate;
        list.at_least("gate.top", f64::from(gate.top), 1.0);
        list.share("gate.floor", gate.floor);
        if let Some(tau) = gate.tau {
            list.positive("gate.tau", tau);
        }
        list.not_negative("gate.unknown", gate.unknown);
        list.not_negative("embedding.ed_weight", self.embedding.ed_weight);
        if self.embedding.name != EmbeddingName::Fuse && !self.embedding.offset {
            list.push("embedding.offset", "only embedding.name=fuse can do without the student's own vector".into());
        }
        list.0
    }
}

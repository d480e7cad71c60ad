//! Configuration of the students; the defaults and their reasons stand in `conf/student/*.yaml`.

use anyo_core::{
    config::{Check, Problem, Ranges},
    torch::OptimConfig,
};
use serde::{Deserialize, Serialize};

use crate::baselines::{ItemKnnConfig, PopularityConfig, RecentPopularityConfig};

/// Which recommender, and everything it needs: `student:` in the configuration, told apart by `name`.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum StudentConfig {
    /// SASRec with a tied head.
    Sasrec(SasrecConfig),
    /// The one-block SASRec of iLoRA and DLLM2Rec with an untied head.
    SasrecDllm2rec(WindowConfig),
    /// GRU4Rec.
    Gru4rec(WindowConfig),
    /// Caser.
    Caser(WindowConfig),
    /// How often an item occurs.
    Popularity(PopularityConfig),
    /// How often an item occurs among the newest interactions.
    RecentPopularity(RecentPopularityConfig),
    /// Items that share users with the history.
    ItemKnn(ItemKnnConfig),
}

anyo_core::tagged!(StudentConfig, "name", {
    "sasrec" => Sasrec(SasrecConfig),
    "sasrec_dllm2rec" => SasrecDllm2rec(WindowConfig),
    "gru4rec" => Gru4rec(WindowConfig),
    "caser" => Caser(WindowConfig),
    "popularity" => Popularity(PopularityConfig),
    "recent_popularity" => RecentPopularity(RecentPopularityConfig),
    "item_knn" => ItemKnn(ItemKnnConfig),
});

impl StudentConfig {
    /// The `name` as configured.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sasrec(_) => "sasrec",
            Self::SasrecDllm2rec(_) => "sasrec_dllm2rec",
            Self::Gru4rec(_) => "gru4rec",
            Self::Caser(_) => "caser",
            Self::Popularity(_) => "popularity",
            Self::RecentPopularity(_) => "recent_popularity",
            Self::ItemKnn(_) => "item_knn",
        }
    }

    /// Loss, optimizer and rows of a student that is trained by gradient; `None` for the others.
    pub fn recipe(&self) -> Option<Recipe<'_>> {
        match self {
            Self::Sasrec(c) => Some(Recipe { max_len: c.max_len, loss: &c.loss, optim: &c.optim, rows: c.rows }),
            Self::SasrecDllm2rec(c) | Self::Gru4rec(c) | Self::Caser(c) => {
                Some(Recipe { max_len: c.max_len, loss: &c.loss, optim: &c.optim, rows: c.rows })
            }
            _ => None,
        }
    }
}

/// What training needs to know of a student.
#[derive(Debug, Clone, Copy)]
pub struct Recipe<'a> {
    /// Items of history that the model sees.
    pub max_len: usize,
    /// The loss.
    pub loss: &'a LossConfig,
    /// The optimizer.
    pub optim: &'a OptimConfig,
    /// How sequences become rows.
    pub rows: RowsKind,
}

/// SASRec (Kang and McAuley 2018) with a tied head, from the classic form to the modern one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SasrecConfig {
    /// Items of history that the model sees, at least 1.
    pub max_len: usize,
    /// Width of the hidden state and of an item vector.
    pub d_model: i64,
    /// Transformer blocks.
    pub n_blocks: usize,
    /// Attention heads; divides `d_model`.
    pub n_heads: i64,
    /// Dropout after the embedding and inside the feed-forward part.
    pub dropout: f64,
    /// Dropout on the attention weights.
    pub attention_dropout: f64,
    /// Where the layer norms stand.
    pub norm: Norm,
    /// The position-wise part.
    pub ffn: Ffn,
    /// Inner width of the position-wise part divided by `d_model`.
    pub ffn_ratio: f64,
    /// Item vectors enter multiplied by `sqrt(d_model)`.
    pub scale_embeddings: bool,
    /// A learned number is added to the score of every item of the history; for `ce` and `sampled_softmax`.
    pub seen_bias: bool,
    /// Epsilon of every layer norm.
    pub norm_eps: f64,
    /// Initial weights.
    pub init: InitKind,
    /// How sequences become rows.
    pub rows: RowsKind,
    /// What is minimised.
    pub loss: LossConfig,
    /// How it is minimised.
    pub optim: OptimConfig,
}

/// Where the layer norms of a block stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Norm {
    /// On the queries only, which also carry the residual (SASRec.pytorch): `q = LN(x)`, `q + attention(q, x, x)`.
    Query,
    /// Before each part: `x + attention(LN(x))`, `x + ffn(LN(x))`.
    Pre,
}

/// The position-wise part of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ffn {
    /// `W2 relu(W1 x)` with biases.
    Relu,
    /// `W2 gelu(W1 x)` with biases.
    Gelu,
    /// `W_down (silu(W_gate x) * W_up x)`, no biases.
    Swiglu,
}

/// Initial weights of the matrices; vectors start at zero, norms at one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitKind {
    /// Xavier normal on every matrix, as SASRec.pytorch does; biases keep PyTorch's defaults.
    XavierNormal,
    /// Normal with standard deviation 0.02, biases zero.
    Normal002,
}

/// The small models of iLoRA and DLLM2Rec (windows of ten items, untied head).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowConfig {
    /// Items of history that the model sees, at least 1.
    pub max_len: usize,
    /// Width of the hidden state and of an item vector.
    pub d_model: i64,
    /// Dropout.
    pub dropout: f64,
    /// How sequences become rows; Caser needs `last_position`.
    pub rows: RowsKind,
    /// What is minimised.
    pub loss: LossConfig,
    /// How it is minimised.
    pub optim: OptimConfig,
}

/// How a training sequence becomes rows of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowsKind {
    /// One row a sequence, its newest `max_len` places, a target at every place.
    EveryPosition,
    /// As `every_position`, but a longer sequence is cut into several rows, so that old items are targets too.
    EveryPositionSplit,
    /// One row a target, with the `max_len` items before it.
    LastPosition,
}

/// What is minimised over the targets of a batch.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossConfig {
    /// The form.
    pub name: LossName,
    /// Negative items: per target for `bce` and `gbce`, shared by the batch for `sampled_softmax`; `ce` uses none.
    pub n_negatives: usize,
    /// How they are drawn (`bce`, `gbce`, `sampled_softmax`).
    pub negatives: Negatives,
    /// Which scores of `sampled_softmax` lose the log of their expected count in the sample.
    pub logq: LogQ,
    /// Calibration t of `gbce` in 0..=1 (gSASRec, Eq. 13).
    pub gbce_t: f64,
    /// Scores are divided by this before `ce` and `sampled_softmax`.
    pub temperature: f64,
    /// Weight α of DROS's distributionally robust term over the whole catalogue; 0 leaves it out.
    pub dros_alpha: f64,
    /// Radius parameter β of that term.
    pub dros_beta: f64,
}

/// The form of the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossName {
    /// Binary cross-entropy with sampled negatives.
    Bce,
    /// Cross-entropy over the whole catalogue.
    Ce,
    /// Cross-entropy over the target and sampled negatives.
    SampledSoftmax,
    /// Generalised binary cross-entropy of gSASRec.
    Gbce,
}

/// Which scores of the sampled softmax are corrected by `log(K q)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogQ {
    /// None: the loss is that of the sample.
    None,
    /// The negatives': the sum then estimates the sum over the catalogue (Bengio and Senécal 2008).
    Negatives,
    /// The target's as well (Yi et al. 2019).
    Both,
}

/// The distribution of sampled negatives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Negatives {
    /// Every item equally likely.
    Uniform,
    /// As often as an item is a training target.
    Popularity,
}

impl Check for StudentConfig {
    fn problems(&self) -> Vec<Problem> {
        match self {
            Self::Sasrec(c) => c.problems(),
            Self::SasrecDllm2rec(c) | Self::Gru4rec(c) => c.problems(),
            Self::Caser(c) => {
                let mut problems = c.problems();
                if c.rows != RowsKind::LastPosition {
                    problems.push(Problem::new("rows", "caser sees whole windows: wanted last_position"));
                }
                if c.max_len < 4 {
                    problems
                        .push(Problem::new("max_len", format!("caser's filters need at least 4, got {}", c.max_len)));
                }
                problems
            }
            Self::Popularity(c) => c.problems(),
            Self::RecentPopularity(c) => c.problems(),
            Self::ItemKnn(c) => c.problems(),
        }
    }
}

impl Check for SasrecConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut list = Ranges::default();
        list.at_least("max_len", self.max_len as f64, 1.0);
        list.at_least("d_model", self.d_model as f64, 1.0);
        list.at_least("n_blocks", self.n_blocks as f64, 1.0);
        list.at_least("n_heads", self.n_heads as f64, 1.0);
        if self.n_heads > 0 && self.d_model % self.n_heads != 0 {
            list.push("n_heads", format!("must divide d_model {}, got {}", self.d_model, self.n_heads));
        }
        list.probability("dropout", self.dropout);
        list.probability("attention_dropout", self.attention_dropout);
        list.positive("ffn_ratio", self.ffn_ratio);
        list.positive("norm_eps", self.norm_eps);
        if self.seen_bias && !matches!(self.loss.name, LossName::Ce | LossName::SampledSoftmax) {
            let message =
                "needs student.loss.name ce or sampled_softmax: the negatives of bce and gbce are never of the history";
            list.push("seen_bias", message.into());
        }
        list.nested("loss", &self.loss);
        list.nested("optim", &self.optim);
        list.0
    }
}

impl Check for WindowConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut list = Ranges::default();
        list.at_least("max_len", self.max_len as f64, 1.0);
        list.at_least("d_model", self.d_model as f64, 1.0);
        list.probability("dropout", self.dropout);
        list.nested("loss", &self.loss);
        list.nested("optim", &self.optim);
        list.0
    }
}

impl Check for LossConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut list = Ranges::default();
        if self.name != LossName::Ce {
            list.at_least("n_negatives", self.n_negatives as f64, 1.0);
        }
        if !(0.0..=1.0).contains(&self.gbce_t) {
            list.push("gbce_t", format!("wanted 0 to 1, got {}", self.gbce_t));
        }
        list.positive("temperature", self.temperature);
        if !(self.dros_alpha >= 0.0 && self.dros_alpha.is_finite()) {
            list.push("dros_alpha", format!("wanted a number from 0 up, got {}", self.dros_alpha));
        }
        list.positive("dros_beta", self.dros_beta);
        list.0
    }
}

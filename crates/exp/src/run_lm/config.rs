//! Keys of the subcommands; their defaults and what they mean stand in `conf/run-lm-*.yaml`.

use std::path::PathBuf;

use anyo_core::{
    config::{Check, Problem},
    data::{DataConfig, DatasetConfig},
    run::RunConfig,
    torch::{DeviceChoice, Dtype},
};
use anyo_lm::{builtin::BuiltinConfig, generate::SamplingConfig};
use serde::{Deserialize, Serialize};

/// How the frozen linear layers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantize {
    /// In the `dtype`.
    None,
    /// LLM.int8 with outliers from 6.0.
    Int8,
    /// NF4 with double quantisation.
    Nf4,
}

/// What `plan` plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlanTask {
    /// Prompt and new tokens.
    Generate,
    /// Training of adapters.
    Lora,
    /// Training of all weights.
    Full,
}

/// A configuration with the keys that every subcommand on a model has, before its own.
macro_rules! on_a_model {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $ty:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// A folder in Hugging Face format, or `builtin`.
            pub model: String,
            /// A PEFT adapter folder.
            #[serde(deserialize_with = "Option::deserialize")]
            pub adapter: Option<PathBuf>,
            /// Storage of the linear layers.
            pub quantize: Quantize,
            /// Where it runs.
            pub device: DeviceChoice,
            /// Number type.
            pub dtype: Dtype,
            /// CPU threads, 0 for all cores.
            pub threads: usize,
            $($(#[$field_doc])* pub $field: $ty,)*
        }

        impl $name {
            /// Which model, and how it is loaded.
            pub(super) fn load(&self) -> anyo_core::Result<super::model::Loaded> {
                super::model::load(&super::model::Wanted {
                    model: &self.model,
                    adapter: self.adapter.as_deref(),
                    quantize: self.quantize,
                    device: self.device,
                    dtype: self.dtype,
                    threads: self.threads,
                })
            }
        }
    };
}

on_a_model! {
    /// `run-lm generate`.
    GenerateConfig {
        /// What is continued.
        prompt: String,
        /// How many texts.
        n: usize,
        /// How tokens are chosen.
        sampling: SamplingConfig,
    }
}

on_a_model! {
    /// `run-lm chat`.
    ChatConfig {
        /// A first turn of the system.
        #[serde(deserialize_with = "Option::deserialize")]
        system: Option<String>,
        /// How tokens are chosen.
        sampling: SamplingConfig,
    }
}

on_a_model! {
    /// `run-lm score`.
    ScoreConfig {
        /// What comes before.
        prompt: String,
        /// What is scored.
        continuations: Vec<String>,
        /// Continuations computed at once.
        batch: usize,
    }
}

on_a_model! {
    /// `run-lm quantize-report`.
    QuantizeReportConfig {
        /// Print JSON lines and no table.
        json: bool,
    }
}

/// `run-lm plan`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanConfig {
    /// A folder with `config.json`; its weights need not be there.
    pub model: PathBuf,
    /// What is to be done.
    pub task: PlanTask,
    /// Storage of the linear layers.
    pub quantize: Quantize,
    /// Where it runs.
    pub device: DeviceChoice,
    /// Number type.
    pub dtype: Dtype,
    /// Rows of a micro-batch.
    pub batch: usize,
    /// Tokens of a row, with what is generated.
    pub seq_len: usize,
    /// Of these the prompt's, for `generate`.
    pub prompt_len: usize,
    /// Micro-batches of a step.
    pub accumulation: usize,
    /// Rank of the adapters.
    pub rank: usize,
    /// Linear layers with adapters, by the last part of their names.
    pub targets: Vec<String>,
    /// Recompute activations in the backward pass.
    pub checkpointing: bool,
    /// Several documents in a row.
    pub packed: bool,
    /// Moments of the optimizer in 8 bits.
    pub adam8: bool,
    /// What it must fit in, such as `16GiB`; null: what is free now.
    #[serde(deserialize_with = "Option::deserialize")]
    pub limit: Option<String>,
}

/// `run-lm convert`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvertConfig {
    /// A model in the llama2.c format.
    pub from: PathBuf,
    /// Its tokenizer.
    #[serde(deserialize_with = "Option::deserialize")]
    pub tokenizer: Option<PathBuf>,
    /// The folder to make.
    pub to: PathBuf,
}

/// `run-lm pretrain`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainRunConfig {
    /// A UTF-8 text file; null: titles and prompts of `dataset`.
    #[serde(deserialize_with = "Option::deserialize")]
    pub text: Option<PathBuf>,
    /// Whose items and training rows become texts.
    pub dataset: DatasetConfig,
    /// Where its files lie.
    pub data: DataConfig,
    /// Most prompts made of training rows.
    pub prompts: usize,
    /// Tokenizer, model and training.
    pub builtin: BuiltinConfig,
    /// Where finished models are kept by the hash of text and settings.
    pub cache: PathBuf,
    /// Where it runs.
    pub device: DeviceChoice,
    /// CPU threads, 0 for all cores.
    pub threads: usize,
    /// The run folder.
    pub run: RunConfig,
}

fn sampling_problems(sampling: &SamplingConfig) -> Vec<Problem> {
    let key = |text: &str| format!("sampling.{}", text.split(' ').next().unwrap_or_default());
    sampling.problems().into_iter().map(|text| Problem::new(key(&text), text)).collect()
}

fn at_least_one(values: &[(&str, usize)]) -> Vec<Problem> {
    let zero = values.iter().filter(|(_, value)| *value == 0);
    zero.map(|(key, _)| Problem::new(*key, "wanted at least 1, got 0")).collect()
}

impl Check for GenerateConfig {
    fn problems(&self) -> Vec<Problem> {
        [at_least_one(&[("n", self.n)]), sampling_problems(&self.sampling)].concat()
    }
}

impl Check for ChatConfig {
    fn problems(&self) -> Vec<Problem> {
        sampling_problems(&self.sampling)
    }
}

impl Check for ScoreConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = at_least_one(&[("batch", self.batch)]);
        if self.continuations.is_empty() {
            problems.push(Problem::new("continuations", "wanted at least one text, got none"));
        }
        problems
    }
}

impl Check for QuantizeReportConfig {
    fn problems(&self) -> Vec<Problem> {
        if self.quantize == Quantize::None {
            vec![Problem::new("quantize", "wanted int8 or nf4, got none")]
        } else {
            Vec::new()
        }
    }
}

impl Check for PlanConfig {
    fn problems(&self) -> Vec<Problem> {
        let sizes = [
            ("batch", self.batch),
            ("seq_len", self.seq_len),
            ("prompt_len", self.prompt_len),
            ("accumulation", self.accumulation),
            ("rank", self.rank),
        ];
        let mut problems = at_least_one(&sizes);
        if let Some(error) = self.limit.as_deref().and_then(|limit| anyo_lm::plan::parse_bytes(limit).err()) {
            problems.push(Problem { hint: error.hint(), ..Problem::new("limit", error.to_string()) });
        }
        problems
    }
}

impl Check for ConvertConfig {
    fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }
}

impl Check for PretrainRunConfig {
    fn problems(&self) -> Vec<Problem> {
        let b = &self.builtin;
        let mut problems = at_least_one(&[
            ("builtin.d_model", b.d_model),
            ("builtin.n_layers", b.n_layers),
            ("builtin.n_heads", b.n_heads),
            ("builtin.n_kv_heads", b.n_kv_heads),
            ("builtin.batch", b.batch),
            ("builtin.steps", b.steps as usize),
        ]);
        let mut want = |fine: bool, key: &str, message: String| {
            if !fine {
                problems.push(Problem::new(key, message));
            }
        };
        let smallest = anyo_lm::builtin::SMALLEST_VOCAB;
        want(
            b.vocab_size >= smallest,
            "builtin.vocab_size",
            format!("wanted at least {smallest}, got {}", b.vocab_size),
        );
        want(b.seq_len >= 2, "builtin.seq_len", format!("wanted at least 2, got {}", b.seq_len));
        want(b.lr > 0.0 && b.lr.is_finite(), "builtin.lr", format!("wanted a number above 0, got {}", b.lr));
        let even = b.n_heads == 0 || b.d_model.is_multiple_of(2 * b.n_heads);
        want(
            even,
            "builtin.d_model",
            format!("wanted a multiple of 2 · n_heads = {}, got {}", 2 * b.n_heads, b.d_model),
        );
        let divides = b.n_kv_heads == 0 || b.n_heads.is_multiple_of(b.n_kv_heads);
        want(divides, "builtin.n_kv_heads", format!("must divide n_heads {}, got {}", b.n_heads, b.n_kv_heads));
        problems
    }
}

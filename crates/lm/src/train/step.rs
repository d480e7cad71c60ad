//! Parameter groups, the choice of optimizer state, and the figures of a step.

use std::{collections::BTreeMap, time::Instant};

use anyo_core::{
    Result, memory,
    torch::{Group, OptimConfig, Optimizer, Params, Resume, StepReport},
};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use super::Adam8;

/// What a weight is, as far as learning rates and decay are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamClass {
    /// Gain of a norm, or a bias.
    NormOrBias,
    /// The down-projection of an adapter.
    LoraA,
    /// The up-projection of an adapter, which starts at 0.
    LoraB,
    /// Token embedding or the untied head.
    Embedding,
    /// Any other matrix.
    Other,
}

impl ParamClass {
    /// Class of the weight called `name`, by the names that Hugging Face and PEFT use.
    pub fn of(name: &str) -> Self {
        let has = |part: &str| name.split('.').any(|piece| piece.starts_with(part));
        if name.ends_with("bias")
            || name.split('.').any(|piece| piece.ends_with("norm") || piece.ends_with("layernorm"))
        {
            Self::NormOrBias
        } else if has("lora_A") || has("lora_a") {
            Self::LoraA
        } else if has("lora_B") || has("lora_b") {
            Self::LoraB
        } else if has("embed_tokens") || has("lm_head") {
            Self::Embedding
        } else {
            Self::Other
        }
    }
}

/// Learning-rate factors and decay by class; norms and biases are never decayed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupConfig {
    /// Weight decay of everything but norms and biases; at least 0.
    pub weight_decay: f64,
    /// Factor of the learning rate for LoRA's A.
    pub lora_a_lr: f64,
    /// Factor for LoRA's B (LoRA+ takes about 16).
    pub lora_b_lr: f64,
    /// Factor for embeddings and an untied head.
    pub embedding_lr: f64,
}

impl GroupConfig {
    /// One rate for all, this decay except for norms and biases.
    pub fn uniform(weight_decay: f64) -> Self {
        Self { weight_decay, lora_a_lr: 1.0, lora_b_lr: 1.0, embedding_lr: 1.0 }
    }

    /// The groups of those classes that occur in `params`.
    pub fn groups(&self, params: &Params) -> Vec<Group> {
        use ParamClass::{Embedding, LoraA, LoraB, NormOrBias, Other};
        let classes = [
            ("norms and biases", NormOrBias, 1.0, 0.0),
            ("LoRA A", LoraA, self.lora_a_lr, self.weight_decay),
            ("LoRA B", LoraB, self.lora_b_lr, self.weight_decay),
            ("embeddings", Embedding, self.embedding_lr, self.weight_decay),
            ("others", Other, 1.0, self.weight_decay),
        ];
        let present = |class| params.trainable().any(|(name, _)| ParamClass::of(name) == class);
        let group = |(label, class, lr, decay): (&str, ParamClass, f64, f64)| {
            Group::new(label, move |name| ParamClass::of(name) == class, lr, decay)
        };
        classes.into_iter().filter(|&(_, class, ..)| present(class)).map(group).collect()
    }
}

/// How the optimizer keeps its moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerState {
    /// 8 bytes for each weight.
    F32,
    /// About 2 bytes for each weight ([`Adam8`]).
    EightBit,
}

/// Adam or AdamW with either kind of state.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one per training")]
pub enum LmOptimizer {
    /// Moments in f32.
    F32(Optimizer),
    /// Moments in 8 bits.
    EightBit(Adam8),
}

impl LmOptimizer {
    /// An optimizer over the trainable weights of `params`; `config.weight_decay` is that of the groups instead.
    ///
    /// # Errors
    /// When a weight is in no group, a group is empty, or there is nothing to train.
    pub fn new(config: &OptimConfig, state: OptimizerState, params: &Params, groups: &[Group]) -> Result<Self> {
        Ok(match state {
            OptimizerState::F32 => Self::F32(Optimizer::with_groups(config, params, groups)?),
            OptimizerState::EightBit => Self::EightBit(Adam8::new(config, params, groups)?),
        })
    }

    /// The configured learning rate, before schedule and group factors.
    pub fn lr(&self) -> f64 {
        match self {
            Self::F32(optimizer) => optimizer.lr(),
            Self::EightBit(optimizer) => optimizer.lr(),
        }
    }

    /// Bytes of the moments.
    pub fn state_bytes(&self) -> usize {
        match self {
            Self::F32(optimizer) => optimizer.state_bytes(),
            Self::EightBit(optimizer) => optimizer.state_bytes(),
        }
    }
}

/// Either kind of state goes through [`anyo_core::torch::Checkpoints`]; a state of the other kind is refused.
impl Resume for LmOptimizer {
    fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        match self {
            Self::F32(optimizer) => Ok(optimizer.state()),
            Self::EightBit(optimizer) => optimizer.state(),
        }
    }

    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        match self {
            Self::F32(optimizer) => optimizer.load_state(state),
            Self::EightBit(optimizer) => optimizer.load_state(state),
        }
    }
}

/// What a step did and how fast, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StepFigures {
    /// Mean loss over the targets, in nats.
    pub loss: f64,
    /// Norm of its gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate without group factors.
    pub lr: f64,
    /// Tokens that went through the model, pads not counted.
    pub tokens: usize,
    /// Targets among them.
    pub targets: usize,
    /// Wall-clock time of the step.
    pub seconds: f64,
    /// Tokens for each second.
    pub tokens_per_second: f64,
    /// Largest resident set of the process so far; `None` on a GPU, whose allocator tch cannot ask.
    pub peak_bytes: Option<u64>,
}

/// Measures steps.
#[derive(Debug)]
pub struct Stopwatch {
    start: Instant,
}

impl Stopwatch {
    /// Begins now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The figures of the step that ends now, and the beginning of the next.
    ///
    /// Reading `report` has waited for a GPU, so the time is that of the work and not of its submission.
    pub fn lap(&mut self, report: StepReport, tokens: usize, targets: usize, device: Device) -> StepFigures {
        let seconds = self.start.elapsed().as_secs_f64();
        self.start = Instant::now();
        StepFigures {
            loss: report.loss,
            grad_norm: report.grad_norm,
            lr: report.lr,
            tokens,
            targets,
            seconds,
            tokens_per_second: tokens as f64 / seconds.max(1e-9),
            peak_bytes: (device == Device::Cpu).then(memory::peak_rss_bytes).filter(|&bytes| bytes > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn names_of_hugging_face_and_peft_have_classes() {
        for (name, class) in [
            ("model.layers.0.input_layernorm.weight", ParamClass::NormOrBias),
            ("model.norm.weight", ParamClass::NormOrBias),
            ("model.layers.0.self_attn.q_proj.bias", ParamClass::NormOrBias),
            ("model.layers.3.self_attn.q_proj.lora_A.weight", ParamClass::LoraA),
            ("base_model.model.model.layers.3.mlp.up_proj.lora_B.weight", ParamClass::LoraB),
            ("model.embed_tokens.weight", ParamClass::Embedding),
            ("lm_head.weight", ParamClass::Embedding),
            ("model.layers.0.mlp.down_proj.weight", ParamClass::Other),
        ] {
            assert_eq!(ParamClass::of(name), class, "{name}");
        }
    }

    #[test]
    fn only_classes_that_occur_become_groups() {
        let mut params = Params::new(Device::Cpu);
        let one = || Tensor::ones([2], (Kind::Float, Device::Cpu));
        for name in ["x.lora_A.weight", "x.lora_B.weight", "model.norm.weight"] {
            let _ = params.add(name, one(), true).unwrap();
        }
        let config = GroupConfig { lora_b_lr: 16.0, ..GroupConfig::uniform(0.1) };
        let groups = config.groups(&params);
        let of = |name: &str| {
            let group = groups.iter().find(|group| group.takes(name)).unwrap();
            (group.lr_scale(), group.weight_decay())
        };
        assert_eq!(groups.len(), 3);
        assert_eq!(of("x.lora_A.weight"), (1.0, 0.1));
        assert_eq!(of("x.lora_B.weight"), (16.0, 0.1));
        assert_eq!(of("model.norm.weight"), (1.0, 0.0));
    }
}

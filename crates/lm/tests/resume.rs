//! Trainings of a language model that are interrupted, saved and continued: the same bits as without interruption.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::path::Path;

use anyo_core::torch::{
    Checkpoints, OptimConfig, OptimName, Params, Resume as _, Schedule, ScheduleConfig, ScheduleName,
};
use anyo_lm::{
    CausalLm, DropoutStream, LmConfig, LoraConfig, Pass, Targets, attach,
    builtin::head_weight,
    train::{Accumulator, Batch, CrossEntropy, Example, GroupConfig, LmOptimizer, OptimizerState, Trainable},
};
use tch::{Device, Kind};

#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    /// All weights, of this type.
    All(Kind),
    /// Adapters with dropout on a base of this type.
    Lora(Kind),
}

struct Training {
    model: CausalLm,
    trainable: Trainable,
    optimizer: LmOptimizer,
    schedule: Schedule,
    losses: Vec<u64>,
}

fn config() -> LmConfig {
    // Embedding and MLP are large enough for 8-bit moments, norms and key projections are not.
    let text = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 300, "hidden_size": 32,
        "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 64, "tie_word_embeddings": true, "rms_norm_eps": 1e-5, "hidden_act": "silu",
        "rope_theta": 10000.0, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    });
    LmConfig::from_text(Path::new("config.json"), &text.to_string()).unwrap()
}

impl Training {
    /// The base of adapters is the same for every seed; all that is trained differs.
    fn new(what: What, state: OptimizerState, seed: u64) -> Self {
        let (trainable, model) = match what {
            What::All(kind) => {
                let model = CausalLm::random(config(), Device::Cpu, kind, seed).unwrap();
                (Trainable::adopt(model.named_tensors(), Device::Cpu).unwrap(), model)
            }
            What::Lora(kind) => {
                let mut model = CausalLm::random(config(), Device::Cpu, kind, 1).unwrap();
                let lora = LoraConfig {
                    rank: 32,
                    alpha: 32.0,
                    dropout: 0.1,
                    rslora: false,
                    targets: Targets::AllLinear,
                    rank_pattern: Vec::new(),
                    alpha_pattern: Vec::new(),
                    experts: None,
                };
                let mut params = Params::new(Device::Cpu);
                attach(model.linears_mut(), "default", &lora, &mut params, seed).unwrap();
                (Trainable::of_params(params), model)
            }
        };
        let schedule = ScheduleConfig { name: ScheduleName::Cosine, warmup_steps: 2, total_steps: Some(6), floor: 0.1 };
        let optim = OptimConfig {
            name: OptimName::AdamW,
            lr: 1e-2,
            betas: [0.9, 0.99],
            eps: 1e-8,
            weight_decay: 0.0,
            clip_norm: Some(1.0),
            schedule: schedule.clone(),
        };
        let groups = GroupConfig::uniform(0.01).groups(trainable.params());
        let optimizer = LmOptimizer::new(&optim, state, trainable.params(), &groups).unwrap();
        Self { model, trainable, optimizer, schedule: Schedule::new(&schedule, 6).unwrap(), losses: Vec::new() }
    }

    /// Steps `from..to`, each on two micro-batches that depend on its number alone.
    fn run(&mut self, from: u64, to: u64) {
        let mut accumulator = Accumulator::new(&self.trainable, CrossEntropy::plain());
        for step in from..to {
            for part in 0..2 {
                let row = |r: u64| (0..12).map(|i| ((step * 31 + part * 17 + r * 7 + i * i) % 300) as i64).collect();
                let rows = [Example::text(row(0)), Example::text(row(1))];
                let batch = Batch::padded(&rows, 0, Device::Cpu).unwrap();
                let pass = Pass { dropout: Some(DropoutStream::new(step * 2 + part)), ..Pass::default() };
                accumulator.add(&self.model, head_weight(&self.model), &batch, &pass).unwrap();
            }
            let factor = self.schedule.factor(step);
            let report = accumulator.finish(&mut self.optimizer, Some(1.0), factor, step).unwrap();
            self.losses.push(report.loss.to_bits());
        }
    }

    /// Whether masters, the model's own tensors and the optimizer's state are the same bits.
    fn assert_same(&self, other: &Self, what: &str) {
        for ((name, a), (_, b)) in self.trainable.params().named().zip(other.trainable.params().named()) {
            assert!(a.equal(b), "{what}: {name}");
        }
        for (a, b) in self.trainable.leaves().iter().zip(other.trainable.leaves()) {
            assert!(a.equal(b), "{what}: what the model computes with");
        }
        let (a, b) = (self.optimizer.state().unwrap(), other.optimizer.state().unwrap());
        assert!(a.keys().eq(b.keys()), "{what}");
        for (name, tensor) in &a {
            assert!(tensor.kind() == b[name].kind() && tensor.equal(&b[name]), "{what}: {name}");
        }
    }
}

#[test]
fn six_steps_are_three_and_a_resumed_three() {
    for state in [OptimizerState::EightBit, OptimizerState::F32] {
        for what in
            [What::All(Kind::Float), What::All(Kind::BFloat16), What::Lora(Kind::Float), What::Lora(Kind::BFloat16)]
        {
            let named = format!("{what:?} {state:?}");
            let mut whole = Training::new(what, state, 5);
            whole.run(0, 6);

            let folder = tempfile::tempdir().unwrap();
            let mut first = Training::new(what, state, 5);
            first.run(0, 3);
            assert_eq!(first.losses, whole.losses[..3], "{named}");
            let mut checkpoints = Checkpoints::new(folder.path(), 1).unwrap();
            let progress = serde_json::json!({ "epoch": 0 });
            checkpoints.save(3, first.trainable.params(), &first.optimizer, &progress, false).unwrap();
            drop(first);

            let saved =
                Checkpoints::new(folder.path(), 1).unwrap().latest_valid(|note| panic!("{note}")).unwrap().unwrap();
            assert_eq!(saved.step, 3);
            if state == OptimizerState::EightBit {
                let codes = saved.optim.values().filter(|tensor| tensor.kind() == Kind::Uint8).count();
                assert!(codes >= 2, "{named}: {codes} tensors of codes");
            }
            // Other weights and moments than those saved: loading must replace all of them.
            let mut second = Training::new(what, state, 6);
            second.run(0, 1);
            second.losses.clear();
            saved.restore(second.trainable.params(), &mut second.optimizer).unwrap();
            second.trainable.sync().unwrap();
            second.run(3, 6);
            assert_eq!(second.losses, whole.losses[3..], "{named}");
            second.assert_same(&whole, &named);
        }
    }
}

#[test]
fn a_state_of_the_other_kind_is_refused() {
    let what = What::All(Kind::Float);
    let folder = tempfile::tempdir().unwrap();
    let mut checkpoints = Checkpoints::new(folder.path(), 1).unwrap();
    let mut eight = Training::new(what, OptimizerState::EightBit, 5);
    eight.run(0, 1);
    checkpoints.save(1, eight.trainable.params(), &eight.optimizer, &serde_json::json!({}), false).unwrap();
    let saved = checkpoints.load(1).unwrap();
    let mut full = Training::new(what, OptimizerState::F32, 5);
    let told = saved.restore(full.trainable.params(), &mut full.optimizer).unwrap_err().to_string();
    assert!(told.contains("optim.safetensors") && told.contains("exp_avg.code.model.embed_tokens.weight"), "{told}");
}

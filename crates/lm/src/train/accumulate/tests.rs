use anyo_core::torch::{Init, OptimConfig, OptimName, Params, ScheduleConfig, ScheduleName};
use tch::Device;

use super::*;
use crate::{
    causal::LmInput,
    train::{Example, GroupConfig, OptimizerState},
};

/// Embedding, one causal running mean, a head: the smallest model with a past.
struct Tiny {
    embed: Tensor,
    mix: Tensor,
    head: Tensor,
}

impl Tiny {
    fn new(kind: Kind) -> Self {
        let make = |name: &str, shape: &[i64]| Init::Normal { std: 0.5 }.tensor(name, shape, 3).unwrap().to_kind(kind);
        Self { embed: make("embed", &[11, 6]), mix: make("mix", &[6, 6]), head: make("head", &[11, 6]) }
    }

    fn named(&self) -> Vec<(String, Tensor)> {
        let all =
            [("model.embed_tokens.weight", &self.embed), ("mix.weight", &self.mix), ("lm_head.weight", &self.head)];
        all.map(|(name, t)| (name.to_owned(), t.shallow_clone())).into()
    }
}

impl Causal for Tiny {
    type Cache = ();

    fn new_cache(&self, _rows: usize) {}

    fn select_rows(&self, _cache: &(), _rows: &[i64]) -> Result<()> {
        Ok(())
    }

    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        Ok(Tensor::f_embedding(&self.embed, ids, -1, false, false)?)
    }

    fn hidden(&self, input: &LmInput, _cache: Option<&mut ()>, _pass: &Pass<'_>) -> Result<Tensor> {
        let x = Causal::embed(self, &input.ids)?; // [B,S,D]
        Ok((&x + x.f_cumsum(1, x.kind())?.f_matmul(&self.mix)?).f_tanh()?)
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(hidden.f_matmul(&self.head.f_tr()?)?)
    }

    fn max_positions(&self) -> usize {
        64
    }

    fn vocab_size(&self) -> usize {
        11
    }

    fn device(&self) -> Device {
        Device::Cpu
    }
}

fn examples() -> Vec<Example> {
    vec![
        Example::answer_only(&[1, 2, 3], &[4, 5, 6, 7]).unwrap(),
        Example::text(vec![8, 9, 10]),
        Example::answer_only(&[3, 3], &[1]).unwrap(),
        Example::text(vec![2, 7, 1, 8, 2, 8]),
    ]
}

fn optim(lr: f64) -> OptimConfig {
    let schedule = ScheduleConfig { name: ScheduleName::Constant, warmup_steps: 0, total_steps: None, floor: 0.0 };
    OptimConfig {
        name: OptimName::AdamW,
        lr,
        betas: [0.9, 0.999],
        eps: 1e-8,
        weight_decay: 0.0,
        clip_norm: None,
        schedule,
    }
}

fn gradients(split: &[usize], through_model: bool) -> Vec<(String, Tensor)> {
    let model = Tiny::new(Kind::Float);
    let trainable = Trainable::adopt(model.named(), Device::Cpu).unwrap();
    let smooth = CrossEntropy { label_smoothing: 0.1, temperature: 1.0 };
    let mut accumulator = Accumulator::new(&trainable, smooth);
    let mut rest = examples().into_iter();
    for &n in split {
        let part: Vec<Example> = rest.by_ref().take(n).collect();
        let batch = Batch::padded(&part, 0, Device::Cpu).unwrap();
        let head = if through_model { HeadWeight::Model } else { HeadWeight::Dense(&model.head) };
        accumulator.add(&model, head, &batch, &Pass::default()).unwrap();
    }
    assert_eq!(accumulator.counts(), (19, 4 + 2 + 1 + 5));
    accumulator.means().unwrap().into_iter().map(|(name, g)| (name.to_owned(), g)).collect()
}

/// The gradient as autograd sees it: all rows at once, libtorch's own loss.
fn reference() -> Vec<Tensor> {
    let model = Tiny::new(Kind::Float);
    let leaves: Vec<Tensor> = model.named().into_iter().map(|(_, t)| t.set_requires_grad(true)).collect();
    let batch = Batch::padded(&examples(), 0, Device::Cpu).unwrap();
    let logits = model.logits(&model.hidden(&batch.input, None, &Pass::default()).unwrap()).unwrap().view([-1, 11]);
    let target = Tensor::from_slice(&batch.targets);
    let loss = logits.cross_entropy_loss::<&Tensor>(&target, None, tch::Reduction::Mean, -100, 0.1);
    Tensor::run_backward(&[loss], &leaves, false, false)
}

#[test]
fn any_split_gives_the_gradient_of_the_large_batch() {
    let want = reference();
    for (split, through_model) in [(vec![4], false), (vec![1, 3], false), (vec![1, 1, 1, 1], false), (vec![2, 2], true)]
    {
        let got = gradients(&split, through_model);
        assert_eq!(got.len(), 3);
        for ((name, got), want) in got.iter().zip(&want) {
            let gap = (got - want).abs().max().double_value(&[]);
            assert!(gap < 1e-6, "{split:?} {name}: {gap}");
        }
    }
}

#[test]
fn f32_and_8_bit_states_learn_in_f32_and_bf16() {
    for (kind, state) in [
        (Kind::Float, OptimizerState::F32),
        (Kind::Float, OptimizerState::EightBit),
        (Kind::BFloat16, OptimizerState::F32),
    ] {
        let model = Tiny::new(kind);
        let trainable = Trainable::adopt(model.named(), Device::Cpu).unwrap();
        let groups = GroupConfig::uniform(0.01).groups(trainable.params());
        let mut optimizer = LmOptimizer::new(&optim(0.02), state, trainable.params(), &groups).unwrap();
        let batch = Batch::padded(&examples(), 0, Device::Cpu).unwrap();
        let mut accumulator = Accumulator::new(&trainable, CrossEntropy::plain());
        let (mut watch, mut first, mut last) = (crate::train::Stopwatch::start(), None, 0.0);
        for step in 0..60 {
            accumulator.add(&model, HeadWeight::Dense(&model.head), &batch, &Pass::default()).unwrap();
            let report = accumulator.finish(&mut optimizer, Some(1.0), 1.0, step).unwrap();
            let figures = watch.lap(report, batch.n_tokens, batch.n_targets, Device::Cpu);
            assert!(figures.tokens_per_second > 0.0 && figures.peak_bytes.is_some_and(|b| b > 1 << 20));
            first.get_or_insert(figures.loss);
            last = figures.loss;
        }
        let first = first.unwrap();
        assert!(last < 0.35 * first, "{kind:?} {state:?}: {first} to {last}");
        assert_eq!(model.embed.kind(), kind);
    }
}

#[test]
fn a_step_without_target_or_with_nan_is_an_error() {
    let model = Tiny::new(Kind::Float);
    let trainable = Trainable::adopt(model.named(), Device::Cpu).unwrap();
    let groups = GroupConfig::uniform(0.0).groups(trainable.params());
    let head = HeadWeight::Dense(&model.head);
    for state in [OptimizerState::F32, OptimizerState::EightBit] {
        let mut optimizer = LmOptimizer::new(&optim(0.1), state, trainable.params(), &groups).unwrap();
        let mut accumulator = Accumulator::new(&trainable, CrossEntropy::plain());
        let empty = Batch::padded(&[Example { ids: vec![1, 2], labels: vec![-100, -100] }], 0, Device::Cpu).unwrap();
        accumulator.add(&model, head, &empty, &Pass::default()).unwrap();
        let message = accumulator.finish(&mut optimizer, None, 1.0, 7).unwrap_err().to_string();
        assert!(message.contains("step 7") && message.contains("target"), "{message}");

        let before: Params = {
            let mut copy = Params::new(Device::Cpu);
            for (name, t) in trainable.params().named() {
                let _ = copy.add(name, t.detach(), false).unwrap();
            }
            copy
        };
        let batch = Batch::padded(&examples(), 0, Device::Cpu).unwrap();
        let states = Tensor::full([28, 6], f64::NAN, (Kind::Float, Device::Cpu));
        let full = Batch { targets: batch.targets.clone(), ..batch };
        accumulator.add_states(&model, head, &states.narrow(0, 0, full.targets.len() as i64), &full).unwrap();
        let message = accumulator.finish(&mut optimizer, None, 1.0, 8).unwrap_err().to_string();
        assert!(message.contains("step 8") && message.contains("loss"), "{message}");
        for ((_, a), (_, b)) in before.named().zip(trainable.params().named()) {
            assert!(a.equal(b));
        }
    }
}

fn small_model(tied: bool) -> CausalLm {
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 19, "hidden_size": 16,
        "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 32, "tie_word_embeddings": tied, "rms_norm_eps": 1e-5, "hidden_act": "silu",
        "rope_theta": 10000.0, "initializer_range": 0.3,
    });
    let config = crate::LmConfig::from_text("config.json".as_ref(), &config.to_string()).unwrap();
    CausalLm::random(config, Device::Cpu, Kind::Float, 5).unwrap()
}

fn of_model(tied: bool, way: &str) -> Vec<(String, Tensor)> {
    let model = small_model(tied);
    let trainable = Trainable::adopt(model.named_tensors(), Device::Cpu).unwrap();
    let mut accumulator = Accumulator::new(&trainable, CrossEntropy::plain());
    let batch = Batch::padded(&examples(), 0, Device::Cpu).unwrap();
    let (head, pass) = (crate::builtin::head_weight(&model), Pass::default());
    match way {
        "again" => accumulator.add_checkpointed(&model, head, &batch, &pass).unwrap(),
        "model" => accumulator.add(&model, HeadWeight::Model, &batch, &pass).unwrap(),
        _ => accumulator.add(&model, head, &batch, &pass).unwrap(),
    }
    accumulator.means().unwrap().into_iter().map(|(name, g)| (name.to_owned(), g)).collect()
}

#[test]
fn checkpointing_and_the_general_head_give_the_same_gradients() {
    for tied in [true, false] {
        let want = of_model(tied, "plain");
        assert_eq!(want.len(), 2 * 9 + if tied { 2 } else { 3 });
        for way in ["again", "model"] {
            for ((name, got), (_, want)) in of_model(tied, way).iter().zip(&want) {
                let gap = (got - want).abs().max().double_value(&[]);
                assert!(gap < 2e-6, "tied {tied}, {way}, {name}: {gap}");
            }
        }
    }
}

#[test]
fn packed_rows_give_the_gradients_of_single_rows() {
    let means = |packed: bool| {
        let model = small_model(true);
        let trainable = Trainable::adopt(model.named_tensors(), Device::Cpu).unwrap();
        let mut accumulator = Accumulator::new(&trainable, CrossEntropy::plain());
        let config =
            crate::train::PackConfig { seq_len: 12, overlong: crate::train::Overlong::Refuse, pad_id: 0, seed: 4 };
        let batch = match packed {
            false => Batch::padded(&examples(), 0, Device::Cpu).unwrap(),
            true => Batch::packed(&crate::train::pack(examples(), &config).unwrap().0, Device::Cpu).unwrap(),
        };
        assert_eq!((packed, batch.input.documents.is_some(), batch.n_targets), (packed, packed, 12));
        let head = crate::builtin::head_weight(&model);
        accumulator.add(&model, head, &batch, &Pass::default()).unwrap();
        accumulator.means().unwrap().into_iter().map(|(_, g)| g).collect::<Vec<_>>()
    };
    for (got, want) in means(true).iter().zip(&means(false)) {
        assert!((got - want).abs().max().double_value(&[]) < 2e-6);
    }
}

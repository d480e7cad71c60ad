//! Adam and AdamW against PyTorch 2.11 (`fixtures/optim/make.py`), and the accumulate–clip–step part.
#![allow(clippy::unwrap_used, reason = "tests: helpers outside of #[test] functions too")]
#![cfg(feature = "torch")]

use std::{collections::BTreeMap, path::Path};

use anyo_core::torch::{
    Gradients, Group, OptimConfig, OptimName, Optimizer, Params, ScheduleConfig, ScheduleName, load_tensors,
};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

fn config(name: OptimName, betas: [f64; 2], eps: f64, weight_decay: f64) -> OptimConfig {
    let schedule = ScheduleConfig { name: ScheduleName::Constant, warmup_steps: 0, total_steps: None, floor: 0.0 };
    OptimConfig { name, lr: 0.01, betas, eps, weight_decay, clip_norm: None, schedule }
}

/// |got − want| ≤ 1e-6·|want| + 1e-7: a few f32 roundings a step that do not add up, because the steps shrink.
fn assert_close(what: &str, got: &Tensor, want: &Tensor) {
    let (got, want) = (got.detach().to_kind(Kind::Double), want.to_kind(Kind::Double));
    let worst = ((&got - &want).abs() - want.abs() * 1e-6).max().double_value(&[]);
    assert!(worst <= 1e-7, "{what}: off by {worst:e} beyond the relative tolerance");
}

struct Fixture {
    about: Value,
    tensors: BTreeMap<String, Tensor>,
}

impl Fixture {
    fn load() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/optim");
        let text = std::fs::read_to_string(folder.join("optim.json")).unwrap();
        let about: Value = serde_json::from_str(&text).unwrap();
        assert!(about["torch"].as_str().unwrap().starts_with("2.11."));
        Self { about, tensors: load_tensors(&folder.join("optim.safetensors")).unwrap() }
    }

    fn names(&self) -> Vec<&str> {
        self.about["names"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect()
    }

    /// Replays one case; `kind` f64 takes the tensor-operation form, f32 the one-pass loop.
    fn replay(&self, case: &str, kind: Kind) {
        let c = &self.about["cases"][case];
        let number = |key: &str| c[key].as_f64().unwrap();
        let betas = [c["betas"][0].as_f64().unwrap(), c["betas"][1].as_f64().unwrap()];
        let name = if c["kind"] == "adam" { OptimName::Adam } else { OptimName::AdamW };
        let config = config(name, betas, number("eps"), number("weight_decay"));
        let mut params = Params::new(Device::Cpu);
        for name in self.names() {
            let _ = params.add(name, self.tensors[&format!("start.{name}")].to_kind(kind), true).unwrap();
        }
        let groups = [
            Group::new("kernel", |name| name == "kernel", 0.3, 0.0),
            Group::new("rest", |_| true, 1.0, config.weight_decay),
        ];
        let mut optimizer = Optimizer::with_groups(&config, &params, &groups).unwrap();
        let mut gradients = Gradients::new(&params);
        for step in 0..self.about["steps"].as_u64().unwrap() {
            let grads: Vec<_> = self
                .names()
                .iter()
                .map(|name| self.tensors.get(&format!("grad.{step}.{name}")).map(|g| g.to_kind(kind)))
                .collect();
            gradients.add_given(&Tensor::from(0.5f32), 1.0, grads).unwrap();
            let factor = self.about["factors"][step as usize].as_f64().unwrap();
            let report = gradients.step(&mut optimizer, &params, c["clip_norm"].as_f64(), factor, step).unwrap();
            let norm = self.about["grad_norms"][case][step as usize].as_f64().unwrap();
            assert!((report.grad_norm / norm - 1.0).abs() < 1e-6, "{case} norm {} wanted {norm}", report.grad_norm);
            assert!((report.lr - 0.01 * factor).abs() < 1e-15);
            for name in self.names() {
                if let Some(want) = self.tensors.get(&format!("{case}.{step}.{name}")) {
                    assert_close(&format!("{case} step {step} {name} {kind:?}"), params.get(name).unwrap(), want);
                }
            }
        }
        let state = optimizer.state();
        for (key, tensor) in state.iter().filter(|(key, _)| key.starts_with("exp_avg")) {
            assert_close(&format!("{case} {key} {kind:?}"), tensor, &self.tensors[&format!("{case}.{key}")]);
        }
        // 20 steps, without a gradient in the six steps 2, 5, …, 17.
        assert_eq!(state["step.table"].int64_value(&[0]), 20);
        assert_eq!(state["step.sometimes"].int64_value(&[0]), 14);
    }
}

#[test]
fn twenty_steps_equal_pytorch() {
    let fixture = Fixture::load();
    for case in ["adam", "adam_l2", "adamw", "adamw_clip"] {
        fixture.replay(case, Kind::Float);
        fixture.replay(case, Kind::Double);
    }
}

/// Mean squared error of a two-layer network on `rows`.
fn loss(params: &Params, x: &Tensor, y: &Tensor) -> Tensor {
    let hidden = x.matmul(params.get("w1").unwrap()).relu();
    (hidden.matmul(params.get("w2").unwrap()) - y).square().mean(Kind::Float)
}

fn network() -> (Params, Tensor, Tensor) {
    let mut params = Params::new(Device::Cpu);
    let init = anyo_core::torch::Init::Normal { std: 0.5 };
    let _ = params.create("w1", &[4, 6], init, 1).unwrap();
    let _ = params.create("unused", &[3], init, 1).unwrap();
    let _ = params.create("w2", &[6, 1], init, 1).unwrap();
    (params, init.tensor("x", &[8, 4], 2).unwrap(), init.tensor("y", &[8, 1], 2).unwrap())
}

#[test]
fn micro_batches_give_the_large_batchs_gradients() {
    let (params, x, y) = network();
    let collect = |sizes: &[i64]| {
        let (mut gradients, mut start) = (Gradients::new(&params), 0);
        for &n in sizes {
            let mean = loss(&params, &x.narrow(0, start, n), &y.narrow(0, start, n));
            gradients.add(&mean, n as f64).unwrap();
            start += n;
        }
        assert_eq!((gradients.n_micro_batches(), start), (sizes.len(), 8));
        gradients
    };
    let large = collect(&[8]);
    let want = large.means().unwrap();
    assert_eq!(want.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["w1", "w2"]);
    for sizes in [&[4i64, 4][..], &[2, 2, 2, 2], &[1; 8], &[3, 5], &[1, 6, 1]] {
        let split = collect(sizes);
        for ((name, got), (_, want)) in split.means().unwrap().iter().zip(&want) {
            let worst = (got - want).abs().max().double_value(&[]) / want.abs().max().double_value(&[]);
            assert!(worst < 1e-6, "{name} {sizes:?}: {worst:e}");
        }
    }
}

#[test]
fn a_shared_gradient_tensor_is_not_added_twice() {
    // d(a + b) gives both parameters the same tensor of ones.
    let mut params = Params::new(Device::Cpu);
    let a = params.add("a", Tensor::from_slice(&[1f32, 2.0]), true).unwrap();
    let b = params.add("b", Tensor::from_slice(&[3f32, 4.0]), true).unwrap();
    let mut gradients = Gradients::new(&params);
    for _ in 0..3 {
        gradients.add(&(&a + &b).sum(Kind::Float), 1.0).unwrap();
    }
    for (name, mean) in gradients.means().unwrap() {
        assert_eq!(Vec::<f32>::try_from(mean).unwrap(), [1.0, 1.0], "{name}");
    }
}

#[test]
fn a_parameter_used_by_later_micro_batches_only() {
    let mut params = Params::new(Device::Cpu);
    let a = params.add("a", Tensor::from_slice(&[2f32]), true).unwrap();
    let b = params.add("b", Tensor::from_slice(&[5f32]), true).unwrap();
    let mut gradients = Gradients::new(&params);
    gradients.add(&(&a * 3.0).sum(Kind::Float), 2.0).unwrap();
    gradients.add(&(&a * &b).sum(Kind::Float), 1.0).unwrap();
    gradients.add(&(&b * 7.0).sum(Kind::Float), 3.0).unwrap();
    // Weighted means over 6 targets: a (2·3 + 1·5)/6, b (1·2 + 3·7)/6.
    let means: Vec<f64> = gradients.means().unwrap().iter().map(|(_, g)| g.double_value(&[0])).collect();
    assert!((means[0] - 11.0 / 6.0).abs() < 1e-6 && (means[1] - 23.0 / 6.0).abs() < 1e-6, "{means:?}");
}

#[test]
fn report_and_clipping_by_hand() {
    // loss = 3a + 4b: norm 5; AdamW's first step is lr·sign(g) whatever the clipping.
    let mut params = Params::new(Device::Cpu);
    let a = params.add("a", Tensor::from_slice(&[1f32]), true).unwrap();
    let b = params.add("b", Tensor::from_slice(&[1f32]), true).unwrap();
    let config = config(OptimName::AdamW, [0.9, 0.999], 1e-8, 0.0);
    let mut optimizer = Optimizer::new(&config, &params).unwrap();
    let mut gradients = Gradients::new(&params);
    gradients.add(&(&a * 3.0 + &b * 4.0).sum(Kind::Float), 10.0).unwrap();
    let report = gradients.step(&mut optimizer, &params, Some(1.0), 0.5, 1).unwrap();
    assert!((report.loss - 7.0).abs() < 1e-12 && (report.grad_norm - 5.0).abs() < 1e-12, "{report:?}");
    assert!((a.double_value(&[0]) - 0.995).abs() < 1e-6);
    // exp_avg holds the clipped gradient: 0.1 · 3 / 5.
    assert!((optimizer.state()["exp_avg.a"].double_value(&[0]) - 0.06).abs() < 1e-6);
    assert_eq!(gradients.n_micro_batches(), 0);
    assert!(gradients.step(&mut optimizer, &params, None, 1.0, 2).unwrap_err().to_string().contains("step 2"));
}

#[test]
fn a_loss_or_gradient_that_is_not_finite_stops_before_the_update() {
    let (params, x, y) = network();
    let mut optimizer = Optimizer::new(&config(OptimName::Adam, [0.9, 0.999], 1e-8, 0.0), &params).unwrap();
    let before = params.snapshot().unwrap();
    let mut gradients = Gradients::new(&params);
    gradients.add(&(loss(&params, &x, &y) * f64::NAN), 8.0).unwrap();
    let error = gradients.step(&mut optimizer, &params, None, 1.0, 17).unwrap_err();
    assert!(error.to_string().contains("step 17: the loss is NaN") && error.to_string().contains("`w1`"), "{error}");
    assert!(error.hint().is_some());
    // √x at 0 has an infinite slope and a finite value.
    let w2 = params.get("w2").unwrap();
    gradients.add(&(loss(&params, &x, &y) + (w2 - w2.detach()).sqrt().sum(Kind::Float)), 8.0).unwrap();
    let message = gradients.step(&mut optimizer, &params, Some(1.0), 1.0, 18).unwrap_err().to_string();
    assert!(message.contains("step 18: the gradient of `w2` is not finite"), "{message}");
    for (name, tensor) in params.named() {
        assert!(tensor.equal(&before[name]), "{name} changed");
    }
    assert_eq!(optimizer.state()["step.w1"].int64_value(&[0]), 0);
}

#[test]
fn wrong_input_is_refused() {
    let (params, x, y) = network();
    let mut gradients = Gradients::new(&params);
    let mean = loss(&params, &x, &y);
    assert!(gradients.add(&mean, 0.0).unwrap_err().to_string().contains("at least one target"));
    assert!(gradients.add(&x, 1.0).unwrap_err().to_string().contains("[8, 4]"));
    assert!(gradients.add_given(&mean, 1.0, vec![]).unwrap_err().to_string().contains("0 gradients for 3"));

    let config = config(OptimName::Adam, [0.9, 0.999], 1e-8, 0.0);
    let error = |groups: &[Group]| Optimizer::with_groups(&config, &params, groups).unwrap_err().to_string();
    assert!(error(&[Group::new("w", |n| n.starts_with('w'), 1.0, 0.0)]).contains("takes: unused"));
    let all = || Group::new("all", |_| true, 1.0, 0.0);
    assert!(error(&[all(), Group::new("late", |_| true, 1.0, 0.0)]).contains("`late` takes no parameter"));
    assert!(Optimizer::new(&config, &Params::new(Device::Cpu)).is_err());

    let mut optimizer = Optimizer::new(&config, &params).unwrap();
    let wrong = vec![Some(Tensor::zeros([4, 5], (Kind::Float, Device::Cpu))), None, None];
    let message = optimizer.step(&params, &wrong, 1.0, 1.0).unwrap_err().to_string();
    assert!(message.contains("gradient of `w1`") && message.contains("[4, 5]"), "{message}");
    let mut state = optimizer.state();
    state.remove("exp_avg.w1");
    state.insert("exp_avg.w9".into(), Tensor::from(0.0));
    let message = optimizer.load_state(&state).unwrap_err().to_string();
    assert!(message.contains("missing tensor `exp_avg.w1`") && message.contains("`exp_avg.w9`"), "{message}");
}

#[test]
fn config_lists_every_value_out_of_range() {
    use anyo_core::config::Check;

    let text = "{name: adamw, lr: 0, betas: [0.9, 1.0], eps: 0, weight_decay: -1, clip_norm: 0, \
                schedule: {name: cosine, warmup_steps: 0, total_steps: null, floor: 2}}";
    let config: OptimConfig = serde_yaml::from_str(text).unwrap();
    assert_eq!(config.name, OptimName::AdamW);
    let keys: Vec<_> = config.problems().into_iter().map(|p| p.key).collect();
    assert_eq!(keys, ["lr", "betas.1", "eps", "weight_decay", "clip_norm", "schedule.floor"]);
    for (from, to) in [("adamw", "sgd"), ("clip_norm: 0, ", ""), ("lr: 0", "lr: 0, momentum: 1")] {
        assert!(serde_yaml::from_str::<OptimConfig>(&text.replace(from, to)).is_err(), "{to}");
    }
}

#[test]
fn half_precision_weights_keep_f32_moments() {
    let mut params = Params::new(Device::Cpu);
    let w = params.add("w", Tensor::from_slice(&[1f32, -2.0]).to_kind(Kind::BFloat16), true).unwrap();
    let mut optimizer = Optimizer::new(&config(OptimName::AdamW, [0.9, 0.999], 1e-8, 0.0), &params).unwrap();
    let g = Tensor::from_slice(&[0.5f32, 0.5]).to_kind(Kind::BFloat16);
    optimizer.step(&params, &[Some(g)], 10.0, 1.0).unwrap();
    assert_eq!((w.kind(), optimizer.state()["exp_avg.w"].kind()), (Kind::BFloat16, Kind::Float));
    // lr 0.1: 0.9 and −2.1, which bf16 holds to 1/256 of their size.
    assert!((w.double_value(&[0]) - 0.9).abs() < 4e-3 && (w.double_value(&[1]) + 2.1).abs() < 9e-3);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let run = |threads| {
        anyo_core::torch::device::set_threads(threads).unwrap();
        let mut params = Params::new(Device::Cpu);
        let init = anyo_core::torch::Init::Normal { std: 0.1 };
        let table = params.create("table", &[5000, 21], init, 1).unwrap();
        let mut optimizer = Optimizer::new(&config(OptimName::AdamW, [0.9, 0.999], 1e-8, 0.1), &params).unwrap();
        let mut gradients = Gradients::new(&params);
        let mut norms = Vec::new();
        for step in 0..3 {
            let grad = init.tensor(&format!("grad {step}"), &[5000, 21], 2).unwrap();
            gradients.add_given(&Tensor::from(1f32), 1.0, vec![Some(grad)]).unwrap();
            norms.push(gradients.step(&mut optimizer, &params, Some(1.0), 1.0, step).unwrap().grad_norm.to_bits());
        }
        let values = Vec::<f32>::try_from(table.detach().view(-1)).unwrap();
        (norms, values.into_iter().map(f32::to_bits).collect::<Vec<_>>())
    };
    let one = run(1);
    assert!(one == run(2) && one == run(3));
}

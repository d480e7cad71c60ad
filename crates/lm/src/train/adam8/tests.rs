use anyo_core::torch::{Init, OptimName, Optimizer, ScheduleConfig, ScheduleName};

use super::*;

fn config(name: OptimName, lr: f64) -> OptimConfig {
    let schedule = ScheduleConfig { name: ScheduleName::Constant, warmup_steps: 0, total_steps: None, floor: 0.0 };
    OptimConfig { name, lr, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0, clip_norm: None, schedule }
}

fn all(decay: f64) -> Vec<Group> {
    vec![Group::new("all", |_| true, 1.0, decay)]
}

fn params(shapes: &[&[i64]]) -> Params {
    let mut params = Params::new(Device::Cpu);
    for (i, shape) in shapes.iter().enumerate() {
        let _ = params.create(format!("w{i}"), shape, Init::Normal { std: 0.5 }, 1).unwrap();
    }
    params
}

#[test]
fn decay_comes_after_the_step() {
    // specs/so8t.md section 7 number 10: p = 1, g = .5, lr = .1, wd = .05 → 0.8955 (decay first would give 0.895).
    let mut params = Params::new(Device::Cpu);
    let p = params.add("p", Tensor::from_slice(&[1f32]), true).unwrap();
    let mut optimizer = Adam8::new(&config(OptimName::AdamW, 0.1), &params, &all(0.05)).unwrap();
    optimizer.step(&params, &[Some(Tensor::from_slice(&[0.5f32]))], 1.0, 1.0).unwrap();
    assert!((p.double_value(&[0]) - 0.8955).abs() < 1e-6, "{p}");
}

#[test]
fn one_quantised_step_matches_hand_values() {
    // After one step m = 0.1 g and v = 0.001 g². In a block whose largest |g| is 1, g = 1 is exact and g = −0.1 has
    // m/max = −0.1, between the codes −(0.1 + 0.9/128) = −0.10703125 and −(1 − 0.9/64)/10 = −0.0985938: the latter.
    let mut params = Params::new(Device::Cpu);
    let _ = params.add("p", Tensor::zeros([8192], (Kind::Float, Device::Cpu)), true).unwrap();
    let g = Tensor::full([8192], -0.1, (Kind::Float, Device::Cpu));
    let _ = g.get(0).fill_(1.0);
    let mut optimizer = Adam8::new(&config(OptimName::Adam, 0.1), &params, &all(0.0)).unwrap();
    optimizer.step(&params, &[Some(g)], 1.0, 1.0).unwrap();
    let Moments::Eight { m, v, m_max, v_max } = &optimizer.slots[0].moments else { panic!("not quantised") };
    assert!((m_max[0] - 0.1).abs() < 1e-7 && (m_max[1] - 0.01).abs() < 1e-8 && (v_max[0] - 0.001).abs() < 1e-9);
    assert_eq!((m[0], v[0]), (255, 255));
    let signed = DynamicMap::signed().value(m[1]);
    assert!((signed + 0.098_593_75).abs() < 1e-6, "{signed}");
    // In the next block every |m| is the largest; −1 is not on the map, −0.99296875 is the nearest.
    assert_eq!((m[300], v[300]), (0, 255));
    // v = 0.01·max lies between (1 − 0.45/32)/100 = 0.009859375 and (0.1 + 0.45/64)/10 = 0.0107031: the former.
    let unsigned = DynamicMap::unsigned().value(v[1]);
    assert!((unsigned - 0.009_859_375).abs() < 1e-6, "{unsigned}");
}

/// Least squares of 48 outputs on 96 inputs: 4608 weights (quantised) and a bias (not).
struct Regression {
    params: Params,
    x: Tensor,
    y: Tensor,
}

impl Regression {
    fn new() -> Self {
        let x = Init::Normal { std: 1.0 }.tensor("x", &[256, 96], 5).unwrap();
        let truth = Init::Normal { std: 0.3 }.tensor("truth", &[48, 96], 5).unwrap();
        Self { params: params(&[&[48, 96], &[48]]), y: x.matmul(&truth.tr()) + 0.7, x }
    }

    fn loss_and_grads(&self) -> (f64, Vec<Option<Tensor>>) {
        let inputs: Vec<Tensor> = self.params.trainable().map(|(_, t)| t.shallow_clone()).collect();
        let loss = (self.x.matmul(&inputs[0].tr()) + &inputs[1] - &self.y).square().mean(Kind::Float);
        let grads = Tensor::run_backward(&[&loss], &inputs, false, false);
        (loss.double_value(&[]), grads.into_iter().map(Some).collect())
    }
}

#[test]
fn follows_f32_adam_with_a_quarter_of_the_state() {
    let (eight, full) = (Regression::new(), Regression::new());
    let config = config(OptimName::Adam, 0.01);
    let mut a = Adam8::new(&config, &eight.params, &all(0.0)).unwrap();
    let mut b = Optimizer::with_groups(&config, &full.params, &[Group::new("all", |_| true, 1.0, 0.0)]).unwrap();
    let ratio = a.state_bytes() as f64 / b.state_bytes() as f64;
    // (2 + 8/256) of 8 bytes, and the small bias in full.
    assert!((0.25..0.27).contains(&ratio), "{ratio}");
    let mut losses = Vec::new();
    for _ in 0..200 {
        let ((la, ga), (lb, gb)) = (eight.loss_and_grads(), full.loss_and_grads());
        a.step(&eight.params, &ga, 1.0, 1.0).unwrap();
        b.step(&full.params, &gb, 1.0, 1.0).unwrap();
        losses.push((la, lb));
    }
    let ((first, _), (la, lb)) = (losses[0], losses[losses.len() - 1]);
    // Stated tolerance: both get below 1 % of the first loss, and the mean relative gap on the way is below 10 %.
    let gap = losses.iter().map(|(a, b)| (a - b).abs() / b.max(1e-3 * first)).sum::<f64>() / losses.len() as f64;
    println!("first {first:.4}, last 8-bit {la:.3e}, f32 {lb:.3e}, mean gap {gap:.4}, state ratio {ratio:.4}");
    assert!(la < 0.01 * first && lb < 0.01 * first, "{la} {lb} of {first}");
    assert!(gap < 0.1, "{gap}");
}

#[test]
fn a_saved_state_continues_with_the_same_bits() {
    let (one, two) = (Regression::new(), Regression::new());
    let config = config(OptimName::AdamW, 0.01);
    let mut whole = Adam8::new(&config, &one.params, &all(0.1)).unwrap();
    let mut first = Adam8::new(&config, &two.params, &all(0.1)).unwrap();
    for _ in 0..6 {
        whole.step(&one.params, &one.loss_and_grads().1, 1.0, 1.0).unwrap();
    }
    for _ in 0..3 {
        first.step(&two.params, &two.loss_and_grads().1, 1.0, 1.0).unwrap();
    }
    let state = first.state().unwrap();
    let mut second = Adam8::new(&config, &two.params, &all(0.1)).unwrap();
    second.load_state(&state).unwrap();
    for _ in 0..3 {
        second.step(&two.params, &two.loss_and_grads().1, 1.0, 1.0).unwrap();
    }
    for ((_, a), (_, b)) in one.params.named().zip(two.params.named()) {
        assert!(a.equal(b));
    }
    let mut wrong = state;
    wrong.remove("step.w1");
    wrong.insert("exp_avg.code.w0".into(), Tensor::from_slice(&[1u8]));
    let message = second.load_state(&wrong).unwrap_err().to_string();
    assert!(message.contains("missing tensor `step.w1`") && message.contains("exp_avg.code.w0"), "{message}");
}

#[test]
fn a_gradient_that_vanishes_moves_nothing_far() {
    // One element has a tiny gradient beside a large one, then none: v must not have become 0.
    let mut params = Params::new(Device::Cpu);
    let p = params.add("p", Tensor::zeros([4096], (Kind::Float, Device::Cpu)), true).unwrap();
    let mut optimizer = Adam8::new(&config(OptimName::Adam, 0.01), &params, &all(0.0)).unwrap();
    for step in 0..20 {
        let g = Tensor::ones([4096], (Kind::Float, Device::Cpu));
        let _ = g.get(1).fill_(if step < 5 { 2e-4 } else { 0.0 });
        optimizer.step(&params, &[Some(g)], 1.0, 1.0).unwrap();
    }
    let moved = p.double_value(&[1]).abs();
    assert!(moved < 0.2, "{moved}");
}

#[test]
fn other_parameters_are_refused() {
    let (a, b) = (params(&[&[2, 3]]), params(&[&[3, 2]]));
    let mut optimizer = Adam8::new(&config(OptimName::Adam, 0.1), &a, &all(0.0)).unwrap();
    assert!(optimizer.step(&b, &[None], 1.0, 1.0).unwrap_err().to_string().contains("expects `w0` [2, 3]"));
    assert!(optimizer.step(&a, &[], 1.0, 1.0).is_err());
    assert!(Adam8::new(&config(OptimName::Adam, 0.1), &a, &[]).is_err());
    let groups = [all(0.0), vec![Group::new("late", |_| true, 1.0, 0.0)]].concat();
    let told = Adam8::new(&config(OptimName::Adam, 0.1), &a, &groups).unwrap_err().to_string();
    assert!(told.contains("`late` takes no parameter"), "{told}");
}

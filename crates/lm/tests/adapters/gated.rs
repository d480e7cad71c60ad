//! Gated LoRA: the values of specs/ilora.md section 9, tests 1 to 5.

use anyo_core::torch::Params;
use anyo_lm::{AdapterKind, GatedLora, Linear, Pass, attach, check_gate};
use tch::{Device, Kind, Tensor, no_grad};

use super::{
    assert_close, largest, llama_like, noise,
    targets::{config, names},
};

fn gated(weight: &Tensor, rank: i64, experts: Option<i64>, alpha: f64) -> (Linear, Params) {
    let mut linears = [Linear::new("w", weight.shallow_clone(), None)];
    let mut params = Params::new(Device::Cpu);
    let mut config = config(names(&["w"]));
    (config.rank, config.alpha, config.experts) = (rank, alpha, experts);
    attach(&mut linears, "default", &config, &mut params, 3).unwrap();
    let [linear] = linears;
    (linear, params)
}

fn set(params: &Params, which: &str, values: &Tensor) {
    let to = params.get(&format!("base_model.model.w.{which}.weight")).unwrap().shallow_clone();
    no_grad(|| to.shallow_clone().copy_(&values.view(to.size().as_slice())));
}

fn adapter(linear: &Linear) -> &GatedLora {
    match linear.adapter("default").unwrap().kind() {
        AdapterKind::Gated(gated) => gated,
        AdapterKind::Lora(_) => panic!("not gated"),
    }
}

fn with(gate: &Tensor) -> Pass<'_> {
    Pass { gate: Some(gate), ..Pass::default() }
}

fn row(values: &[f32]) -> Tensor {
    Tensor::from_slice(values).unsqueeze(0)
}

/// in 2, out 1, R = E = 2, alpha 4: test 1's numbers.
fn by_hand() -> (Linear, Params) {
    let (linear, params) = gated(&Tensor::zeros([1, 2], (Kind::Float, Device::Cpu)), 2, Some(2), 4.0);
    set(&params, "lora_A", &row(&[1.0, 2.0, 3.0, -1.0]));
    set(&params, "lora_B", &row(&[10.0, 100.0]));
    (linear, params)
}

#[test]
fn values_worked_by_hand() {
    let (linear, _params) = by_hand();
    let x = row(&[1.0, 1.0]).unsqueeze(1); // [1, 1, 2]
    for (gate, want) in [([0.25, 0.75], 630.0), ([1.0, 0.0], 120.0), ([0.5, 0.5], 460.0)] {
        let gate = row(&gate);
        check_gate([&linear], &with(&gate), 1).unwrap();
        assert_eq!(linear.forward(&x, &with(&gate)).double_value(&[0, 0, 0]), want);
    }
    // x [B, in] without a sequence.
    assert_eq!(linear.forward(&x.squeeze_dim(1), &with(&row(&[0.25, 0.75]))).double_value(&[0, 0]), 630.0);
}

#[test]
fn gradients_reach_the_gate() {
    let (linear, params) = by_hand();
    let gate = row(&[0.25, 0.75]).set_requires_grad(true);
    linear.forward(&row(&[1.0, 1.0]).unsqueeze(1), &with(&gate)).sum(Kind::Float).backward();
    assert_eq!(gate.grad(), row(&[120.0, 800.0]));
    assert!(params.trainable().all(|(_, p)| largest(&p.grad()) > 0.0));
}

#[test]
fn b_zero_is_the_base_bit_for_bit() {
    let weight = noise(&[5, 6], 1.0);
    let (linear, params) = gated(&weight, 4, Some(2), 8.0);
    let (x, gate) = (noise(&[2, 3, 6], 2.0), noise(&[2, 2], 3.0).abs().set_requires_grad(true));
    let y = linear.forward(&x, &with(&gate));
    assert_eq!(y, linear.forward(&x, &Pass { base_only: true, ..Pass::default() }));
    y.square().sum(Kind::Float).backward();
    let grad = |which: &str| params.get(&format!("base_model.model.w.{which}.weight")).unwrap().grad();
    assert_eq!((largest(&grad("lora_A")), largest(&gate.grad())), (0.0, 0.0));
    assert!(largest(&grad("lora_B")) > 0.0);
}

#[test]
fn each_expert_owns_its_rows() {
    let (linear, params) = gated(&noise(&[5, 6], 1.0), 8, Some(4), 32.0);
    assert_eq!((adapter(&linear).lora().scale(), adapter(&linear).n_experts()), (16.0, 4));
    let (a, b) = (noise(&[8, 6], 4.0), noise(&[5, 8], 5.0));
    set(&params, "lora_A", &a);
    set(&params, "lora_B", &b);
    let x = noise(&[2, 3, 6], 2.0);
    let (first, third) = (row(&[1.0, 0.0, 0.0, 0.0]).repeat([2, 1]), row(&[0.0, 0.0, 1.0, 0.0]).repeat([2, 1]));
    let before = [linear.forward(&x, &with(&first)), linear.forward(&x, &with(&third))];
    // Expert 2 owns rows 4-5 of A and columns 4-5 of B.
    let _ = (a.narrow(0, 4, 2).zero_(), b.narrow(1, 4, 2).zero_());
    set(&params, "lora_A", &a);
    set(&params, "lora_B", &b);
    assert_eq!(linear.forward(&x, &with(&first)), before[0]);
    let base = linear.forward(&x, &Pass { base_only: true, ..Pass::default() });
    assert_eq!(linear.forward(&x, &with(&third)), base);
    assert!(largest(&(&before[1] - &base)) > 1.0);
}

#[test]
fn a_uniform_gate_is_plain_lora_and_each_row_has_its_own_weight() {
    let weight = noise(&[5, 6], 1.0);
    let ((linear, params), (plain, plain_params)) = (gated(&weight, 6, Some(3), 9.0), gated(&weight, 6, None, 9.0));
    for params in [&params, &plain_params] {
        set(params, "lora_A", &noise(&[6, 6], 4.0));
        set(params, "lora_B", &noise(&[5, 6], 5.0));
    }
    let x = noise(&[2, 4, 6], 2.0);
    let uniform = Tensor::full([2, 3], 1.0 / 3.0, (Kind::Float, Device::Cpu));
    assert_close("uniform", &linear.forward(&x, &with(&uniform)), &plain.forward(&x, &Pass::default()), 1e-6);
    let gate = noise(&[2, 3], 6.0);
    let y = linear.forward(&x, &with(&gate));
    for i in 0..2 {
        let merged = &weight + adapter(&linear).weight_delta(&gate.get(i)).unwrap();
        assert_close("own weight", &y.get(i), &x.get(i).matmul(&merged.tr()), 1e-5);
    }
    // Merging B A without the gate would be E times too strong at a uniform gate.
    let naive = adapter(&linear).lora().weight_delta();
    let right = adapter(&linear).weight_delta(&uniform.get(0)).unwrap();
    assert_close("naive", &naive, &(right * 3.0), 1e-5);
}

#[test]
fn gates_that_do_not_fit_are_refused_before_the_pass() {
    let (linear, _params) = by_hand();
    let refuse = |pass: &Pass<'_>, want: &str| {
        let error = check_gate([&linear], pass, 1).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("layer `w` has a gated adapter, which needs a gate [B,E] = [1, 2]"), "{text}");
        assert!(text.contains(want) && error.hint().unwrap().contains("Pass::gate"), "{text}");
    };
    refuse(&Pass::default(), "none was given");
    for shape in [vec![2, 2], vec![1, 3], vec![2], vec![1, 1, 2]] {
        let gate = Tensor::ones(&shape, (Kind::Float, Device::Cpu));
        refuse(&with(&gate), &format!("got the shape {shape:?}"));
    }
    refuse(&with(&Tensor::ones([1, 2], (Kind::Int64, Device::Cpu))), "got numbers of type Int64");
    check_gate([&linear], &Pass { base_only: true, ..Pass::default() }, 1).unwrap();
    check_gate(&llama_like(), &Pass::default(), 7).unwrap();
    assert!(adapter(&linear).weight_delta(&row(&[1.0, 2.0])).is_err());
}

#[test]
fn gated_adapters_do_not_merge() {
    let (mut linear, _params) = by_hand();
    for message in [linear.merge().unwrap_err(), linear.merge_for_good(Kind::Float).unwrap_err()] {
        assert!(message.to_string().contains("adapter `default` of layer `w` is gated"), "{message}");
    }
    assert_eq!(linear.adapters().len(), 1);
}

//! Plain LoRA: initial values, scales, dropout, types, merging.

use anyo_core::torch::{Params, Role};
use anyo_lm::{AdapterKind, DropoutStream, Linear, LoraConfig, Pass, attach, quant::Quant};
use tch::{Device, Kind, Tensor, no_grad};

use super::{
    assert_close, eval, largest, llama_like, noise,
    targets::{config, names},
};

/// A layer `[out, in]` = [6, 64] with an adapter of rank 2 whose B is not zero.
pub(crate) fn adapted(kind: Kind, change: impl Fn(&mut LoraConfig)) -> (Linear, Params) {
    let weight = noise(&[6, 64], 1.0).to_kind(kind);
    let mut linears = [Linear::new("layer.q_proj", weight, Some(noise(&[6], 2.0).to_kind(kind)))];
    let mut params = Params::new(Device::Cpu);
    let mut config = config(names(&["q_proj"]));
    change(&mut config);
    attach(&mut linears, "default", &config, &mut params, 3).unwrap();
    let b = params.get("base_model.model.layer.q_proj.lora_B.weight").unwrap().shallow_clone();
    no_grad(|| b.shallow_clone().copy_(&noise(&b.size(), 4.0)));
    let [linear] = linears;
    (linear, params)
}

fn train(seed: u64) -> Pass<'static> {
    Pass { dropout: Some(DropoutStream::new(seed)), ..Pass::default() }
}

#[test]
fn a_new_adapter_changes_no_bit_and_trains() {
    let mut linears = llama_like();
    let x = noise(&[2, 3, 4], 9.0);
    let before: Vec<Tensor> = linears.iter().map(|linear| linear.forward(&x, &eval())).collect();
    let mut params = Params::new(Device::Cpu);
    let report = attach(&mut linears, "default", &config(names(&["q_proj", "up_proj"])), &mut params, 1).unwrap();
    assert_eq!((report.layers.len(), report.n_parameters), (4, 4 * (2 * 4 + 6 * 2)));
    for (linear, before) in linears.iter().zip(&before) {
        assert_eq!(&linear.forward(&x, &eval()), before);
    }
    let found: Vec<&str> = params.trainable().map(|(name, _)| name).collect();
    assert_eq!(found[0], "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
    assert_eq!(found[1], "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight");
    assert_eq!((found.len(), params.role(found[0])), (8, Some(Role::Trainable)));
    // kaiming_uniform_(a=√5) is uniform in ±1/√in, and another layer draws other numbers.
    let a = |name: &str| params.get(name).unwrap().shallow_clone();
    assert!(largest(&a(found[0])) <= 0.5 && largest(&a(found[0])) > 0.2);
    assert_ne!(a(found[0]), a(found[2]));
    // B's gradient is not zero, A's is as long as B is, the base gets none.
    linears[0].forward(&x, &eval()).square().sum(Kind::Float).backward();
    assert!(largest(&a(found[1]).grad()) > 0.0 && largest(&a(found[0]).grad()) == 0.0);
    assert!(!linears[0].trains_base());
}

#[test]
fn the_product_is_scaled_as_the_settings_say() {
    let x = noise(&[2, 3, 64], 5.0);
    for (rslora, scale) in [(false, 2.0), (true, 4.0 / 2f64.sqrt())] {
        let (linear, params) = adapted(Kind::Float, |c| c.rslora = rslora);
        let get = |which: &str| params.get(&format!("base_model.model.layer.q_proj.{which}.weight")).unwrap();
        let delta = x.matmul(&get("lora_A").tr()).matmul(&get("lora_B").tr()) * scale;
        let base = linear.forward(&x, &Pass { base_only: true, ..Pass::default() });
        assert_close("output", &linear.forward(&x, &eval()), &(&base + &delta), 1e-6);
        assert_eq!(base, x.reshape([6, 64]).linear(linear.weight().unwrap(), linear.bias()).view([2, 3, 6]));
    }
    let (linear, _) = adapted(Kind::Float, |c| {
        c.rank_pattern = vec![("k_proj".into(), 7), ("q_proj".into(), 5), ("layer.q_proj".into(), 6)];
        c.alpha_pattern = vec![("_proj".into(), 9.0), ("[qk]_proj".into(), 15.0)];
    });
    let AdapterKind::Lora(lora) = linear.adapter("default").unwrap().kind() else { panic!() };
    assert_eq!((lora.rank(), lora.scale()), (5, 3.0));
}

#[test]
fn dropout_repeats_with_its_seed_and_only_touches_the_adapter() {
    let (linear, _) = adapted(Kind::Float, |c| c.dropout = 0.5);
    let x = noise(&[4, 64], 5.0);
    let (first, again, other) =
        (linear.forward(&x, &train(1)), linear.forward(&x, &train(1)), linear.forward(&x, &train(2)));
    assert_eq!(first, again);
    assert_ne!(first, other);
    assert_ne!(first, linear.forward(&x, &eval()));
    // Two calls of one stream differ; rewound, it draws the same again.
    let pass = train(1);
    let start = pass.dropout.as_ref().unwrap().position();
    let (one, two) = (linear.forward(&x, &pass), linear.forward(&x, &pass));
    pass.dropout.as_ref().unwrap().rewind(start);
    assert_ne!(one, two);
    assert_eq!(linear.forward(&x, &pass), one);
    // The mean over many masks is the output without dropout.
    let pass = train(3);
    let sum = (0..500).map(|_| linear.forward(&x, &pass)).reduce(|a, b| a + b).unwrap();
    assert_close("mean over masks", &(sum / 500.0), &linear.forward(&x, &eval()), 0.1);
}

#[test]
fn f32_adapters_on_a_bf16_base() {
    let (linear, params) = adapted(Kind::BFloat16, |_| {});
    let (exact, _) = adapted(Kind::Float, |_| {});
    let x = noise(&[3, 64], 5.0).to_kind(Kind::BFloat16);
    let y = linear.forward(&x, &eval());
    assert_eq!(y.kind(), Kind::BFloat16);
    assert_close("output", &y, &exact.forward(&x.to_kind(Kind::Float), &eval()), 1e-2);
    y.to_kind(Kind::Float).square().sum(Kind::Float).backward();
    assert!(
        params
            .trainable()
            .all(|(_, p)| p.kind() == Kind::Float && p.grad().kind() == Kind::Float && largest(&p.grad()) > 0.0)
    );
}

#[test]
fn a_dense_weight_of_another_type_is_cast_and_keeps_its_gradient() {
    let weight = noise(&[6, 64], 1.0).set_requires_grad(true);
    let mut linear = Linear::new("w", weight.shallow_clone(), None);
    assert!(linear.trains_base());
    let y = linear.forward(&noise(&[3, 64], 5.0).to_kind(Kind::BFloat16), &eval());
    assert_eq!(y.kind(), Kind::BFloat16);
    y.sum(Kind::Float).backward();
    assert_eq!(weight.grad().kind(), Kind::Float);
    linear.freeze();
    assert!(!linear.trains_base());
    let _ = no_grad(|| weight.shallow_clone().fill_(2.0));
    assert_eq!(linear.weight().unwrap().double_value(&[0, 0]), 2.0, "freezing copies nothing");
}

#[test]
fn merge_gives_the_same_and_unmerge_the_exact_weight() {
    let x = noise(&[5, 64], 5.0);
    for (kind, tolerance) in [(Kind::Float, 1e-6), (Kind::BFloat16, 2e-2)] {
        let (mut linear, _) = adapted(kind, |_| {});
        let x = x.to_kind(kind);
        let (before, original) = (linear.forward(&x, &eval()), linear.weight().unwrap().copy());
        let base = linear.forward(&x, &Pass { base_only: true, ..Pass::default() });
        linear.merge().unwrap();
        assert!(linear.is_merged());
        assert_close("merged", &linear.forward(&x, &eval()), &before, tolerance);
        assert_eq!(linear.forward(&x, &Pass { base_only: true, ..Pass::default() }), base);
        assert!(linear.merge().unwrap_err().to_string().contains("are merged; unmerge it first"));
        assert!(linear.set_active("default", false).is_err() && linear.quantize(Quant::NF4).is_err());
        linear.unmerge();
        assert_eq!(linear.weight().unwrap(), &original);
        assert_eq!(linear.forward(&x, &eval()), before);
        linear.set_active("default", false).unwrap();
        assert_eq!(linear.forward(&x, &eval()), base);
    }
}

#[test]
fn quantised_bases_refuse_to_merge_and_offer_to_become_dense() {
    let (mut linear, _) = adapted(Kind::Float, |_| {});
    linear.quantize(Quant::NF4).unwrap();
    let x = noise(&[12, 64], 5.0);
    let before = linear.forward(&x, &eval());
    let error = linear.merge().unwrap_err();
    assert!(
        error.to_string().contains("`layer.q_proj` is quantised") && error.hint().unwrap().contains("merge_for_good")
    );
    linear.merge_for_good(Kind::Float).unwrap();
    assert!(linear.adapters().is_empty() && linear.weight().is_some());
    assert_close("merged for good", &linear.forward(&x, &eval()), &before, 1e-6);
}

#[test]
fn two_adapters_add_up_and_leave_one_by_one() {
    let (linear, mut params) = adapted(Kind::Float, |_| {});
    let mut linears = [linear];
    attach(&mut linears, "second", &config(names(&["q_proj"])), &mut params, 3).unwrap();
    let name = "base_model.model.layer.q_proj.lora_B.second.weight";
    let _ = no_grad(|| params.get(name).unwrap().shallow_clone().fill_(0.5));
    let x = noise(&[5, 64], 5.0);
    let outputs = |linears: &mut [Linear; 1], first: bool, second: bool| {
        linears[0].set_active("default", first).unwrap();
        linears[0].set_active("second", second).unwrap();
        linears[0].forward(&x, &eval())
    };
    let (none, first) = (outputs(&mut linears, false, false), outputs(&mut linears, true, false));
    let (second, both) = (outputs(&mut linears, false, true), outputs(&mut linears, true, true));
    assert_close("sum", &both, &(&first + &second - &none), 1e-6);
    linears[0].remove_adapter("default").unwrap();
    assert_eq!(linears[0].forward(&x, &eval()), second);
}

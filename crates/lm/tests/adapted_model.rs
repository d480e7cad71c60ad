//! Whole models with adapters: against peft, and recomputed layers against the plain backward pass.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::path::{Path, PathBuf};

use anyo_core::torch::{Params, load_tensors};
use anyo_lm::{
    Causal, CausalLm, DropoutStream, LmInput, LoadOptions, LoraConfig, Pass, Targets, attach, load_peft, quant::Quant,
};
use tch::{Device, Kind, Tensor, no_grad};

fn fixture(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(case)
}

fn open(folder: &Path) -> CausalLm {
    CausalLm::load(folder, &LoadOptions { device: Device::Cpu, dtype: Kind::Float }).unwrap()
}

fn tokens(ids: &Tensor) -> LmInput {
    LmInput { ids: ids.to_kind(Kind::Int64), ..LmInput::default() }
}

#[test]
fn adapted_models_give_pefts_logits() {
    for case in ["plain", "patterns", "fused"] {
        let folder = fixture("peft").join(case);
        let mut model = open(&folder.join("base"));
        let wanted = load_tensors(&folder.join("expected.safetensors")).unwrap();
        let input = tokens(&wanted["ids"]);
        let logits = |model: &CausalLm, pass: &Pass<'_>| {
            no_grad(|| model.logits_in(&model.hidden(&input, None, pass).unwrap(), pass).unwrap())
        };
        let bare = logits(&model, &Pass::default());
        let mut params = Params::new(Device::Cpu);
        load_peft(model.linears_mut(), &folder.join("adapter"), "default", &mut params).unwrap();
        let apart = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
        let off = apart(&logits(&model, &Pass::default()), &wanted["logits"]);
        assert!(off < 1e-5, "{case}: {off}");
        assert!(apart(&bare, &wanted["logits"]) > 1e-3, "{case}: the adapter changes something");
        assert_eq!(logits(&model, &Pass { base_only: true, ..Pass::default() }), bare, "{case}");
        for linear in model.linears_mut() {
            linear.merge().unwrap();
        }
        assert!(apart(&logits(&model, &Pass::default()), &wanted["logits"]) < 2e-5, "{case}: merged");
    }
}

fn lora(experts: Option<i64>) -> LoraConfig {
    LoraConfig {
        rank: 4,
        alpha: 8.0,
        dropout: 0.2,
        rslora: false,
        targets: Targets::AllLinear,
        rank_pattern: Default::default(),
        alpha_pattern: Default::default(),
        experts,
    }
}

/// Gradients of the adapters and the gate: layers recomputed, dropout masks drawn again, against the plain pass.
#[test]
fn recomputed_layers_give_the_same_gradients_with_dropout_gate_and_quantised_base() {
    // With a threshold int8 rounds activations, and a step of that rounding is larger than any tolerance here.
    let int8 = Quant::Int8 { threshold: None };
    for (experts, quant) in [(None, None), (Some(2), None), (Some(2), Some(Quant::NF4)), (None, Some(int8))] {
        let mut model = open(&fixture("models/llama_gqa"));
        for linear in model.linears_mut() {
            linear.freeze();
            if let Some(quant) = quant.filter(|_| linear.name() != "lm_head") {
                linear.quantize(quant).unwrap();
            }
        }
        let mut params = Params::new(Device::Cpu);
        attach(model.linears_mut(), "a", &lora(experts), &mut params, 7).unwrap();
        // B starts at zero, where A would get no gradient.
        no_grad(|| {
            for (i, (_, tensor)) in params.trainable().enumerate() {
                tch::manual_seed(i as i64);
                let _ = tensor.shallow_clone().uniform_(-0.3, 0.3);
            }
        });
        let ids = Tensor::from_slice(&[5i64, 9, 2, 11, 3, 8]).view([2, 3]);
        let gate = Tensor::from_slice(&[0.3f32, 0.7, 0.9, 0.1]).view([2, 2]).set_requires_grad(true);
        let pass = || Pass { dropout: Some(DropoutStream::new(3)), gate: experts.map(|_| &gate), ..Pass::default() };
        let loss = |hidden: &Tensor| hidden.sin().sum(Kind::Float);
        let mut wanted: Vec<Tensor> = params.trainable().map(|(_, t)| t.shallow_clone()).collect();
        wanted.extend(experts.map(|_| gate.shallow_clone()));
        let plain = loss(&model.hidden(&tokens(&ids), None, &pass()).unwrap());
        let plain_grads = Tensor::run_backward(&[&plain], &wanted, false, false);
        let again = model.backward_checkpointed(&tokens(&ids), &pass(), &wanted, |hidden| Ok(loss(hidden))).unwrap();
        let (loss, plain) = (again.loss.double_value(&[]), plain.double_value(&[]));
        // Without a graph a quantised layer takes another kernel, which rounds otherwise.
        let fine = if quant.is_some() { (loss - plain).abs() < 1e-5 * plain.abs() } else { loss == plain };
        assert!(fine, "{experts:?} {quant:?}: {loss} against {plain}");
        for (i, (got, want)) in again.grads.iter().zip(&plain_grads).enumerate() {
            let got = got.as_ref().unwrap();
            let largest = want.abs().max().double_value(&[]);
            assert!(largest > 0.0, "gradient {i} says something");
            let off = (got - want).abs().max().double_value(&[]) / largest;
            let tolerance = if quant.is_some() { 1e-4 } else { 1e-6 };
            assert!(off <= tolerance, "{experts:?} {quant:?}: gradient {i} is off by {off}");
        }
    }
}

#[test]
fn a_missing_gate_is_an_error_before_the_pass() {
    let mut model = open(&fixture("models/llama_gqa"));
    let mut params = Params::new(Device::Cpu);
    attach(model.linears_mut(), "a", &lora(Some(2)), &mut params, 7).unwrap();
    let ids = Tensor::from_slice(&[5i64, 9]).view([1, 2]);
    let told = model.hidden(&tokens(&ids), None, &Pass::default()).unwrap_err().to_string();
    assert!(told.contains("needs a gate [B,E] = [1, 2]"), "{told}");
}

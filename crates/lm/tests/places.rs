//! States at some places against the whole pass, whose values and gradients are checked elsewhere.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::path::Path;

use anyo_core::torch::Params;
use anyo_lm::{Causal, CausalLm, DropoutStream, LmInput, LoadOptions, LoraConfig, Pass, Targets, attach};
use tch::{Device, Kind, Tensor, no_grad};

const CASES: [&str; 8] = [
    "llama_gqa",
    "llama_linear",
    "llama3_tied_bias",
    "qwen2_tied",
    "qwen2_window",
    "mistral_window",
    "phi3_window",
    "phi3_longrope",
];

fn open(case: &str) -> (CausalLm, Params) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(case);
    let mut model = CausalLm::load(&folder, &LoadOptions { device: Device::Cpu, dtype: Kind::Float }).unwrap();
    model.linears_mut().into_iter().for_each(|linear| linear.freeze());
    let lora = LoraConfig {
        rank: 4,
        alpha: 8.0,
        dropout: 0.2,
        rslora: false,
        targets: Targets::AllLinear,
        rank_pattern: Default::default(),
        alpha_pattern: Default::default(),
        experts: Some(2),
    };
    let mut params = Params::new(Device::Cpu);
    attach(model.linears_mut(), "default", &lora, &mut params, 7).unwrap();
    no_grad(|| {
        for (i, (_, tensor)) in params.trainable().enumerate() {
            tch::manual_seed(i as i64);
            let _ = tensor.shallow_clone().uniform_(-0.3, 0.3);
        }
    });
    (model, params)
}

fn input() -> LmInput {
    let ids: Vec<i64> = (0..21).map(|i| (i * 5 + i * i) % 23 + 3).collect();
    LmInput { ids: Tensor::from_slice(&ids).view([3, 7]), ..LmInput::default() }
}

#[test]
fn states_dropout_and_gradients_are_those_of_the_whole_pass() {
    // Unevenly over the rows, out of order, one row without any; then one place, and all of them.
    let all: Vec<i64> = (0..21).collect();
    for case in CASES {
        let (model, params) = open(case);
        let gate = Tensor::from_slice(&[0.3f32, 0.7, 0.9, 0.1, 0.5, 0.5]).view([3, 2]).set_requires_grad(true);
        let mut wanted: Vec<Tensor> = params.trainable().map(|(_, t)| t.shallow_clone()).collect();
        wanted.push(gate.shallow_clone());
        for places in [&[20i64, 14, 3, 17, 6][..], &[9], &all] {
            let pass = || Pass { dropout: Some(DropoutStream::new(3)), gate: Some(&gate), ..Pass::default() };
            let (whole, some) = (pass(), pass());
            let want = model.hidden(&input(), None, &whole).unwrap();
            let width = *want.size().last().unwrap();
            let want = want.view([-1, width]).index_select(0, &Tensor::from_slice(places));
            let got = model.hidden_at(&input(), places, &some).unwrap();
            assert_eq!(got.size(), [places.len() as i64, width]);
            let off = (&got - &want).abs().max().double_value(&[]);
            assert!(off < 1e-5, "{case} {places:?}: {off}");
            let drawn = |pass: &Pass<'_>| pass.dropout.as_ref().unwrap().position();
            assert_eq!(drawn(&whole), drawn(&some), "{case}");
            let grads = |states: &Tensor| {
                let loss = states.sin().sum(Kind::Float);
                // Of the linears behind the last state that is read, the output layer's have no gradient.
                Tensor::f_run_backward(&[loss], &wanted, false, false).unwrap()
            };
            for (i, (got, want)) in grads(&got).iter().zip(&grads(&want)).enumerate() {
                assert_eq!(got.defined(), want.defined(), "{case}: gradient {i}");
                if want.defined() {
                    // Sums of products of other sizes, through a whole model.
                    let largest = want.abs().max().double_value(&[]);
                    let off = (got - want).abs().max().double_value(&[]);
                    assert!(
                        off <= 5e-5 * largest.max(1e-3),
                        "{case} {places:?}: gradient {i} is off by {off} of {largest}"
                    );
                }
            }
        }
    }
}

#[test]
fn pads_take_the_whole_way_and_places_outside_are_refused() {
    let (model, _) = open("llama_gqa");
    let gate = Tensor::full([3, 2], 0.5, (Kind::Float, Device::Cpu));
    let pass = Pass { gate: Some(&gate), ..Pass::default() };
    let mut mask = vec![1i64; 21];
    mask[7..9].fill(0);
    let padded = || LmInput { mask: Some(Tensor::from_slice(&mask).view([3, 7])), ..input() };
    no_grad(|| {
        let want = model.hidden(&padded(), None, &pass).unwrap().view([21, -1]).narrow(0, 13, 1);
        assert_eq!(model.hidden_at(&padded(), &[13], &pass).unwrap(), want);
        assert_eq!(model.hidden_at(&input(), &[], &pass).unwrap().size()[0], 0);
        for place in [-1, 21] {
            let error = model.hidden_at(&input(), &[place], &pass).unwrap_err().to_string();
            assert_eq!(error, format!("place {place} is outside a batch of 3 rows of 7 places"));
        }
    });
}

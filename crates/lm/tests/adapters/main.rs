//! Linear layers, adapters, PEFT folders and quantised bases against hand-computed values and fixtures made in Python.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod gated;
mod lora;
mod peft;
mod quant;
mod targets;

use std::{collections::BTreeMap, path::PathBuf};

use anyo_core::torch::load_tensors;
use anyo_lm::{Linear, Pass};
use tch::{Device, Kind, Tensor};

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

fn tensors(path: &str) -> BTreeMap<String, Tensor> {
    load_tensors(&fixture(path)).unwrap()
}

/// Repeatable numbers that look random, within ±1.
fn noise(shape: &[i64], seed: f64) -> Tensor {
    let n: i64 = shape.iter().product();
    (((Tensor::arange(n, (Kind::Double, Device::Cpu)) + seed) * 12.9898).sin() * 43758.5453)
        .frac()
        .to_kind(Kind::Float)
        .view(shape)
}

fn largest(x: &Tensor) -> f64 {
    x.to_kind(Kind::Double).abs().max().double_value(&[])
}

/// Fails unless all elements are within `tolerance` of each other, in units of the largest wanted one where that is above 1.
#[track_caller]
fn assert_close(what: &str, got: &Tensor, want: &Tensor, tolerance: f64) {
    assert_eq!(got.size(), want.size(), "{what}");
    let difference = largest(&(got.to_kind(Kind::Double) - want.to_kind(Kind::Double))) / largest(want).max(1.0);
    assert!(difference <= tolerance, "{what}: {difference}");
}

fn eval() -> Pass<'static> {
    Pass::default()
}

/// Layers as a Llama of two blocks names them, `[out, in]` = [6, 4] each, and an output embedding.
fn llama_like() -> Vec<Linear> {
    let mut names = Vec::new();
    for layer in 0..2 {
        for part in ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj"] {
            names.push(format!("model.layers.{layer}.{part}"));
        }
    }
    names.push("lm_head".into());
    names.into_iter().enumerate().map(|(i, name)| Linear::new(name, noise(&[6, 4], i as f64), None)).collect()
}

//! What the documentation of `quant` says about memory, measured; alone in its process, since a process has one peak.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use anyo_core::memory::peak_rss_bytes;
use anyo_lm::{Linear, Pass, quant::Quant};
use tch::{Device, Kind, Tensor};

const LAYERS: usize = 12;
const WIDTH: i64 = 1536;
/// One dense weight.
const DENSE: f64 = (WIDTH * WIDTH * 4) as f64;

/// glibc's setting by which every dense weight is a mapping of its own that goes when the weight goes. By default a freed
/// one may stay as a hole in the heap that the next aligned one of the same size does not fit into, by luck of what else
/// was allocated, and then the peak says nothing about what lives.
const OWN_MAPPINGS: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "1048576");

#[test]
fn dense_weights_live_as_long_as_the_documentation_says() {
    if std::env::var_os(OWN_MAPPINGS.0).is_none() {
        let again = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "dense_weights_live_as_long_as_the_documentation_says", "--nocapture"])
            .env(OWN_MAPPINGS.0, OWN_MAPPINGS.1)
            .status();
        assert!(again.unwrap().success(), "see the message above");
        return;
    }
    let layer = |i: usize| {
        let weight = (Tensor::arange(WIDTH * WIDTH, (Kind::Float, Device::Cpu)) * (0.1 + i as f64)).sin() * 0.03;
        Linear::quantized(format!("layer.{i}"), weight.view([WIDTH, WIDTH]), None, Quant::NF4).unwrap()
    };
    let layers: Vec<Linear> = (0..LAYERS).map(layer).collect();
    let x = Tensor::ones([32, WIDTH], (Kind::Float, Device::Cpu));
    let pass = Pass::default();
    let forward = |x: &Tensor| layers.iter().fold(x.shallow_clone(), |x, layer| layer.forward(&x, &pass));
    // Peak growth in units of one dense weight.
    let mut peak = peak_rss_bytes() as f64;
    let mut growth = || {
        let now = peak_rss_bytes() as f64;
        (now - std::mem::replace(&mut peak, now)) / DENSE
    };
    if growth() != 0.0 || peak_rss_bytes() == 0 {
        return; // the system does not tell
    }
    let y = forward(&x);
    let without_graph = growth();
    // What Pass::checkpointing does: inputs of all layers are kept, each layer is computed again for its backward pass.
    let mut inputs = vec![x.shallow_clone()];
    for layer in &layers {
        inputs.push(layer.forward(&inputs[inputs.len() - 1], &pass));
    }
    let mut gradient = y.ones_like();
    for (layer, input) in layers.iter().zip(&inputs).rev() {
        let leaf = input.copy().set_requires_grad(true);
        (layer.forward(&leaf, &pass) * &gradient).sum(Kind::Float).backward();
        gradient = leaf.grad();
    }
    let recomputed = growth();
    let leaf = x.copy().set_requires_grad(true);
    forward(&leaf).sum(Kind::Float).backward();
    let whole_graph = growth();
    let difference = (leaf.grad() - gradient).abs().max().double_value(&[]);
    assert!(difference < 1e-5, "{difference}");
    let figures = format!("dense weights: {without_graph:.1} {recomputed:.1} {whole_graph:.1}");
    assert!(without_graph < 2.0 && recomputed < 2.5, "{figures}");
    assert!(whole_graph > LAYERS as f64 / 2.0 && whole_graph < LAYERS as f64 + 1.0, "{figures}");
}

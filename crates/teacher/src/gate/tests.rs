use std::{collections::BTreeMap, path::PathBuf};

use anyo_core::torch::load_tensors;

use super::*;
use crate::config::{GateNorm, tests::gate as config};

fn build(config: &GateConfig, d: i64) -> (Gate, Params) {
    let mut params = Params::new(Device::Cpu);
    let gate = Gate::new(config, d, &mut params, 3).unwrap();
    (gate, params)
}

fn keys(n: u64) -> Vec<u64> {
    (0..n).map(|i| row_key(&[i as u32])).collect()
}

fn case(name: &str) -> BTreeMap<String, Tensor> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/gate/{name}.safetensors"));
    load_tensors(&path).unwrap()
}

/// A gate with the weights of a fixture.
fn loaded(config: &GateConfig, tensors: &BTreeMap<String, Tensor>) -> (Gate, Params) {
    let (gate, params) = build(config, 64);
    let own: BTreeMap<String, Tensor> =
        tensors.iter().filter_map(|(k, t)| Some((k.strip_prefix("w.")?.to_owned(), t.shallow_clone()))).collect();
    params.load(&own).unwrap();
    (gate, params)
}

fn apart(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

fn pattern(like: &Tensor) -> Tensor {
    let n = like.numel() as i64;
    (Tensor::arange(n, (Kind::Double, Device::Cpu)) * 0.7 + 0.3).sin().view(like.size().as_slice())
}

/// Largest differences of gradients of `Σ out·target` from the fixture's: inner products, and in full where stored.
fn gradients(out: &Tensor, target: &Tensor, params: &Params, want: &BTreeMap<String, Tensor>, prefix: &str) -> f64 {
    let inputs: Vec<&Tensor> = params.trainable().map(|(_, t)| t).collect();
    let grads = Tensor::run_backward(&[(out * target).sum(Kind::Float)], &inputs, false, false);
    let mut worst: f64 = 0.0;
    for ((name, _), grad) in params.trainable().zip(grads) {
        let dot = (grad.to_kind(Kind::Double) * pattern(&grad)).sum(Kind::Double).double_value(&[]);
        let wanted = want[&format!("{prefix}dot.{name}")].double_value(&[0]);
        worst = worst.max((dot - wanted).abs() / wanted.abs().max(1.0));
        if let Some(full) = want.get(&format!("grad.{name}")).filter(|_| prefix.is_empty()) {
            worst = worst.max(apart(&grad, full));
        }
    }
    worst
}

#[test]
fn gates_are_pytorchs() {
    let topk = |legacy_softmax| GateConfig { top_k: 2, legacy_softmax, ..config(GateName::Topk) };
    for (name, config) in [
        ("linear", config(GateName::Linear)),
        ("topk_2", topk(false)),
        ("topk_2_legacy", topk(true)),
        ("mlp", config(GateName::Mlp)),
        // Without noise in evaluation.
        ("linear", config(GateName::Noisy)),
    ] {
        let want = case(name);
        let (gate, params) = loaded(&config, &want);
        let out = gate.forward(&want["in"], &keys(5), GateMode::Eval).unwrap();
        let off = apart(&out, &want["out"]);
        let by = gradients(&out, &want["target"], &params, &want, "");
        eprintln!("{name}: forward {off:.1e}, gradients {by:.1e}");
        assert!(off < 1e-6 && by < 1e-5, "{name}: {off} {by}");
    }
}

#[test]
fn the_released_resnet_is_pytorchs_with_its_running_statistics() {
    let want = case("resnet1d");
    let (gate, params) = loaded(&config(GateName::Resnet1d), &want);
    assert_eq!(params.n_parameters(), 90_772);
    let out = gate.forward(&want["in"], &keys(5), GateMode::Eval).unwrap();
    let (off, by) = (apart(&out, &want["eval.out"]), gradients(&out, &want["eval.target"], &params, &want, "eval."));
    let same = |prefix: &str| {
        let buffers = params.named().filter(|(name, _)| name.contains("running"));
        buffers.map(|(name, t)| apart(t, &want[&format!("{prefix}.{name}")])).fold(0.0, f64::max)
    };
    assert_eq!(same("w"), 0.0, "evaluation leaves the statistics alone");
    let trained = gate.forward(&want["in"], &keys(5), GateMode::Train(1)).unwrap();
    let (t_off, t_by) = (apart(&trained, &want["out"]), gradients(&trained, &want["target"], &params, &want, ""));
    let moved = same("after");
    eprintln!("resnet1d: eval {off:.1e} {by:.1e}, train {t_off:.1e} {t_by:.1e}, statistics {moved:.1e}");
    assert!(off < 1e-6 && by < 1e-4 && t_off < 1e-6 && t_by < 1e-4 && moved < 1e-6);
}

#[test]
fn group_norm_keeps_rows_apart_and_batch_norm_couples_them() {
    let states = Tensor::randn([4, 64], (Kind::Float, Device::Cpu));
    for (norm, coupled) in [(GateNorm::Batch, true), (GateNorm::Group, false)] {
        let (gate, params) = build(&GateConfig { norm, ..config(GateName::Resnet1d) }, 64);
        assert_eq!(params.n_parameters(), 90_772);
        let all = gate.forward(&states, &keys(4), GateMode::Train(1)).unwrap();
        let first = gate.forward(&states.narrow(0, 0, 2), &keys(2), GateMode::Train(1)).unwrap();
        assert_eq!(apart(&all.narrow(0, 0, 2), &first) > 1e-6, coupled, "{norm:?}");
    }
    let short = Gate::new(&config(GateName::Resnet1d), 4, &mut Params::new(Device::Cpu), 1).unwrap_err();
    assert!(short.to_string().contains("at least 8 features, got 4"), "{short}");
}

/// A linear gate over d = 1 whose logits at state 1 are these.
fn with_logits(config: &GateConfig, logits: &[f32]) -> (Gate, Params) {
    let (gate, params) = build(&GateConfig { experts: logits.len() as i64, ..config.clone() }, 1);
    let weight = Tensor::from_slice(logits).view([-1, 1]);
    params.load(&[("gate.weight".to_owned(), weight)].into()).unwrap();
    (gate, params)
}

fn row(gate: &Gate) -> Vec<f32> {
    let one = Tensor::ones([1, 1], (Kind::Float, Device::Cpu));
    Vec::try_from(gate.forward(&one, &[1], GateMode::Eval).unwrap().view(-1).detach()).unwrap()
}

fn close(got: &[f32], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    assert!(got.iter().zip(want).all(|(&g, w)| (f64::from(g) - w).abs() < 6e-5), "{got:?} {want:?}");
}

/// specs/ilora.md section 9, tests 6 and 7.
#[test]
fn values_worked_by_hand() {
    let (gate, _params) = with_logits(&config(GateName::Linear), &[0.0, 3f32.ln()]);
    close(&row(&gate), &[0.25, 0.75]);
    let (gate, _params) = with_logits(&config(GateName::Linear), &[0.0; 4]);
    close(&row(&gate), &[0.25; 4]);
    let logits = [0.7f32, 0.2, 0.05, 0.05].map(f32::ln);
    let topk = |top_k, legacy_softmax| GateConfig { top_k, legacy_softmax, ..config(GateName::Topk) };
    let (gate, _params) = with_logits(&topk(2, true), &logits);
    close(&row(&gate), &[0.6225, 0.3775, 0.0, 0.0]);
    let (gate, _params) = with_logits(&topk(2, false), &logits);
    close(&row(&gate), &[0.7778, 0.2222, 0.0, 0.0]);
    let one = Tensor::ones([1, 1], (Kind::Float, Device::Cpu));
    // Kept alone, the best has weight 1 whatever its logit; top1 lets the softmax's gradient through.
    for (config, learns) in [(topk(1, true), false), (config(GateName::Top1), true)] {
        let (gate, params) = with_logits(&config, &logits);
        close(&row(&gate), &[1.0, 0.0, 0.0, 0.0]);
        let out = gate.forward(&one, &[1], GateMode::Train(1)).unwrap();
        let weight = params.get("gate.weight").unwrap();
        let grad = Tensor::run_backward(&[out.get(0).get(0)], &[weight], false, false).remove(0);
        let largest = grad.abs().max().double_value(&[]);
        assert!(if learns { (largest - 0.21).abs() < 1e-5 } else { largest == 0.0 }, "{largest}");
    }
}

#[test]
fn every_gate_gives_rows_that_sum_to_one() {
    let states = Tensor::randn([3, 16], (Kind::Float, Device::Cpu));
    use GateName::{Linear, Mlp, Noisy, Random, Resnet1d, Top1, Topk, Uniform};
    for name in [Linear, Topk, Mlp, Noisy, Resnet1d, Uniform, Random, Top1] {
        for experts in [1, 2, 4, 8] {
            let (gate, params) = build(&GateConfig { experts, top_k: 1, ..config(name) }, 16);
            assert_eq!(params.trainable().count() > 0, name.learns());
            for mode in [GateMode::Eval, GateMode::Train(5)] {
                let out = gate.forward(&states, &keys(3), mode).unwrap();
                assert_eq!(out.size(), [3, experts]);
                let sums = out.sum_dim_intlist(1i64, false, Kind::Float) - 1.0;
                assert!(sums.abs().max().double_value(&[]) < 1e-6, "{name:?}");
                assert!(out.min().double_value(&[]) >= 0.0);
            }
        }
    }
}

#[test]
fn noise_and_random_weights_belong_to_rows() {
    let states = Tensor::randn([4, 16], (Kind::Float, Device::Cpu));
    let (gate, _params) = build(&config(GateName::Noisy), 16);
    let noisy = gate.forward(&states, &keys(4), GateMode::Train(7)).unwrap();
    let part = gate.forward(&states.narrow(0, 1, 2), &keys(4)[1..3], GateMode::Train(7)).unwrap();
    assert!(apart(&noisy.narrow(0, 1, 2), &part) < 1e-6, "the same whatever batch a row is in");
    assert!(apart(&noisy, &gate.forward(&states, &keys(4), GateMode::Train(8)).unwrap()) > 1e-3);
    assert!(apart(&noisy, &gate.forward(&states, &keys(4), GateMode::Eval).unwrap()) > 1e-3);
    let (random, _params) = build(&config(GateName::Random), 16);
    let drawn = random.forward(&states, &keys(4), GateMode::Train(1)).unwrap();
    assert_eq!(drawn, random.forward(&(states * 2.0), &keys(4), GateMode::Eval).unwrap());
    assert!(apart(&drawn.get(0), &drawn.get(1)) > 1e-3);
}

#[test]
fn balance_and_statistics() {
    let gates = Tensor::from_slice(&[1f32, 0.0, 0.5, 0.5, 0.25, 0.75, 0.9, 0.1]).view([4, 2]);
    // Ties go to the first: best shares 3/4 and 1/4, mean weights 0.6625 and 0.3375.
    let want = 2.0 * (0.75 * 0.6625 + 0.25 * 0.3375);
    assert!((Gate::load_balance(&gates).unwrap().double_value(&[]) - want).abs() < 1e-6);
    let mut stats = GateStats::default();
    stats.add(&gates.narrow(0, 0, 1)).unwrap();
    stats.add(&gates.narrow(0, 1, 3)).unwrap();
    assert_eq!((stats.rows(), stats.best_share()), (4, vec![0.75, 0.25]));
    close(&stats.usage().iter().map(|&x| x as f32).collect::<Vec<_>>(), &[0.6625, 0.3375]);
    let h = |p: f64| -p * p.ln();
    let entropy = (2f64.ln() + h(0.25) + h(0.75) + h(0.9) + h(0.1)) / 4.0;
    assert!((stats.entropy() - entropy).abs() < 1e-6);
    assert_eq!(stats.scalars()[0].0, "gate/entropy");
}

#[test]
fn input_that_does_not_fit_is_refused() {
    let (gate, _params) = build(&config(GateName::Linear), 16);
    let states = Tensor::zeros([2, 8], (Kind::Float, Device::Cpu));
    let message = gate.forward(&states, &keys(2), GateMode::Eval).unwrap_err().to_string();
    assert_eq!(message, "the gate takes states [B,16] and a key for each row, got [2,8] and 2 keys");
    let states = Tensor::zeros([2, 16], (Kind::Float, Device::Cpu));
    assert!(gate.forward(&states, &keys(3), GateMode::Eval).is_err());
}

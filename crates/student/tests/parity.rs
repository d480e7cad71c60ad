//! The students and their losses against PyTorch (`fixtures/models/make.py`) and against released weights.
#![allow(clippy::unwrap_used, reason = "tests: helpers outside of #[test] functions too")]

mod support;

use std::collections::BTreeMap;

use anyo_core::torch::load_tensors;
use anyo_student::{
    Student,
    batch::{Input, Negatives},
    config::{LogQ, LossConfig, LossName, StudentConfig},
    dropout::Mode,
    loss::{Head, Loss, Targets},
    seen::Seen,
};
use support::{
    fixture,
    student::{loss_config, neural},
};
use tch::{Device, Kind, Tensor};

const N_ITEMS: usize = 37;

struct Case {
    student: Student,
    tensors: BTreeMap<String, Tensor>,
    losses: serde_json::Value,
}

impl Case {
    fn new(name: &str, config: &StudentConfig) -> Self {
        let student = Student::new(config, N_ITEMS, Device::Cpu, 1).unwrap();
        student.load(&load_tensors(&fixture(&format!("{name}.weights.safetensors"))).unwrap()).unwrap();
        let tensors = load_tensors(&fixture(&format!("{name}.case.safetensors"))).unwrap();
        let text = std::fs::read_to_string(fixture(&format!("{name}.json"))).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        Self { student, tensors, losses: json["losses"].clone() }
    }

    fn ints(&self, key: &str) -> Vec<i64> {
        self.tensors[key].view([-1]).try_into().unwrap()
    }

    fn lens(&self) -> Vec<usize> {
        self.ints("in.lengths").iter().map(|&len| len as usize).collect()
    }

    /// The input trimmed to its longest row, as training and ranking make it.
    fn input(&self) -> Input {
        let ids = self.ints("in.ids");
        let rows: Vec<Vec<u32>> = self
            .lens()
            .iter()
            .enumerate()
            .map(|(b, &len)| ids[b * 10..b * 10 + len].iter().map(|&i| i as u32).collect())
            .collect();
        let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        Input::new(&rows, self.student.network.pad(), Device::Cpu)
    }

    /// Checks loss and all gradients of `name` with targets at `places` of the flattened states.
    fn check_loss(
        &self,
        name: &str,
        loss: &LossConfig,
        places: &[i64],
        positives: &[i32],
        negatives: &Negatives,
        factor: f64,
    ) {
        let counts: Vec<u64> = if self.tensors.contains_key("in.freq") {
            self.ints("in.freq").iter().map(|&f| f as u64).collect()
        } else {
            vec![1; N_ITEMS]
        };
        let loss = Loss::new(loss, &counts);
        let network = &self.student.network;
        let states = network.states(&self.input(), &Mode::Eval);
        let states = states.reshape([-1, states.size()[2]]).index_select(0, &Tensor::from_slice(places));
        let n = positives.len() as f64;
        let targets = Targets { positives, seen: &Seen::default() };
        let found = loss.grad(&states.detach(), &network.head(), targets, negatives, factor / n);
        let want = self.losses[name].as_f64().unwrap();
        assert!(
            (found.sum * factor / n - want).abs() < 1e-5 * want.abs().max(1.0),
            "{name}: {} against {want}",
            found.sum * factor / n
        );
        self.student.params.zero_grad();
        found.surrogate(&states, &network.head()).backward();
        for (parameter, tensor) in self.student.params.trainable() {
            let want = &self.tensors[&format!("grad.{name}.{parameter}")];
            let grad = tensor.grad();
            assert!(grad.defined(), "{name}: no gradient for {parameter}");
            close(&format!("{name} by {parameter}"), &grad, want, 1e-4);
        }
    }
}

/// Largest difference within `tolerance` of the largest wanted entry (or of 1e-2, for gradients that are zero).
fn close(what: &str, got: &Tensor, want: &Tensor, tolerance: f64) {
    assert_eq!(got.size(), want.size(), "{what}");
    let scale = want.abs().max().double_value(&[]).max(1e-2);
    let off = (got - want).abs().max().double_value(&[]);
    assert!(off <= tolerance * scale, "{what}: off by {off:e} where entries reach {scale:e}");
}

fn every_position(case: &Case, name: &str) {
    let Case { student, tensors, .. } = case;
    let input = case.input();
    close(name, &student.network.states(&input, &Mode::Eval), &masked(&tensors["out.hidden"], &input, student), 1e-5);
    let newest = student.network.newest(&input);
    close(name, &student.network.head().scores(&newest), &tensors["out.scores_last"], 1e-5);

    let (pos, neg) = (case.ints("in.pos"), case.ints("in.neg"));
    let places: Vec<i64> = (0..40).filter(|&i| pos[i as usize] >= 0).collect();
    let pick = |ids: &[i64]| places.iter().map(|&i| ids[i as usize] as i32).collect::<Vec<i32>>();
    let negatives = Negatives::PerTarget { items: pick(&neg), per_target: 1 };
    case.check_loss("bce", &loss_config(LossName::Bce), &places, &pick(&pos), &negatives, 1.0);
    case.check_loss("ce", &loss_config(LossName::Ce), &places, &pick(&pos), &Negatives::None, 1.0);
}

/// The wanted states, with our own values where pads stand (they mean nothing).
fn masked(want: &Tensor, input: &Input, student: &Student) -> Tensor {
    let ours = student.network.states(input, &Mode::Eval).detach();
    let mask = input.mask().unsqueeze(-1);
    want * &mask + ours * (1.0 - mask)
}

#[test]
fn sasrec_is_pytorchs() {
    let one = neural("sasrec", &[("max_len", 10.into()), ("d_model", 16.into())]);
    every_position(&Case::new("sasrec_d16", &one), "one head");
    let two = neural("sasrec", &[("max_len", 10.into()), ("d_model", 12.into()), ("n_heads", 2.into())]);
    every_position(&Case::new("sasrec_d12_h2", &two), "two heads");
}

#[test]
fn the_modern_block_is_pytorchs() {
    let config = neural(
        "sasrec",
        &[
            ("max_len", 10.into()),
            ("d_model", 16.into()),
            ("n_heads", 2.into()),
            ("norm", "pre".into()),
            ("ffn", "swiglu".into()),
            ("ffn_ratio", 1.5.into()),
            ("scale_embeddings", false.into()),
            ("norm_eps", 1e-5.into()),
        ],
    );
    every_position(&Case::new("esasrec", &config), "modern");
}

fn last_position(name: &str) {
    let config = neural(name, &[("max_len", 10.into()), ("d_model", 16.into())]);
    let case = Case::new(name, &config);
    let input = case.input();
    let newest = case.student.network.newest(&input);
    close(name, &newest, &case.tensors["out.last"], 1e-5);
    close(name, &case.student.network.head().scores(&newest), &case.tensors["out.scores"], 1e-5);
    let pos: Vec<i32> = case.ints("in.pos").iter().map(|&i| i as i32).collect();
    let neg: Vec<i32> = case.ints("in.neg").iter().map(|&i| i as i32).collect();
    let places: Vec<i64> = (0..4).map(|b| b * 10 + case.lens()[b as usize] as i64 - 1).collect();
    let negatives = Negatives::PerTarget { items: neg, per_target: 1 };
    case.check_loss("bce", &loss_config(LossName::Bce), &places, &pos, &negatives, 1.0);
    case.check_loss("ce", &loss_config(LossName::Ce), &places, &pos, &Negatives::None, 1.0);
    // DLLM2Rec halves the binary cross-entropy: half of (bce + 2·0.5·dro).
    let dros = LossConfig { dros_alpha: 1.0, ..loss_config(LossName::Bce) };
    case.check_loss("dros", &dros, &places, &pos, &negatives, 0.5);
}

#[test]
fn sasrec_dllm2rec_is_pytorchs() {
    last_position("sasrec_dllm2rec");
}

#[test]
fn gru4rec_is_pytorchs() {
    last_position("gru4rec");
}

#[test]
fn caser_is_pytorchs() {
    last_position("caser");
}

/// Losses straight on scores: states are the rows of the score matrix, items the unit vectors.
#[test]
fn losses_are_pytorchs() {
    let tensors = load_tensors(&fixture("losses.case.safetensors")).unwrap();
    let text = std::fs::read_to_string(fixture("losses.json")).unwrap();
    let want: serde_json::Value = serde_json::from_str(&text).unwrap();
    let ints = |key: &str| -> Vec<i32> { tensors[key].to_kind(Kind::Int).view([-1]).try_into().unwrap() };
    let states = tensors["in.scores"].shallow_clone();
    let head = Head { weight: Tensor::eye(N_ITEMS as i64, (Kind::Float, Device::Cpu)), bias: None, seen_bias: None };
    let (positives, counts) = (ints("in.pos"), ints("in.freq").iter().map(|&f| f as u64).collect::<Vec<_>>());
    let per_target = |k: usize| Negatives::PerTarget {
        items: ints("in.neg").chunks(9).flat_map(|row| row[..k].to_vec()).collect(),
        per_target: k,
    };
    let shared = Negatives::Shared { items: ints("in.neg_shared") };
    let uniform = |name| loss_config(name);
    let k9 = |name, t| LossConfig { n_negatives: 9, gbce_t: t, ..loss_config(name) };
    let sampled = |logq| LossConfig { logq, n_negatives: 9, ..loss_config(LossName::SampledSoftmax) };
    let dro = LossConfig { dros_alpha: 1.0, ..loss_config(LossName::Ce) };
    for (name, config, negatives) in [
        ("ce", uniform(LossName::Ce), Negatives::None),
        ("gbce_per_logit_t075", k9(LossName::Gbce, 0.75), per_target(9)),
        ("sampled_softmax_uniform", sampled(LogQ::Negatives), shared.clone()),
        ("sampled_softmax_uniform_corrected_positive", sampled(LogQ::Both), shared.clone()),
        ("ce+dro", dro, Negatives::None),
    ] {
        let targets = Targets { positives: &positives, seen: &Seen::default() };
        let found = Loss::new(&config, &counts).grad(&states, &head, targets, &negatives, 1.0 / 12.0);
        let value = |key: &str| want["losses"][key].as_f64().unwrap_or_else(|| panic!("no {key} in losses.json"));
        let grad = |key: &str| tensors[&format!("grad.{key}")].shallow_clone();
        let (loss, by_scores) = match name {
            "ce+dro" => (value("ce") + value("dro"), grad("ce") + grad("dro")),
            _ => (value(name), grad(name)),
        };
        assert!((found.sum / 12.0 - loss).abs() < 1e-5 * loss.abs(), "{name}: {} against {loss}", found.sum / 12.0);
        close(name, &found.states, &by_scores, 1e-4);
    }
}

/// All 811 reference rows of the released LLaRA / iLoRA backbones.
#[test]
fn released_weights_give_the_reference_rankings() {
    let Some(data) = support::shared_data() else { return };
    let folder = data.join("llara-backbones");
    let mut rows = 0;
    for (model, name, split) in [
        ("sasrec_movielens", "sasrec_dllm2rec", "llara-movielens"),
        ("sasrec_lastfm", "sasrec_dllm2rec", "llara-lastfm"),
        ("gru4rec_movielens", "gru4rec", "llara-movielens"),
        ("caser_movielens", "caser", "llara-movielens"),
    ] {
        let weights = load_tensors(&folder.join(format!("{model}.safetensors"))).unwrap();
        let n_items = weights["s_fc.bias"].size()[0] as usize;
        let config = neural(name, &[("max_len", 10.into()), ("d_model", 64.into())]);
        let student = Student::new(&config, n_items, Device::Cpu, 1).unwrap();
        student.load(&weights).unwrap();
        let windows: BTreeMap<&str, Vec<Vec<u32>>> =
            ["val", "test"].map(|part| (part, support::windows(&data.join(split).join(format!("{part}.csv"))))).into();
        let text = std::fs::read_to_string(folder.join(format!("reference_{model}.jsonl"))).unwrap();
        for line in text.lines() {
            let want: serde_json::Value = serde_json::from_str(line).unwrap();
            let part = want["split"].as_str().unwrap();
            let history = &windows[part][want["row"].as_u64().unwrap() as usize];
            let input = Input::new(&[history], student.network.pad(), Device::Cpu);
            let scores = student.network.head().scores(&student.network.newest(&input)).view([-1]);
            let scores: Vec<f32> = scores.detach().try_into().unwrap();
            let target = want["target"].as_u64().unwrap() as usize;
            let off = (f64::from(scores[target]) - want["target_score"].as_f64().unwrap()).abs();
            assert!(off < 1e-3, "{model} {line}: target score off by {off}");
            let rank = 1 + scores.iter().enumerate().filter(|&(i, &s)| i != target && s >= scores[target]).count();
            assert_eq!(rank as u64, want["target_rank"].as_u64().unwrap(), "{model} {line}");
            let mut order: Vec<usize> = (0..n_items).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            let top: Vec<u64> = order[..10].iter().map(|&i| i as u64).collect();
            let wanted: Vec<u64> = want["top10"].as_array().unwrap().iter().map(|i| i.as_u64().unwrap()).collect();
            assert_eq!(top, wanted, "{model} {line}");
            rows += 1;
        }
    }
    assert_eq!(rows, 811);
}

//! Exported students: read by Python's torch, compared with PyTorch's own figures, and refused where they are damaged.
#![allow(clippy::unwrap_used, reason = "tests: helpers outside of #[test] functions too")]

mod bad;
mod python;
#[path = "../support/mod.rs"]
mod support;

use std::{collections::BTreeMap, path::Path};

use anyo_core::{
    Batch, Recommender,
    data::{Dataset, Item, Rows},
    torch::load_tensors,
};
use anyo_student::{Production, Student, config::StudentConfig, production::Written};
use serde_json::Value;
use support::{fixture, student::neural};
use tch::{Device, Tensor};

const N_ITEMS: usize = 37;

/// Items with titles that need escaping, and some validation rows.
fn dataset(n_items: usize) -> Dataset {
    let item = |i: usize| Item { id: format!("id{i}"), title: format!("\"T\u{e9}\" {i}\n\ttab"), text: "text".into() };
    let mut valid = Rows::new();
    for user in 0..20u32 {
        let history: Vec<u32> = (0..user).map(|j| (user * 5 + j * 3) % n_items as u32).collect();
        valid.push_eval(user, &history, 0);
    }
    Dataset {
        name: "made_up".into(),
        items: (0..n_items).map(item).collect(),
        users: (0..20).map(|u| u.to_string()).collect(),
        train: Rows::new(),
        valid,
        test: Rows::new(),
        train_counts: vec![0; n_items],
        train_order: Vec::new(),
        hash: "d".repeat(64),
        items_hash: "1".repeat(64),
        provenance: Value::Null,
        protocol: "made up".into(),
    }
}

/// A student with the weights of a PyTorch fixture where `weights` names one, and with `seen_bias` 0.37 where it has one.
fn student(config: &StudentConfig, weights: Option<&str>) -> Student {
    let student = Student::new(config, N_ITEMS, Device::Cpu, 9).unwrap();
    let mut tensors: BTreeMap<String, Tensor> = match weights {
        Some(name) => load_tensors(&fixture(&format!("{name}.weights.safetensors"))).unwrap(),
        None => student.params.snapshot().unwrap(),
    };
    if student.params.get("seen_bias").is_some() {
        tensors.insert("seen_bias".into(), Tensor::from_slice(&[-0.37f32]));
    }
    student.load(&tensors).unwrap();
    student
}

fn export(student: &Student, config: &StudentConfig, out: &Path) -> anyo_core::Result<Written> {
    let dataset = dataset(N_ITEMS);
    Production { student, config, dataset: &dataset, trained_weights_sha256: None, check_rows: 20 }.write(out)
}

fn scores(model: &dyn Recommender, histories: &[Vec<u32>]) -> Vec<Vec<f32>> {
    let rows: Vec<&[u32]> = histories.iter().map(Vec::as_slice).collect();
    let users = vec![0; rows.len()];
    let scores = model.score(&Batch { users: &users, histories: &rows }).unwrap();
    (0..rows.len() as i64).map(|row| Vec::<f32>::try_from(scores.get(row)).unwrap()).collect()
}

/// `sasrec` in the modern form.
fn modern(changes: &[(&str, Value)]) -> StudentConfig {
    let base = [
        ("n_heads", 2.into()),
        ("norm", "pre".into()),
        ("ffn", "swiglu".into()),
        ("ffn_ratio", 1.5.into()),
        ("scale_embeddings", false.into()),
        ("norm_eps", 1e-5.into()),
    ];
    neural("sasrec", &[&base[..], changes].concat())
}

/// Every network in every form: name of the case, configuration, PyTorch fixture.
fn every() -> Vec<(&'static str, StudentConfig, Option<&'static str>)> {
    let ce =
        || ("loss", serde_json::to_value(support::student::loss_config(anyo_student::config::LossName::Ce)).unwrap());
    vec![
        ("sasrec", neural("sasrec", &[]), Some("sasrec_d16")),
        ("two heads", neural("sasrec", &[("d_model", 12.into()), ("n_heads", 2.into())]), Some("sasrec_d12_h2")),
        ("modern", modern(&[]), Some("esasrec")),
        ("seen_bias", modern(&[("seen_bias", true.into()), ce()]), Some("esasrec")),
        ("gelu, three blocks", modern(&[("ffn", "gelu".into()), ("n_blocks", 3.into())]), None),
        ("seen_bias, one block", neural("sasrec", &[("seen_bias", true.into()), ("n_blocks", 1.into()), ce()]), None),
        ("sasrec_dllm2rec", neural("sasrec_dllm2rec", &[]), Some("sasrec_dllm2rec")),
        ("gru4rec", neural("gru4rec", &[]), Some("gru4rec")),
        ("caser", neural("caser", &[]), Some("caser")),
        ("max_len 1", neural("gru4rec", &[("max_len", 1.into())]), None),
    ]
}

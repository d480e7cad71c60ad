//! Against `transformers`: the tiny models of `fixtures/models`, made by the script beside them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyo_core::torch::load_tensors;
use anyo_lm::{Causal, CausalLm, LmInput, LoadOptions, Pass};
use tch::{Device, Kind, Tensor, no_grad};

const CASES: [&str; 8] = [
    "llama_gqa",
    "llama3_tied_bias",
    "llama_linear",
    "mistral_window",
    "qwen2_tied",
    "qwen2_window",
    "phi3_window",
    "phi3_longrope",
];

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(case)
}

fn open(case: &str) -> (CausalLm, BTreeMap<String, Tensor>) {
    let options = LoadOptions { device: Device::Cpu, dtype: Kind::Float };
    let model = CausalLm::load(&folder(case), &options).unwrap();
    (model, load_tensors(&folder(case).join("expected.safetensors")).unwrap())
}

fn tokens(ids: &Tensor) -> LmInput {
    LmInput { ids: ids.shallow_clone(), ..LmInput::default() }
}

fn logits(model: &CausalLm, input: &LmInput) -> Tensor {
    no_grad(|| model.logits(&model.hidden(input, None, &Pass::default()).unwrap()).unwrap())
}

/// Largest absolute difference.
fn apart(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

/// Greedy ids through the cache: the prompt in one pass, then one token at a time.
fn greedy(model: &CausalLm, prompt: &Tensor, n: usize) -> Vec<i64> {
    no_grad(|| {
        let mut cache = model.new_cache(1);
        let mut ids = Vec::<i64>::try_from(prompt.view(-1)).unwrap();
        let mut next = prompt.shallow_clone();
        for _ in 0..n {
            let hidden = model.hidden(&tokens(&next), Some(&mut cache), &Pass::default()).unwrap();
            let last = hidden.narrow(1, hidden.size()[1] - 1, 1);
            next = model.logits(&last).unwrap().argmax(-1, false);
            ids.push(next.int64_value(&[0, 0]));
        }
        assert_eq!(cache.len(), ids.len() - 1);
        ids
    })
}

#[test]
fn logits_are_those_of_transformers() {
    for case in CASES {
        let (model, expected) = open(case);
        for i in 0..3 {
            let worst =
                apart(&logits(&model, &tokens(&expected[&format!("ids.{i}")])), &expected[&format!("logits.{i}")]);
            println!("{case} prompt {i}: {worst:e}");
            assert!(worst < 1e-5, "{case} prompt {i}: {worst:e}");
        }
    }
}

#[test]
fn greedy_ids_through_the_cache_are_those_of_transformers() {
    for case in CASES {
        let (model, expected) = open(case);
        for i in 0..3 {
            let want = Vec::<i64>::try_from(expected[&format!("greedy.{i}")].view(-1)).unwrap();
            assert_eq!(greedy(&model, &expected[&format!("ids.{i}")], 30), want, "{case} prompt {i}");
        }
    }
}

#[test]
fn a_left_padded_batch_is_its_rows() {
    for case in CASES {
        let (model, expected) = open(case);
        let (ids, mask) = (&expected["batch.ids"], &expected["batch.mask"]);
        let input = LmInput { mask: Some(mask.shallow_clone()), ..tokens(ids) };
        let got = logits(&model, &input);
        for row in 0..2 {
            let n = mask.get(row).sum(Kind::Int64).int64_value(&[]);
            let real = |t: &Tensor| t.narrow(0, row, 1).narrow(1, 20 - n, n);
            let worst = apart(&real(&got), &real(&expected["batch.logits"]));
            println!("{case} row {row}: {worst:e}");
            assert!(worst < 1e-5, "{case} row {row}: {worst:e}");
            // The longest row decides on LongRoPE's frequencies, as in transformers, so its short row differs alone.
            if case != "phi3_longrope" || n == 20 {
                let worst = apart(&real(&got), &expected[&format!("logits.{row}")]);
                assert!(worst < 1e-5, "{case} row {row} alone: {worst:e}");
            }
        }
    }
}

#[test]
fn a_left_padded_batch_decodes_as_its_rows() {
    for case in CASES {
        let (model, expected) = open(case);
        let mut cache = model.new_cache(2);
        let (mut next, mut mask) = (expected["batch.ids"].shallow_clone(), expected["batch.mask"].shallow_clone());
        let mut rows = [Vec::new(), Vec::new()];
        for _ in 0..12 {
            let input = LmInput { mask: Some(mask.shallow_clone()), ..tokens(&next) };
            let chosen = no_grad(|| {
                let hidden = model.hidden(&input, Some(&mut cache), &Pass::default()).unwrap();
                model.logits(&hidden.narrow(1, hidden.size()[1] - 1, 1)).unwrap().argmax(-1, false)
            });
            rows.iter_mut().zip(0..).for_each(|(row, i)| row.push(chosen.int64_value(&[i, 0])));
            mask = Tensor::cat(&[mask, Tensor::ones([2, 1], (Kind::Int64, Device::Cpu))], 1);
            next = chosen;
        }
        for (i, row) in rows.iter().enumerate().filter(|&(i, _)| case != "phi3_longrope" || i == 1) {
            let all = Vec::<i64>::try_from(expected[&format!("greedy.{i}")].view(-1)).unwrap();
            let prompt = expected[&format!("ids.{i}")].numel();
            assert_eq!(row[..], all[prompt..prompt + 12], "{case} row {i}");
        }
    }
}

#[test]
fn packed_documents_are_separate_rows() {
    for case in CASES {
        let (model, expected) = open(case);
        // All below LongRoPE's original length; the packed row is above it.
        let parts =
            [expected["ids.0"].shallow_clone(), expected["ids.1"].narrow(1, 0, 11), expected["ids.2"].shallow_clone()];
        let numbers: Vec<i64> = parts.iter().zip([7, 3, 9]).flat_map(|(p, n)| vec![n; p.numel()]).collect();
        let documents = Tensor::from_slice(&numbers).view([1, -1]);
        let packed = LmInput { documents: Some(documents), ..tokens(&Tensor::cat(&parts, 1)) };
        let got = logits(&model, &packed);
        let mut at = 0;
        for part in &parts {
            let n = part.numel() as i64;
            let worst = apart(&got.narrow(1, at, n), &logits(&model, &tokens(part)));
            assert!(worst < 1e-5, "{case} at {at}: {worst:e}");
            at += n;
        }
    }
}

#[test]
fn a_prompt_in_pieces_rows_chosen_and_vectors_given() {
    for case in CASES {
        let (model, expected) = open(case);
        let (ids, want) = (&expected["ids.1"], &expected["logits.1"]);
        no_grad(|| {
            let mut cache = model.new_cache(1);
            let first = tokens(&ids.narrow(1, 0, 12));
            let _ = model.hidden(&first, Some(&mut cache), &Pass::default()).unwrap();
            let mut two = model.select_rows(&cache, &[0, 0]).unwrap();
            let second = tokens(&ids.narrow(1, 12, 8).expand([2, 8], false));
            let hidden = model.hidden(&second, Some(&mut two), &Pass::default()).unwrap();
            let got = model.logits(&hidden).unwrap();
            for row in 0..2 {
                let worst = apart(&got.narrow(0, row, 1), &want.narrow(1, 12, 8));
                assert!(worst < 1e-5, "{case} row {row}: {worst:e}");
            }
            let given = LmInput { embeddings: Some(model.embed(ids).unwrap()), ..tokens(&Tensor::zeros_like(ids)) };
            assert!(apart(&logits(&model, &given), want) < 1e-5, "{case}");
        });
    }
}

/// Mean cross entropy of the next token, as `labels=ids` in transformers.
fn loss(model: &CausalLm, hidden: &Tensor, ids: &Tensor) -> Tensor {
    let s = ids.size()[1];
    let logits = model.logits(&hidden.narrow(1, 0, s - 1)).unwrap();
    logits.flatten(0, 1).cross_entropy_for_logits(&ids.narrow(1, 1, s - 1).reshape([-1]))
}

#[test]
fn gradients_are_those_of_transformers_with_and_without_checkpointing() {
    for case in CASES {
        let (model, expected) = open(case);
        let named = model.named_tensors();
        let wanted: Vec<Tensor> = named.iter().map(|(_, t)| t.set_requires_grad(true)).collect();
        let ids = &expected["train.ids"];
        let input = tokens(ids);
        let plain = loss(&model, &model.hidden(&input, None, &Pass::default()).unwrap(), ids);
        assert!((plain.double_value(&[]) - expected["train.loss"].double_value(&[])).abs() < 1e-5, "{case}");
        let grads = Tensor::run_backward(&[&plain], &wanted, false, false);
        let mut compared = 0;
        for ((name, _), grad) in named.iter().zip(&grads) {
            let Some(want) = expected.get(&format!("grad.{name}")) else { continue };
            let worst = apart(grad, want);
            println!("{case} {name}: {worst:e}");
            assert!(worst < 1e-5, "{case} {name}: {worst:e}");
            compared += 1;
        }
        assert!(compared >= 5, "{case}: {compared}");

        let pass = Pass { checkpointing: true, ..Pass::default() };
        let again = model.backward_checkpointed(&input, &pass, &wanted, |h| Ok(loss(&model, h, ids))).unwrap();
        assert_eq!(again.loss.double_value(&[]), plain.double_value(&[]), "{case}");
        for (((name, _), grad), again) in named.iter().zip(&grads).zip(&again.grads) {
            // A tied embedding's two gradients may be added in another order.
            let worst = apart(grad, again.as_ref().unwrap());
            let limit = if name.contains("embed_tokens") { 1e-6 } else { 0.0 };
            assert!(worst <= limit, "{case} {name}: {worst:e}");
        }
        let embedded = no_grad(|| model.embed(ids).unwrap()).set_requires_grad(true);
        let given = LmInput { embeddings: Some(embedded.shallow_clone()), ..tokens(ids) };
        let plain = loss(&model, &model.hidden(&given, None, &Pass::default()).unwrap(), ids);
        let at_input = Tensor::run_backward(&[plain], &[embedded], false, false).remove(0);
        assert_eq!(apart(&at_input, &again.input), 0.0, "{case}");
    }
}

#[test]
fn only_what_is_asked_for_gets_a_gradient() {
    let (model, expected) = open("llama_gqa");
    let named = model.named_tensors();
    let weight = |name: &str| named.iter().find(|(n, _)| n == name).unwrap().1.shallow_clone();
    let one = weight("model.layers.1.self_attn.v_proj.weight").set_requires_grad(true);
    let wanted = [one, weight("model.norm.weight")];
    let ids = &expected["train.ids"];
    let saved = model.forward_checkpointed(&tokens(ids), &Pass::default()).unwrap();
    let at_hidden = Tensor::ones_like(&saved.hidden);
    let (grads, input) = model.backward_from(saved, &at_hidden, &wanted, &Pass::default()).unwrap();
    assert!(grads[0].is_some() && grads[1].is_none());
    let plain = model.hidden(&tokens(ids), None, &Pass::default()).unwrap().sum(Kind::Float);
    let want = Tensor::run_backward(&[plain], &wanted[..1], false, false).remove(0);
    assert_eq!(apart(grads[0].as_ref().unwrap(), &want), 0.0);
    assert_eq!(input.size(), [2, 11, 32]);
    let saved = model.forward_checkpointed(&tokens(ids), &Pass::default()).unwrap();
    assert!(
        model.backward_from(saved, &Tensor::ones([1], (Kind::Float, Device::Cpu)), &wanted, &Pass::default()).is_err()
    );
}

#[test]
fn lower_precision_stays_near() {
    for case in CASES {
        for (kind, limit) in [(Kind::BFloat16, 0.08), (Kind::Half, 0.01)] {
            let (_, expected) = open(case);
            let options = LoadOptions { device: Device::Cpu, dtype: kind };
            let model = CausalLm::load(&folder(case), &options).unwrap();
            let got = logits(&model, &tokens(&expected["ids.1"])).to_kind(Kind::Float);
            let want = &expected["logits.1"];
            let relative = apart(&got, want) / want.abs().max().double_value(&[]);
            println!("{case} {kind:?}: {relative:e}");
            assert!(relative < limit, "{case} {kind:?}: {relative:e}");
        }
    }
}

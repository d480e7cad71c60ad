//! Vectors in place of embeddings, and gates, through generation and scoring.

use std::{collections::BTreeMap, ops::ControlFlow};

use anyo_core::torch::{Params, load_tensors};
use anyo_lm::{
    Causal, CausalLm, LmInput, LoadOptions, LoraConfig, Pass, Targets, attach,
    generate::{Generated, Injected, Prompt, SamplingConfig, generate, score, score_lists},
};
use tch::{Device, Kind, Tensor, no_grad};

use crate::common::{Tiny, fixture, tokenizer};

const CASES: [&str; 4] = ["llama_gqa", "mistral_window", "qwen2_tied", "phi3_window"];

fn open(case: &str) -> (CausalLm, BTreeMap<String, Tensor>) {
    let options = LoadOptions { device: Device::Cpu, dtype: Kind::Float };
    let model = CausalLm::load(&fixture("models").join(case), &options).unwrap();
    (model, load_tensors(&fixture("injected").join(format!("{case}.safetensors"))).unwrap())
}

fn numbers(ids: &Tensor) -> Vec<u32> {
    Vec::<i64>::try_from(ids.reshape([-1])).unwrap().into_iter().map(|id| id as u32).collect()
}

fn prompt(expected: &BTreeMap<String, Tensor>, p: usize) -> Prompt {
    let at = |what: &str| &expected[&format!("{what}.{p}")];
    let places = numbers(at("places")).into_iter().map(|place| place as usize).collect();
    Prompt::new(numbers(at("ids"))).with(Injected::new(places, at("vectors")).unwrap())
}

fn run<M: Causal>(model: &M, prompts: &[Prompt], config: &SamplingConfig, pass: &Pass<'_>) -> Vec<Generated> {
    generate(model, &tokenizer("bpe"), prompts, config, pass, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

#[test]
fn logits_texts_and_scores_are_those_of_transformers() {
    for case in CASES {
        let (model, expected) = open(case);
        let prompts: Vec<Prompt> = (0..3).map(|p| prompt(&expected, p)).collect();
        let texts: Vec<Vec<u32>> = (0..4).map(|c| numbers(&expected[&format!("continuation.{c}")])).collect();
        let mut worst = [0f64; 2];
        for (p, prompt) in prompts.iter().enumerate() {
            let injected = prompt.injected.as_ref().unwrap();
            let ids = expected[&format!("ids.{p}")].shallow_clone();
            let places: Vec<i64> = injected.places().iter().map(|&place| place as i64).collect();
            let rows = Causal::embed(&model, &ids).unwrap();
            let embeddings = Some(rows.index_copy(1, &Tensor::from_slice(&places), &injected.vectors().unsqueeze(0)));
            let input = LmInput { ids, embeddings, ..LmInput::default() };
            let logits = no_grad(|| model.logits(&model.hidden(&input, None, &Pass::default()).unwrap()).unwrap());
            worst[0] = worst[0].max((logits - &expected[&format!("logits.{p}")]).abs().max().double_value(&[]));
        }
        // All prompts together, padded, then each alone.
        let config = SamplingConfig::greedy(16);
        for (p, row) in run(&model, &prompts, &config, &Pass::default()).into_iter().enumerate() {
            let want = numbers(&expected[&format!("greedy.{p}")]);
            assert_eq!(row.ids, want[row.n_prompt..], "{case} prompt {p}");
            assert_eq!(run(&model, &prompts[p..=p], &config, &Pass::default())[0], row, "{case} prompt {p} alone");
        }
        for rows in [1, 2, 3, 100] {
            let scores = score_lists(&model, &prompts, &[texts.as_slice(); 3], rows, &Pass::default()).unwrap();
            for (p, list) in scores.iter().enumerate() {
                for (c, got) in list.iter().enumerate() {
                    let want = Vec::<f32>::try_from(&expected[&format!("log_probs.{p}.{c}")]).unwrap();
                    assert_eq!(got.log_probs.len(), want.len());
                    let apart = got.log_probs.iter().zip(&want).map(|(a, b)| f64::from((a - b).abs()));
                    worst[1] = apart.fold(worst[1], f64::max);
                }
            }
        }
        println!("{case}: largest difference of logits {:e}, of log-probabilities {:e}", worst[0], worst[1]);
        assert!(worst[0] < 1e-5 && worst[1] < 1e-5, "{case}: {worst:?}");
    }
}

#[test]
fn the_embeddings_themselves_change_nothing() {
    let (model, expected) = open("llama_gqa");
    let plain: Vec<Prompt> = (0..3).map(|p| Prompt::new(numbers(&expected[&format!("ids.{p}")]))).collect();
    let texts = [vec![3, 4, 5], vec![9]];
    let same = |prompt: &Prompt| {
        let places = [0, prompt.ids.len() - 1];
        let ids: Vec<i64> = places.iter().map(|&place| i64::from(prompt.ids[place])).collect();
        let vectors = model.embedding().index_select(0, &Tensor::from_slice(&ids));
        // What stands at the places is not read.
        let mut changed = prompt.ids.clone();
        places.iter().for_each(|&place| changed[place] = 0);
        Prompt::new(changed).with(Injected::new(places.to_vec(), &vectors).unwrap())
    };
    let given: Vec<Prompt> = plain.iter().map(same).collect();
    // A batch may mix prompts with and without vectors.
    let mixed = [plain[0].clone(), given[1].clone(), plain[2].clone()];
    let config = SamplingConfig { temperature: 1.3, top_k: 20, ..SamplingConfig::sample(20, 3) };
    let want = run(&model, &plain, &config, &Pass::default());
    let lists = [texts.as_slice(); 3];
    let scores = score_lists(&model, &plain, &lists, 4, &Pass::default()).unwrap();
    for prompts in [&given[..], &mixed] {
        assert_eq!(run(&model, prompts, &config, &Pass::default()), want);
        assert_eq!(score_lists(&model, prompts, &lists, 4, &Pass::default()).unwrap(), scores);
    }
}

/// The model with random gated adapters of three experts.
fn gated() -> (CausalLm, BTreeMap<String, Tensor>, Params) {
    let (mut model, expected) = open("llama_gqa");
    let config = LoraConfig {
        rank: 6,
        alpha: 24.0,
        dropout: 0.0,
        rslora: false,
        targets: Targets::Names(vec!["q_proj".into(), "v_proj".into(), "down_proj".into()]),
        rank_pattern: Default::default(),
        alpha_pattern: Default::default(),
        experts: Some(3),
    };
    let mut params = Params::new(Device::Cpu);
    attach(model.linears_mut(), "default", &config, &mut params, 5).unwrap();
    no_grad(|| {
        for (i, (_, p)) in params.trainable().enumerate().filter(|(_, (name, _))| name.contains("lora_B")) {
            let n = p.numel() as i64;
            let noise = (Tensor::arange(n, (Kind::Float, Device::Cpu)) * (1.7 + i as f64)).sin() * 0.3;
            p.shallow_clone().copy_(&noise.view(p.size().as_slice()));
        }
    });
    (model, expected, params)
}

#[test]
fn gates_go_with_their_rows() {
    let (model, expected, _params) = gated();
    let prompts: Vec<Prompt> = (0..3).map(|p| prompt(&expected, p)).collect();
    let gate = Tensor::from_slice(&[1f32, 0.0, 0.0, 0.2, 0.3, 0.5, -0.4, 0.9, 0.5]).view([3, 3]);
    let one = |p: usize| gate.narrow(0, p as i64, 1);
    let free = run(&model, &prompts, &SamplingConfig::greedy(20), &Pass { gate: Some(&gate), ..Pass::default() });
    // Ids that end the rows at different places, so that rows leave while others go on.
    let stop_ids = vec![free[0].ids[3], free[2].ids[9]];
    let config = SamplingConfig { stop_ids, ..SamplingConfig::greedy(20) };
    let pass = Pass { gate: Some(&gate), ..Pass::default() };
    let together = run(&model, &prompts, &config, &pass);
    let lengths: Vec<usize> = together.iter().map(|row| row.n_new).collect();
    assert!(lengths.iter().any(|&n| n != lengths[0]), "{lengths:?}");
    let texts: Vec<Vec<u32>> = (0..4).map(|c| numbers(&expected[&format!("continuation.{c}")])).collect();
    // Lists of different lengths, one of them empty.
    let lists = [&texts[..], &texts[1..3], &[]];
    let scores = score_lists(&model, &prompts, &lists, 3, &pass).unwrap();
    let mut worst = 0f32;
    for p in 0..3 {
        let gate = one(p);
        let alone = Pass { gate: Some(&gate), ..Pass::default() };
        assert_eq!(run(&model, &prompts[p..=p], &config, &alone)[0], together[p], "prompt {p}");
        let want = score_lists(&model, &prompts[p..=p], &lists[p..=p], 1, &alone).unwrap().remove(0);
        assert_eq!(scores[p].len(), lists[p].len());
        for (got, want) in scores[p].iter().zip(&want) {
            let apart = got.log_probs.iter().zip(&want.log_probs).map(|(a, b)| (a - b).abs());
            worst = apart.fold(worst, f32::max);
        }
    }
    println!("largest difference to rows alone {worst:e}");
    assert!(worst < 1e-5, "{worst:e}");
    // The gate matters, and base_only leaves it out whatever its shape.
    let other = one(1).repeat([3, 1]);
    let changed = score_lists(&model, &prompts, &lists, 3, &Pass { gate: Some(&other), ..Pass::default() }).unwrap();
    assert!((changed[0][0].sum() - scores[0][0].sum()).abs() > 1e-3);
    let small = one(0);
    let base = Pass { gate: Some(&small), base_only: true, ..Pass::default() };
    score_lists(&model, &prompts, &lists, 3, &base).unwrap();
    run(&model, &prompts, &config, &base);
}

#[test]
fn lists_that_fill_the_context_only_alone() {
    // Context 12: 9 + 3 and 3 + 9 fit, padded together they would not.
    let model = Tiny::new(50, 12, 3);
    let prompts = [Prompt::new((1..10).collect()), Prompt::new(vec![7, 8, 9])];
    let lists: [&[Vec<u32>]; 2] = [&[vec![1, 2, 3]], &[(10..19).collect(), vec![4]]];
    let together = score_lists(&model, &prompts, &lists, 8, &Pass::default()).unwrap();
    for (p, prompt) in prompts.iter().enumerate() {
        assert_eq!(score(&model, &prompt.ids, lists[p], 8, &Pass::default()).unwrap(), together[p]);
    }
    assert!(score_lists(&model, &[], &[], 8, &Pass::default()).unwrap().is_empty());
}

#[test]
fn bad_injections_are_one_message() {
    let (model, _) = open("llama_gqa");
    let zeros = |n: i64, d: i64| Tensor::zeros([n, d], (Kind::Float, Device::Cpu));
    let refused =
        |places: &[usize], vectors: &Tensor| Injected::new(places.to_vec(), vectors).map(drop).unwrap_err().to_string();
    assert_eq!(refused(&[1, 2], &zeros(1, 32)), "1 injected vectors for 2 places");
    assert!(refused(&[1, 1], &zeros(2, 32)).contains("place 1 is given two"));
    assert!(refused(&[1], &zeros(1, 32).to_kind(Kind::Int64)).contains("Int64"));
    assert!(refused(&[1], &zeros(1, 32).view([32])).contains("injected vectors"));
    let error = Injected::at_markers(&[5, 6, 5], 5, &zeros(1, 32)).unwrap_err();
    assert!(error.to_string().contains("token 5 2 times, but there are 1 vectors"), "{error}");
    assert_eq!(Injected::at_markers(&[5, 6, 5], 5, &zeros(2, 32)).unwrap().places(), [0, 2]);

    let prompts = |places: &[usize], width: i64| {
        let injected = Injected::new(places.to_vec(), &zeros(places.len() as i64, width)).unwrap();
        [Prompt::new(vec![1]), Prompt::new(vec![1, 2]).with(injected)]
    };
    let both = |prompts: &[Prompt], pass: &Pass<'_>, part: &str| {
        let config = SamplingConfig::greedy(2);
        let texts = [vec![3]];
        let lists = [texts.as_slice(); 2];
        let first = generate(&model, &tokenizer("bpe"), prompts, &config, pass, &mut |_, _| ControlFlow::Continue(()));
        for text in [
            first.map(drop).unwrap_err().to_string(),
            score_lists(&model, prompts, &lists, 4, pass).unwrap_err().to_string(),
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    };
    both(&prompts(&[2], 32), &Pass::default(), "place 2 of prompt 1, which has 2 tokens");
    both(&prompts(&[0], 31), &Pass::default(), "injected into prompt 1 have 31 features, the model's 32");
    let gate = zeros(3, 2);
    let pass = Pass { gate: Some(&gate), ..Pass::default() };
    both(&prompts(&[0], 32), &pass, "the gate has the shape [3, 2], wanted [2, E]");
    let error = score_lists(&model, &prompts(&[0], 32), &[], 4, &Pass::default()).unwrap_err().to_string();
    assert!(error.contains("0 lists of continuations for 2 prompts"), "{error}");
}

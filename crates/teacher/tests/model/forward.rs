//! One forward and backward pass: injection, padding, gates in a whole model, where gradients go.

use anyo_core::{Batch, Recommender};
use anyo_lm::{Causal, LmInput, Pass};
use anyo_teacher::{
    Counts, GateMode, Mark, PromptMode, PromptSource, Prompted, RankSettings, Ranker, Sequence, Side, Teacher,
    config::GateName, encode_titles, row_key,
};
use tch::{Kind, Tensor, no_grad};

use super::made_up::{
    HISTORY, Prompts, apart, candidates, config, encoder, gate, lm, lm_config, randn, randomise, teacher, teacher_on,
};

fn hybrid(history: &[u32]) -> Prompted {
    let list = candidates(0, 0, history, 20).unwrap();
    Prompts::new().choice(history, &list, 0, PromptMode::Hybrid).unwrap()
}

fn alone(prompt: &Prompted) -> Vec<Sequence<'_>> {
    vec![Sequence { prompt, answer: &[] }]
}

/// specs/ilora.md section 9, test 12.
#[test]
fn injection_replaces_exactly_the_marked_rows() {
    let encoder = encoder();
    let teacher = teacher(&config(), &encoder);
    let prompt = hybrid(&[4, 9, 1]);
    assert_eq!(prompt.marks.len(), 23);
    let got = teacher.prepare(&alone(&prompt), Side::Right).unwrap().input.embeddings.unwrap().detach().squeeze_dim(0);
    let plain = Prompted { marks: Vec::new(), ..prompt.clone() };
    // Markers as ordinary added tokens: their own rows.
    let rows = teacher.params().get("tokens.rows").unwrap();
    let projected = teacher.projected_items().unwrap().unwrap();
    let mut differ = 0;
    for (place, &id) in plain.ids.iter().enumerate() {
        let bare = match id {
            40.. => rows.get(id - 40),
            _ => teacher.lm().embedding().get(id),
        };
        let at = got.get(place as i64);
        if apart(&at, &bare) > 0.0 {
            differ += 1;
            let mark = prompt.marks.iter().find(|mark| mark.position == place).unwrap();
            assert!(apart(&at, &projected.get(i64::from(mark.item))) < 1e-6, "{place}");
        }
    }
    assert_eq!(differ, 23);
    let text = Prompts::new().choice(&[4, 9, 1], &[1, 2], 0, PromptMode::TextOnly).unwrap();
    let got = teacher.prepare(&alone(&text), Side::Right).unwrap().input.embeddings.unwrap().squeeze_dim(0);
    for (place, &id) in text.ids.iter().enumerate() {
        let bare = if id >= 40 { rows.get(id - 40) } else { teacher.lm().embedding().get(id) };
        assert_eq!(apart(&got.get(place as i64), &bare), 0.0);
    }
}

#[test]
fn markers_and_items_that_do_not_match_are_refused() {
    let encoder = encoder();
    let teacher = teacher(&config(), &encoder);
    let refuse = |change: &dyn Fn(&mut Prompted), want: &str| {
        let mut prompt = Prompts::new().open(&[4, 9], 0, PromptMode::Hybrid).unwrap();
        change(&mut prompt);
        let error = teacher.prepare(&alone(&prompt), Side::Right).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
    };
    refuse(&|p| p.marks.truncate(1), "2 item markers and 1 items");
    refuse(&|p| p.marks[1].position -= 1, "2 item markers and 2 items");
    refuse(&|p| p.ids.push(HISTORY), "3 item markers and 2 items");
    refuse(&|p| p.marks[0].item = 24, "marks item 24, the catalogue has 0..24");
    refuse(&|p| p.marks.push(Mark { position: 900, item: 1 }), "2 item markers and 3 items");
    refuse(&|p| (p.ids, p.marks) = (vec![], vec![]), "has no token");
    refuse(&|p| p.ids[0] = 43, "outside the vocabulary");
    let mut text_only = config();
    text_only.injection = false;
    let teacher = self::teacher(&text_only, &encoder);
    let prompt = Prompts::new().open(&[4], 0, PromptMode::Hybrid).unwrap();
    let error = teacher.prepare(&alone(&prompt), Side::Right).unwrap_err();
    assert!(error.to_string().contains("no projector"), "{error}");
}

fn gate_of(teacher: &Teacher, states: &Tensor) -> Option<Tensor> {
    let keys: Vec<u64> = (0..states.size()[0]).map(|i| row_key(&[i as u32])).collect();
    no_grad(|| teacher.gate(states, &keys, GateMode::Eval)).unwrap()
}

/// Logits after the last prompt token `[V]` of row `i` of a batch.
fn logits(teacher: &Teacher, rows: &[Sequence<'_>], gate: Option<&Tensor>, side: Side, i: i64) -> Tensor {
    no_grad(|| {
        let prepared = teacher.prepare(rows, side).unwrap();
        let states = teacher.states(&prepared, gate, None).unwrap();
        teacher.lm().logits(&states.get(prepared.layout.last[i as usize])).unwrap()
    })
}

/// specs/ilora.md section 9, test 13, and test 5 in a whole model: each row has its own gate.
#[test]
fn a_row_alone_or_in_a_batch_padded_on_either_side() {
    tch::manual_seed(3);
    let encoder = encoder();
    let teacher = teacher(&config(), &encoder);
    randomise(&teacher, 0.3);
    let prompts: Vec<Prompted> = [vec![1, 2], vec![3, 4, 5, 6, 7], vec![8]].iter().map(|h| hybrid(h)).collect();
    let short = Prompts::new().open(&[9], 1, PromptMode::Hybrid).unwrap();
    let rows: Vec<Sequence<'_>> =
        prompts.iter().chain([&short]).map(|prompt| Sequence { prompt, answer: &[] }).collect();
    let states = randn(&[4, 16]) * 3.0;
    let gates = gate_of(&teacher, &states).unwrap();
    assert!(apart(&gates.get(0), &gates.get(1)) > 0.05, "{gates}");
    let mut worst: f64 = 0.0;
    for i in 0..4 {
        let own = gates.narrow(0, i, 1);
        let alone = logits(&teacher, &rows[i as usize..=i as usize], Some(&own), Side::Right, 0);
        for side in [Side::Right, Side::Left] {
            worst = worst.max(apart(&alone, &logits(&teacher, &rows, Some(&gates), side, i)));
        }
        // Another row's gate would give something else.
        let other = gates.narrow(0, (i + 1) % 4, 1);
        assert!(apart(&alone, &logits(&teacher, &rows[i as usize..=i as usize], Some(&other), Side::Right, 0)) > 1e-3);
    }
    eprintln!("padding: {worst:.1e}");
    assert!(worst < 1e-4, "{worst}");
}

#[test]
fn new_teachers_compute_what_the_language_model_does() {
    let (encoder, base) = (encoder(), lm(false));
    let teacher = teacher_on(lm(false), &config(), &encoder, 3);
    let prompt = Prompted { ids: vec![1, 12, 22, 8, 7], ..Prompted::default() };
    let gate = gate_of(&teacher, &randn(&[1, 16]));
    let input = LmInput { ids: Tensor::from_slice(&prompt.ids).view([1, -1]), ..LmInput::default() };
    no_grad(|| {
        let want = base.hidden(&input, None, &Pass::default()).unwrap().squeeze_dim(0);
        let prepared = teacher.prepare(&alone(&prompt), Side::Right).unwrap();
        let got = teacher.states(&prepared, gate.as_ref(), None).unwrap();
        assert_eq!(got, want, "bit for bit, whatever the gate");
        let logits = teacher.lm().logits(&got).unwrap().narrow(1, 0, 40);
        assert!(apart(&logits, &base.logits(&want).unwrap()) < 1e-5);
    });
    let long = Prompted { ids: vec![5; 200], ..Prompted::default() };
    let error = teacher.last_states(&alone(&long), gate.as_ref()).unwrap_err();
    assert!(error.to_string().contains("200 tokens are more than the model's context of 128"), "{error}");
    let error = teacher.last_states(&alone(&prompt), None).unwrap_err();
    assert!(error.to_string().contains("needs a gate [B,E] = [1, 4]; none was given"), "{error}");
}

/// specs/ilora.md section 9, test 2 in a whole model: `teacher=lora` is `gate=uniform`.
#[test]
fn a_uniform_gate_is_plain_lora() {
    tch::manual_seed(4);
    let encoder = encoder();
    let (mut uniform, mut plain) = (config(), config());
    (uniform.gate, plain.gate) = (Some(gate(GateName::Uniform)), None);
    let (a, b) = (teacher(&uniform, &encoder), teacher(&plain, &encoder));
    randomise(&a, 0.3);
    b.params().copy_from(a.params()).unwrap();
    let prompt = hybrid(&[3, 7]);
    let even = gate_of(&a, &randn(&[1, 16]));
    assert!(gate_of(&b, &randn(&[1, 16])).is_none());
    let off = apart(
        &logits(&a, &alone(&prompt), even.as_ref(), Side::Right, 0),
        &logits(&b, &alone(&prompt), None, Side::Right, 0),
    );
    assert!(off < 1e-5, "{off}");
}

#[test]
fn gradients_reach_the_gate_and_not_the_encoder() {
    tch::manual_seed(6);
    let encoder = encoder();
    let teacher = teacher(&config(), &encoder);
    randomise(&teacher, 0.2);
    let names: Vec<&str> = teacher.params().trainable().map(|(name, _)| name).collect();
    let inputs: Vec<&Tensor> = teacher.params().trainable().map(|(_, t)| t).collect();
    let states = encoder.states(&[&[1, 2, 3], &[4]], &mut |_| Ok(())).unwrap();
    assert!(!states.requires_grad() && !encoder.items().requires_grad());
    for (mode, projects) in [(PromptMode::Hybrid, true), (PromptMode::TextOnly, false)] {
        let prompts: Vec<Prompted> =
            [vec![1, 2, 3], vec![4]].iter().map(|h| Prompts::new().open(h, 0, mode).unwrap()).collect();
        let rows: Vec<Sequence<'_>> = prompts.iter().map(|prompt| Sequence { prompt, answer: &[] }).collect();
        let gate = teacher.gate(&states, &[1, 2], GateMode::Train(1)).unwrap();
        let prepared = teacher.prepare(&rows, Side::Right).unwrap();
        let out = teacher.states(&prepared, gate.as_ref(), None).unwrap();
        let grads = Tensor::run_backward(&[out.square().sum(Kind::Float)], &inputs, false, false);
        for (name, grad) in names.iter().zip(grads) {
            let reached = grad.defined() && grad.abs().max().double_value(&[]) > 0.0;
            let want = match name.split('.').next().unwrap() {
                "head" => false,
                "projector" => projects,
                // The row that stands for no vector occurs in text only.
                "tokens" => !projects,
                _ => true,
            };
            assert_eq!(reached, want, "{mode:?} {name}");
        }
    }
    for (name, t) in encoder.params().named() {
        assert!(!t.grad().defined(), "{name}");
    }
}

#[test]
fn the_ranker_scores_rows_in_their_order() {
    tch::manual_seed(8);
    let (encoder, prompts) = (encoder(), Prompts::new());
    let teacher = teacher(&config(), &encoder);
    randomise(&teacher, 0.3);
    let settings = RankSettings { template: 0, mode: PromptMode::Hybrid, batch: 2 };
    let ranker = Ranker::new(&teacher, &encoder, &prompts, settings).unwrap();
    let histories: [&[u32]; 4] = [&[1, 2, 3, 4, 5, 6, 7], &[8], &[9, 10, 11], &[12, 13]];
    let all = ranker.score(&Batch { users: &[0, 1, 2, 3], histories: &histories }).unwrap();
    assert_eq!(all.size(), [4, 24]);
    for (i, history) in histories.iter().enumerate() {
        let one = ranker.score(&Batch { users: &[0], histories: &[history] }).unwrap();
        assert!(apart(&all.get(i as i64), &one.get(0)) < 1e-4, "{i}");
    }
    // the encoder beside it, where that was chosen; the ranker of before stays as it was
    teacher.head().unwrap().keep_encoder(2.0).unwrap();
    let mixed = Ranker::new(&teacher, &encoder, &prompts, settings).unwrap();
    assert!(mixed.mixes() && !ranker.mixes());
    let batch = Batch { users: &[0, 1, 2, 3], histories: &histories };
    let own = teacher.head().unwrap().of_known(&encoder.score(&batch).unwrap()).unwrap();
    assert!(apart(&own, &own.zeros_like()) > 1e-3, "an encoder without scores proves nothing");
    assert!(apart(&mixed.score(&batch).unwrap(), &(&all + own * 2.0)) < 1e-4);
    assert!(apart(&mixed.alone().score(&batch).unwrap(), &all) < 1e-4);
    assert!(ranker.encode(&[]).is_err());
    assert!(ranker.encode(&[&[24]]).unwrap_err().to_string().contains("item 24"));
    let mut without = config();
    without.head = None;
    let teacher = self::teacher(&without, &encoder);
    let error = Ranker::new(&teacher, &encoder, &prompts, settings).err().unwrap();
    assert!(error.to_string().contains("no head"), "{error}");
}

/// specs/ilora.md section 9, test 8, without a 7B model.
#[test]
fn parameter_counts_of_llama_2_7b() {
    let llama = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096,
        "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": false,
        "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float16",
    });
    let llama = anyo_lm::LmConfig::from_text(std::path::Path::new("config.json"), &llama.to_string()).unwrap();
    let mut config = config();
    config.gate = Some(gate(GateName::Resnet1d));
    let counts = Counts::new(&config, &llama, 64).unwrap();
    assert_eq!((counts.linears, counts.lora), (224, 19_988_480));
    assert_eq!((counts.gate, counts.projector), (90_772, 17_047_552));
    assert!((counts.gate as f64 / counts.lora as f64 - 0.00454).abs() < 1e-5);
    // The same arithmetic as a model that exists.
    let encoder = encoder();
    let teacher = self::teacher(&self::config(), &encoder);
    let small = Counts::new(&self::config(), &lm_config(40, 32, 2, true), 16).unwrap();
    let attached = teacher.attached().unwrap();
    assert_eq!((small.linears, small.lora), (attached.layers.len() as u64, attached.n_parameters as u64));
    let of = |prefix: &str| -> u64 {
        teacher.params().named().filter(|(n, _)| n.starts_with(prefix)).map(|(_, t)| t.numel() as u64).sum()
    };
    assert_eq!((small.gate, small.projector), (of("gate."), of("projector.")));
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let encoder = encoder();
    let tokens = anyo_teacher::AddedTokens { first: 50, count: 1, injected: vec![50], pad: 0 };
    let (items, state_width) = (encoder.items(), encoder.state_width());
    let config = config();
    let parts = anyo_teacher::Parts {
        config: &config,
        lm: lm(true),
        tokens,
        items,
        state_width,
        titles: None,
        target_counts: &[],
        seed: 1,
    };
    let error = Teacher::new(parts).unwrap_err();
    assert_eq!(error.to_string(), "the first added token is 50, the model has 40 tokens");
}

#[test]
fn titles_are_means_of_the_bare_models_states() {
    let (base, encoder) = (lm(false), encoder());
    let titles: [&[i64]; 3] = [&[10, 20], &[11, 21, 22, 9], &[12]];
    let all = encode_titles(&base, &titles, 2, &mut |_| Ok(())).unwrap();
    for (i, title) in titles.iter().enumerate() {
        let ids: Vec<i64> = [1].iter().chain(*title).copied().collect();
        let input = LmInput { ids: Tensor::from_slice(&ids).view([1, -1]), ..LmInput::default() };
        let states = no_grad(|| base.hidden(&input, None, &Pass::default()).unwrap()).squeeze_dim(0);
        let want = states.narrow(0, 1, title.len() as i64).mean_dim(0, false, Kind::Float);
        assert!(apart(&all.get(i as i64), &want) < 1e-5, "{i}");
    }
    // Adapters stay out of it.
    let teacher = teacher_on(lm(false), &config(), &encoder, 3);
    randomise(&teacher, 0.3);
    assert!(apart(&encode_titles(teacher.lm(), &titles, 2, &mut |_| Ok(())).unwrap(), &all) < 1e-6);
    let error = encode_titles(&base, &[&[10], &[]], 2, &mut |_| Ok(())).unwrap_err();
    assert_eq!(error.to_string(), "the title of item 1 has no token");
}

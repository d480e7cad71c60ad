//! Generation against a loop without cache and batch.

use std::fs;

use super::*;

/// The next token again and again, the whole sequence anew for each: no cache, no batch.
fn step_by_step(
    world: &World,
    history: &[u32],
    prompt: &Prompted,
    banned: &[u32],
    stops: &[u32],
    n: usize,
) -> Vec<u32> {
    let gate = world.gate(history);
    let mut prompt = prompt.clone();
    prompt.ids.extend(world.teacher.answer_bos());
    let mut said = Vec::new();
    while said.len() < n {
        let row = [Sequence { prompt: &prompt, answer: &[] }];
        let next = no_grad(|| {
            let prepared = world.teacher.prepare(&row, Side::Right).unwrap();
            let states = world.teacher.states(&prepared, gate.as_ref(), None).unwrap();
            let logits = world.teacher.lm().logits(&states.get(-1)).unwrap();
            for &id in banned {
                let _ = logits.get(i64::from(id)).fill_(f64::NEG_INFINITY);
            }
            logits.argmax(-1, false).int64_value(&[])
        });
        if stops.contains(&(next as u32)) {
            break;
        }
        said.push(next as u32);
        prompt.ids.push(next);
    }
    said
}

#[test]
fn generation_takes_the_likeliest_token_step_by_step() {
    let rows = rows();
    let histories: Vec<&[u32]> = rows.iter().map(|(history, _)| history.as_slice()).collect();
    for answer_bos in [false, true] {
        let mut config = config();
        config.answer_bos = answer_bos;
        let world = World::random(&config, &prompt_config());
        // Make the pad's token the likeliest after the first prompt, so that the ban has something to do.
        let prompts = world.open(&histories, PromptMode::Hybrid);
        let pad = 2u32;
        assert!(world.prompts.banned().contains(&pad));
        no_grad(|| {
            let mut prompt = prompts[0].clone();
            prompt.ids.extend(world.teacher.answer_bos());
            let row = [Sequence { prompt: &prompt, answer: &[] }];
            let state = world.teacher.last_states(&row, world.gate(histories[0]).as_ref()).unwrap().get(0);
            let logits = world.teacher.lm().logits(&state).unwrap();
            let factor = (logits.max().double_value(&[]) + 1.0) / state.square().sum(Kind::Float).double_value(&[]);
            world.teacher.lm().embedding().get(i64::from(pad)).copy_(&(state * factor));
        });
        let speaker = world.speaker();
        let (banned, n) = (world.prompts.banned(), world.prompts.longest_answer());
        let stops = &speaker.config().stop_ids;
        assert_eq!(step_by_step(&world, histories[0], &prompts[0], &[], stops, 1), [pad]);
        for mode in [PromptMode::Hybrid, PromptMode::TextOnly] {
            let prompts = world.open(&histories, mode);
            let together = speaker.say(&histories, &prompts).unwrap();
            for (i, (prompt, said)) in prompts.iter().zip(&together).enumerate() {
                assert_eq!(said.ids, step_by_step(&world, histories[i], prompt, banned, stops, n), "row {i}");
                assert!(said.ids.iter().all(|id| !banned.contains(id)));
                assert!(said.n_new <= n && matches!(said.finish, Finish::Length | Finish::StopId(_)));
                assert_eq!(&speaker.say(&histories[i..=i], &prompts[i..=i]).unwrap()[0], said, "row {i} alone");
            }
            let texts: Vec<String> = together.into_iter().map(|said| said.text).collect();
            for batch in [1, 3, 64] {
                assert_eq!(speaker.next(&histories, &RankSettings { mode, batch, ..HYBRID }).unwrap(), texts);
            }
            // In another order with others beside.
            let mixed: Vec<&[u32]> = histories.iter().rev().chain(&histories[2..5]).copied().collect();
            let wanted: Vec<String> = texts.iter().rev().chain(&texts[2..5]).cloned().collect();
            assert_eq!(speaker.next(&mixed, &RankSettings { mode, batch: 4, ..HYBRID }).unwrap(), wanted);
            assert!(texts.iter().any(|text| text != &texts[0]), "rows that say the same prove little");
        }
    }
}

#[test]
fn what_ends_an_answer() {
    let stops = |change: &dyn Fn(&mut PromptConfig), folder: &Path| {
        let mut prompt_config = prompt_config();
        change(&mut prompt_config);
        let mut world = World::new(&config(), &prompt_config);
        world.tokenizer = Tokenizer::from_folder(folder).unwrap();
        world.prompts = Prompts::new(&prompt_config, &items(), &world.tokenizer, world.tokenizer.n_ids(), 256).unwrap();
        world.speaker().config().stop_ids.clone()
    };
    let newline = Tokenizer::from_folder(&folder()).unwrap().encode("\n", false).unwrap();
    let &[newline] = newline.as_slice() else { panic!("one token: {newline:?}") };
    assert_eq!(stops(&|_| (), &folder()), [1, newline]);
    assert_eq!(stops(&|c| c.end = AnswerEnd::Eos, &folder()), [1]);
    assert_eq!(stops(&|c| c.second_bos = true, &folder()), [1, newline]);
    // A tokenizer whose BOS is its EOS: the second BOS must not end the answer that it begins.
    let same = tempfile::tempdir().unwrap();
    fs::copy(folder().join("tokenizer.json"), same.path().join("tokenizer.json")).unwrap();
    let text = r#"{"bos_token": "<|bos|>", "eos_token": "<|bos|>", "pad_token": "<|pad|>"}"#;
    fs::write(same.path().join("tokenizer_config.json"), text).unwrap();
    assert_eq!(stops(&|_| (), same.path()), [0, newline]);
    assert_eq!(stops(&|c| c.second_bos = true, same.path()), [newline]);
}

/// A teacher without adapters, gate, head and projector.
#[test]
fn a_zero_shot_teacher_speaks_and_scores() {
    let rows = rows();
    let histories: Vec<&[u32]> = rows.iter().map(|(history, _)| history.as_slice()).collect();
    let world = World::new(&zero_shot(), &prompt_config());
    assert!(world.gate(histories[0]).is_none() && world.teacher.head().is_none());
    let settings = RankSettings { mode: PromptMode::TextOnly, ..HYBRID };
    let all = world.likelihood(settings, Likely::Sum).of_all(&histories).unwrap();
    for (history, got) in histories.iter().zip(&all) {
        assert!(largest(got, &world.brute_force(history, history, PromptMode::TextOnly)) < 1e-4);
    }
    let speaker = world.speaker();
    let prompts = world.open(&histories, PromptMode::TextOnly);
    let (banned, n) = (world.prompts.banned(), world.prompts.longest_answer());
    for (i, said) in speaker.say(&histories, &prompts).unwrap().iter().enumerate() {
        let wanted = step_by_step(&world, histories[i], &prompts[i], banned, &speaker.config().stop_ids, n);
        assert_eq!(said.ids, wanted, "row {i}");
    }
    let grounding = Grounding::new(&speaker, settings, TitleState::Last, &mut |_| Ok(())).unwrap();
    assert_eq!(grounding.ground(&histories).unwrap().scores.size(), [8, 8]);
    let error = speaker.next(&histories, &HYBRID).unwrap_err().to_string();
    assert!(error.contains("no projector"), "{error}");
}

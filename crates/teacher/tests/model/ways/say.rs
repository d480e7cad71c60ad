//! Generation against a loop without cache and batch.

use std::fs;

use anyo_lm::generate::{Finish, Generated};

use super::*;

/// Each token of an answer against the likeliest there, the whole sequence read anew for each, without cache and batch:
/// how far its logit lies below the largest, and how far the second largest does.
///
/// Of two tokens that are equal up to rounding either may come, so no test may ask for the very same one there.
fn below_best(world: &World, history: &[u32], prompt: &Prompted, said: &Generated, banned: &[u32]) -> Vec<(f64, f64)> {
    let gate = world.gate(history);
    let mut prompt = prompt.clone();
    let stop = if let Finish::StopId(id) = said.finish { Some(id) } else { None };
    let mut steps = Vec::new();
    for &id in said.ids.iter().chain(&stop) {
        let row = [Sequence { prompt: &prompt, answer: &[] }];
        steps.push(no_grad(|| {
            let prepared = world.teacher.prepare(&row, Side::Right).unwrap();
            let states = world.teacher.states(&prepared, gate.as_ref(), None).unwrap();
            let logits = world.teacher.lm().logits(&states.get(-1)).unwrap();
            for &id in banned {
                let _ = logits.get(i64::from(id)).fill_(f64::NEG_INFINITY);
            }
            let (best, _) = logits.topk(2, -1, true, true);
            let [first, second] = [0, 1].map(|place| best.double_value(&[place]));
            (first - logits.double_value(&[i64::from(id)]), first - second)
        }));
        prompt.ids.push(i64::from(id));
    }
    steps
}

/// Whether each token is the likeliest up to rounding, and whether no other came near it.
fn check(world: &World, history: &[u32], prompt: &Prompted, said: &Generated, banned: &[u32]) -> bool {
    let steps = below_best(world, history, prompt, said, banned);
    assert!(steps.iter().all(|(below, _)| *below < 1e-3), "{history:?}: {steps:?}");
    assert!(said.n_new == steps.len() && said.n_new > 0);
    assert!(said.ids.iter().all(|id| !banned.contains(id)));
    match said.finish {
        Finish::StopId(_) => assert!(said.n_new <= world.prompts.longest_answer()),
        _ => assert_eq!((&said.finish, said.n_new), (&Finish::Length, world.prompts.longest_answer())),
    }
    steps.iter().all(|(_, second)| *second > 1e-3)
}

#[test]
fn generation_takes_the_likeliest_token_step_by_step() {
    let rows = rows();
    let histories: Vec<&[u32]> = rows.iter().map(|(history, _)| history.as_slice()).collect();
    for second_bos in [false, true] {
        let world = World::random(&config(), &PromptConfig { second_bos, ..prompt_config() });
        // Make the pad's token the likeliest after the first prompt, so that the ban has something to do.
        let prompts = world.open(&histories, PromptMode::Hybrid);
        let pad = 2u32;
        assert!(world.prompts.banned().contains(&pad));
        no_grad(|| {
            let row = [Sequence { prompt: &prompts[0], answer: &[] }];
            let state = world.teacher.last_states(&row, world.gate(histories[0]).as_ref()).unwrap().get(0);
            let logits = world.teacher.lm().logits(&state).unwrap();
            let factor = (logits.max().double_value(&[]) + 1.0) / state.square().sum(Kind::Float).double_value(&[]);
            world.teacher.lm().embedding().get(i64::from(pad)).copy_(&(state * factor));
        });
        let speaker = world.speaker();
        let banned = world.prompts.banned();
        let said = speaker.say(&histories[..1], &prompts[..1]).unwrap();
        let free = below_best(&world, histories[0], &prompts[0], &said[0], &[]);
        assert!(free[0].0 > 0.1, "the ban had nothing to do: {free:?}");
        for mode in [PromptMode::Hybrid, PromptMode::TextOnly] {
            let prompts = world.open(&histories, mode);
            let together = speaker.say(&histories, &prompts).unwrap();
            let mut clear = Vec::new();
            for (i, (prompt, said)) in prompts.iter().zip(&together).enumerate() {
                clear.push(check(&world, histories[i], prompt, said, banned));
                let alone = &speaker.say(&histories[i..=i], &prompts[i..=i]).unwrap()[0];
                assert!(alone == said || !clear[i], "row {i} alone: {alone:?} {said:?}");
            }
            let n_clear = clear.iter().filter(|clear| **clear).count();
            eprintln!("{n_clear} of 8 answers without a tie up to rounding");
            assert!(n_clear >= 5, "{clear:?}");
            let same = |got: &[String], wanted: &[String], clear: &[bool]| {
                assert_eq!(got.len(), wanted.len());
                let mut rows = got.iter().zip(wanted).zip(clear);
                assert!(rows.all(|((got, wanted), clear)| got == wanted || !clear), "{got:?} {wanted:?}");
            };
            let texts: Vec<String> = together.into_iter().map(|said| said.text).collect();
            for batch in [1, 3, 64] {
                let got = speaker.next(&histories, &RankSettings { mode, batch, ..HYBRID }).unwrap();
                same(&got, &texts, &clear);
            }
            // In another order with others beside.
            let places = [7, 6, 5, 4, 3, 2, 1, 0, 2, 3, 4];
            let mixed = places.map(|i| histories[i]);
            let got = speaker.next(&mixed, &RankSettings { mode, batch: 4, ..HYBRID }).unwrap();
            same(&got, &places.map(|i| texts[i].clone()), &places.map(|i| clear[i]));
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
    for (i, said) in speaker.say(&histories, &prompts).unwrap().iter().enumerate() {
        check(&world, histories[i], &prompts[i], said, world.prompts.banned());
    }
    let grounding = Grounding::new(&speaker, settings, TitleState::Last, &mut |_| Ok(())).unwrap();
    assert_eq!(grounding.ground(&histories).unwrap().scores.size(), [8, 8]);
    let error = speaker.next(&histories, &HYBRID).unwrap_err().to_string();
    assert!(error.contains("no projector"), "{error}");
}

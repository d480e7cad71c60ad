use std::{cell::RefCell, collections::HashSet, ops::ControlFlow};

use anyo_lm::{
    Causal, Pass, Tokenizer,
    generate::{Finish, Generated, Prompt, Sampler, SamplingConfig, draw, generate},
};
use tch::Tensor;

use crate::common::{Scripted, Tiny, tokenizer};

fn run<M: Causal>(model: &M, tokenizer: &Tokenizer, prompts: &[Prompt], config: &SamplingConfig) -> Vec<Generated> {
    generate(model, tokenizer, prompts, config, &Pass::default(), &mut |_, _| ControlFlow::Continue(())).unwrap()
}

fn prompts() -> Vec<Prompt> {
    [vec![5, 9, 2], vec![7], vec![1, 2, 3, 4, 5, 6, 7], vec![30, 31, 32, 33]].map(Prompt::new).into()
}

/// One row, no cache, the whole sequence anew for every token.
fn plain_loop(model: &Tiny, prompt: &Prompt, config: &SamplingConfig) -> Vec<u32> {
    let mut ids = prompt.ids.clone();
    let mut sampler = Sampler::new(config);
    for place in 0..config.max_new_tokens {
        let logits = model.plain(&ids);
        let mut last = Vec::<f32>::try_from(&logits.get(ids.len() as i64 - 1)).unwrap();
        let seen: Vec<u32> = ids.iter().copied().collect::<HashSet<_>>().into_iter().collect();
        let seed = prompt.seed.unwrap_or(config.seed);
        ids.push(sampler.pick(&mut last, &seen, draw(seed, place as u64)).unwrap());
    }
    ids.split_off(prompt.ids.len())
}

#[test]
fn batches_equal_single_rows_without_cache() {
    let (model, tokenizer) = (Tiny::new(60, 64, 1), tokenizer("bpe"));
    let filters = SamplingConfig {
        temperature: 1.2,
        top_k: 30,
        top_p: 0.95,
        min_p: 0.01,
        repetition_penalty: 1.2,
        ..SamplingConfig::sample(25, 9)
    };
    let penalty = SamplingConfig { repetition_penalty: 1.5, ..SamplingConfig::greedy(25) };
    for config in [SamplingConfig::greedy(25), penalty, SamplingConfig::sample(25, 4), filters] {
        let mut all = prompts();
        // the same prompt again with a seed of its own
        all.push(Prompt { seed: Some(77), ..all[0].clone() });
        let together = run(&model, &tokenizer, &all, &config);
        for (prompt, row) in all.iter().zip(&together) {
            assert_eq!(row.ids, plain_loop(&model, prompt, &config), "{config:?}");
            assert_eq!(run(&model, &tokenizer, std::slice::from_ref(prompt), &config)[0], *row);
            assert_eq!((row.n_prompt, row.n_new, &row.finish), (prompt.ids.len(), 25, &Finish::Length));
            assert_eq!(row.text, tokenizer.decode(&row.ids, true).unwrap());
        }
        assert_eq!(together[0].ids == together[4].ids, config.greedy);
    }
}

#[test]
fn banned_ids_come_in_no_mode() {
    let (model, tokenizer) = (Tiny::new(60, 64, 1), tokenizer("bpe"));
    let penalty = SamplingConfig { repetition_penalty: 1.5, ..SamplingConfig::greedy(25) };
    let filters = SamplingConfig { top_k: 9, top_p: 0.9, ..SamplingConfig::sample(25, 9) };
    for config in [SamplingConfig::greedy(25), penalty, SamplingConfig::sample(25, 4), filters] {
        let free = run(&model, &tokenizer, &prompts(), &config);
        // what came first in each row, twice, and an id that the model does not have
        let mut banned_ids: Vec<u32> = free.iter().flat_map(|row| [row.ids[0], row.ids[0]]).collect();
        banned_ids.push(60);
        let config = SamplingConfig { banned_ids: banned_ids.clone(), ..config };
        for (prompt, row) in prompts().iter().zip(run(&model, &tokenizer, &prompts(), &config)) {
            assert!(row.ids.iter().all(|id| !banned_ids.contains(id)), "{config:?}");
            // the reference bans by hand
            let plain = SamplingConfig { banned_ids: Vec::new(), ..config.clone() };
            let (mut ids, mut sampler) = (prompt.ids.clone(), Sampler::new(&plain));
            for place in 0..25 {
                let mut last = Vec::<f32>::try_from(&model.plain(&ids).get(ids.len() as i64 - 1)).unwrap();
                banned_ids.iter().filter(|&&id| id < 60).for_each(|&id| last[id as usize] = f32::NEG_INFINITY);
                let seen: Vec<u32> = ids.iter().copied().collect::<HashSet<_>>().into_iter().collect();
                ids.push(sampler.pick(&mut last, &seen, draw(config.seed, place)).unwrap());
            }
            assert_eq!(row.ids, ids.split_off(prompt.ids.len()), "{config:?}");
        }
    }
    let all = SamplingConfig { banned_ids: (0..80).collect(), ..SamplingConfig::greedy(2) };
    let error = generate(&model, &tokenizer, &prompts(), &all, &Pass::default(), &mut |_, _| ControlFlow::Continue(()));
    assert!(error.unwrap_err().to_string().contains("all 60 token ids are banned"));
}

#[test]
fn rows_that_end_leave_the_batch_and_change_nothing() {
    let (model, tokenizer) = (Tiny::new(60, 64, 2), tokenizer("bpe"));
    let free = run(&model, &tokenizer, &prompts(), &SamplingConfig::sample(30, 3));
    // ids that come up at different places
    let stops: Vec<u32> = free.iter().enumerate().map(|(i, row)| row.ids[4 + 5 * i]).collect();
    let config = SamplingConfig { stop_ids: stops.clone(), ..SamplingConfig::sample(30, 3) };
    let mut lengths = HashSet::new();
    for (stopped, free) in run(&model, &tokenizer, &prompts(), &config).iter().zip(&free) {
        let at = free.ids.iter().position(|id| stops.contains(id)).unwrap();
        assert_eq!((&stopped.ids[..], stopped.n_new), (&free.ids[..at], at + 1));
        assert_eq!(stopped.finish, Finish::StopId(free.ids[at]));
        lengths.insert(at);
    }
    assert!(lengths.len() > 1);
}

#[test]
fn gates_follow_their_rows() {
    let (model, tokenizer) = (Tiny::new(60, 64, 5), tokenizer("bpe"));
    let gate = Tensor::from_slice(&[1f32, 0.4, -0.7, 1.9]).view([4, 1]);
    let config = SamplingConfig { stop_ids: (0..6).collect(), ..SamplingConfig::sample(30, 3) };
    let with = |prompts: &[Prompt], gate: &Tensor| {
        let pass = Pass { gate: Some(gate), ..Pass::default() };
        generate(&model, &tokenizer, prompts, &config, &pass, &mut |_, _| ControlFlow::Continue(())).unwrap()
    };
    let together = with(&prompts(), &gate);
    for (i, prompt) in prompts().into_iter().enumerate() {
        assert_eq!(with(&[prompt], &gate.narrow(0, i as i64, 1))[0], together[i]);
    }
    assert!(together.iter().map(|row| row.n_new).collect::<HashSet<_>>().len() > 1);
}

const SAID: &str = "こんにちは、世界！ 👨‍👩‍👧 龘 and 🎉.";

#[test]
fn streams_whole_characters() {
    for name in ["bpe", "spm"] {
        let tokenizer = tokenizer(name);
        let eos = tokenizer.eos_id().unwrap();
        let script = |text: &str| [tokenizer.encode(text, false).unwrap(), vec![eos]].concat();
        let model = Scripted::new(vec![script(SAID), script("ok")], tokenizer.n_ids());
        let config = SamplingConfig { stop_ids: tokenizer.stop_ids(), ..SamplingConfig::greedy(400) };
        let mut heard = [String::new(), String::new()];
        let mut n_pieces = 0;
        let rows = generate(
            &model,
            &tokenizer,
            &[Prompt::new(vec![0]), Prompt::new(vec![4, 4, 1])],
            &config,
            &Pass::default(),
            &mut |row, piece| {
                assert!(!piece.is_empty() && !piece.contains('\u{fffd}'), "{piece:?}");
                heard[row].push_str(piece);
                n_pieces += 1;
                ControlFlow::Continue(())
            },
        )
        .unwrap();
        assert_eq!((rows[0].text.as_str(), rows[1].text.as_str()), (SAID, "ok"));
        assert_eq!(heard, [SAID, "ok"]);
        assert!(n_pieces > 5 && rows.iter().all(|row| row.finish == Finish::StopId(eos)));
        // the short row is gone as soon as it ended
        let calls = model.calls.borrow();
        assert_eq!((calls[0], calls[rows[1].n_new - 1], calls[rows[1].n_new]), ((2, 3), (2, 1), (1, 1)));
        assert_eq!(calls.len(), rows[0].n_new);
    }
}

#[test]
fn stop_strings_cut_the_text() {
    let tokenizer = tokenizer("bpe");
    let model = Scripted::new(vec![tokenizer.encode("Hello there\n\nUser: no", false).unwrap()], tokenizer.n_ids());
    let stop = |stops: &[&str], max: usize| {
        let stop_strings = stops.iter().map(|s| (*s).to_owned()).collect();
        let config = SamplingConfig { stop_strings, ..SamplingConfig::greedy(max) };
        run(&model, &tokenizer, &[Prompt::new(vec![0])], &config).remove(0)
    };
    let row = stop(&["\n\nUser", "zzz"], 100);
    assert_eq!((row.text.as_str(), row.finish), ("Hello there", Finish::StopString("\n\nUser".into())));
    // held back for a stop string that did not come
    let whole = stop(&["\n\nUser: nothing"], model.scripts[0].len());
    assert_eq!((whole.text.as_str(), whole.finish), ("Hello there\n\nUser: no", Finish::Length));
    // complete with the very last token
    let last = stop(&["no"], model.scripts[0].len());
    assert_eq!((last.text.as_str(), last.finish), ("Hello there\n\nUser: ", Finish::StopString("no".into())));
}

#[test]
fn a_stop_string_in_held_bytes() {
    let tokenizer = tokenizer("spm");
    // byte tokens come out at the end of the row only
    let model = Scripted::new(vec![tokenizer.encode("a龘", false).unwrap()], tokenizer.n_ids());
    let n = model.scripts[0].len();
    let config = SamplingConfig { stop_strings: vec!["龘".into()], ..SamplingConfig::greedy(n) };
    let row = run(&model, &tokenizer, &[Prompt::new(vec![0])], &config).remove(0);
    assert_eq!((row.text.as_str(), row.finish), ("a", Finish::StopString("龘".into())));
}

#[test]
fn the_callback_can_end_a_row() {
    let tokenizer = tokenizer("bpe");
    let script = tokenizer.encode("one two three four", false).unwrap();
    let model = Scripted::new(vec![script.clone(), script], tokenizer.n_ids());
    let seen = RefCell::new(0);
    let rows = generate(
        &model,
        &tokenizer,
        &[Prompt::new(vec![0]), Prompt::new(vec![1])],
        &SamplingConfig::greedy(8),
        &Pass::default(),
        &mut |row, _| {
            *seen.borrow_mut() += usize::from(row == 0);
            if row == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    )
    .unwrap();
    assert_eq!((&rows[0].finish, *seen.borrow(), &rows[1].finish), (&Finish::Cancelled, 1, &Finish::Length));
}

#[test]
fn the_context_ends_a_text() {
    let (model, tokenizer) = (Tiny::new(60, 8, 1), tokenizer("bpe"));
    let rows = run(&model, &tokenizer, &prompts(), &SamplingConfig::greedy(100));
    for (row, prompt) in rows.iter().zip(prompts()) {
        // the last token needs no place: it is not read
        assert_eq!((row.n_new, &row.finish), (8 - prompt.ids.len() + 1, &Finish::Context));
        let config = SamplingConfig::greedy(row.n_new);
        assert_eq!(row.ids, plain_loop(&model, &prompt, &config));
    }
}

#[test]
fn bad_requests_are_one_message() {
    let (model, tokenizer) = (Tiny::new(60, 8, 1), tokenizer("bpe"));
    let refused = |ids: Vec<u32>, config: &SamplingConfig| {
        let prompts = [Prompt::new(vec![1]), Prompt::new(ids)];
        generate(&model, &tokenizer, &prompts, config, &Pass::default(), &mut |_, _| ControlFlow::Continue(()))
            .unwrap_err()
            .to_string()
    };
    let fine = SamplingConfig::greedy(2);
    assert!(refused(vec![], &fine).contains("prompt 1 is empty"));
    assert_eq!(refused(vec![1; 9], &fine), "prompt 1 has 9 tokens, but the model's context has 8");
    assert_eq!(refused(vec![1, 60], &fine), "prompt 1 holds token id 60, but the model's embedding has 60 rows");
    assert!(refused(vec![1], &SamplingConfig::greedy(0)).contains("max_new_tokens is 0, must be at least 1"));
    assert!(run(&model, &tokenizer, &[], &fine).is_empty());
}

#[test]
fn nan_logits_are_an_error() {
    struct Broken(Tiny);
    impl Causal for Broken {
        type Cache = <Tiny as Causal>::Cache;
        fn new_cache(&self, rows: usize) -> Self::Cache {
            self.0.new_cache(rows)
        }
        fn select_rows(&self, cache: &Self::Cache, rows: &[i64]) -> anyo_core::Result<Self::Cache> {
            self.0.select_rows(cache, rows)
        }
        fn embed(&self, ids: &Tensor) -> anyo_core::Result<Tensor> {
            self.0.embed(ids)
        }
        fn hidden(
            &self,
            input: &anyo_lm::LmInput,
            cache: Option<&mut Self::Cache>,
            pass: &Pass<'_>,
        ) -> anyo_core::Result<Tensor> {
            self.0.hidden(input, cache, pass)
        }
        fn logits(&self, hidden: &Tensor) -> anyo_core::Result<Tensor> {
            Ok(self.0.logits(hidden)? * f64::NAN)
        }
        fn max_positions(&self) -> usize {
            8
        }
        fn vocab_size(&self) -> usize {
            60
        }
        fn device(&self) -> tch::Device {
            tch::Device::Cpu
        }
    }
    let (model, tokenizer) = (Broken(Tiny::new(60, 8, 1)), tokenizer("bpe"));
    for config in [SamplingConfig::greedy(2), SamplingConfig::sample(2, 0)] {
        let error =
            generate(&model, &tokenizer, &prompts(), &config, &Pass::default(), &mut |_, _| ControlFlow::Continue(()));
        assert!(error.unwrap_err().to_string().contains("NaN"));
    }
    let error = anyo_lm::generate::score(&model, &[1], &[vec![2, 3]], 4, &Pass::default()).unwrap_err().to_string();
    assert!(error.contains("token 0 of continuation 0"), "{error}");
}

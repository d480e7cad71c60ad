//! Generation, likelihood and grounding on a catalogue of eight titles, some of which begin others.

use std::{fs, path::Path};

use anyo_core::{Batch, Recommender, Result, data::Item};
use anyo_lm::{Causal, CausalLm, LmInput, Pass, Tokenizer, generate::Finish};
use anyo_teacher::{
    AddedTokens, AnswerEnd, Bos, CandidatesConfig, ChoiceRow, Encoder, Found, GateMode, Grounding, Likelihood, Likely,
    MarkerNames, Matcher, Parts, PromptConfig, PromptMode, PromptSource, Prompted, Prompts, RankSettings, Ranker,
    Repeated, Rerank, Sequence, Side, Speaker, Teacher, TeacherConfig, TeacherSetup, Template, TitleShown, TitleState,
    config::Curriculum, encode_titles, evaluate_choices, fit_teacher, row_key,
};
use tch::{Device, Kind, Tensor, no_grad};

use super::made_up::{Recorder, apart, config, dataset, eval_config, lm_config, randomise, student};

const TITLES: [&str; 8] = ["Alien", "Aliens", "Alien Nation", "Heat", "The Rock", "The Rocketeer", "Up", "Toy Story"];
const HYBRID: RankSettings = RankSettings { window: 4, template: 0, mode: PromptMode::Hybrid, batch: 3 };

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/prompts/byte")
}

fn items() -> Vec<Item> {
    let item = |(i, title): (usize, &&str)| Item { id: format!("id{i}"), title: (*title).into(), text: String::new() };
    TITLES.iter().enumerate().map(item).collect()
}

fn prompt_config() -> PromptConfig {
    PromptConfig {
        window: 4,
        separator: ", ".into(),
        candidate_separator: ", ".into(),
        no_history: "nothing".into(),
        title: TitleShown { open: String::new(), close: String::new(), max_tokens: None, repeated: Repeated::Keep },
        markers: MarkerNames { plain: "[PH]".into(), history: "[HistoryEmb]".into(), candidate: "[CansEmb]".into() },
        bos: Bos::Auto,
        second_bos: false,
        end: AnswerEnd::Newline,
        max_len: None,
        candidates: CandidatesConfig { n: 8, seed: 1 },
        templates: vec![Template {
            choice: "Seen: {history}\nOffer: {candidates}".into(),
            open: "Seen: {history}".into(),
            cue: "Next:".into(),
        }],
    }
}

/// Histories of two to four items, and a target that follows from the whole history alone.
fn rows() -> Vec<(Vec<u32>, u32)> {
    let history = |i: u32| [i, (i + 3) % 8, (i * 5 + 1) % 8, (i * 3 + 4) % 8][..2 + i as usize % 3].to_vec();
    (0..8).map(|i| (history(i), (i * 3 + 2) % 8)).collect()
}

struct World {
    tokenizer: Tokenizer,
    prompts: Prompts,
    encoder: Encoder,
    teacher: Teacher,
}

impl World {
    fn new(config: &TeacherConfig, prompt_config: &PromptConfig) -> Self {
        let tokenizer = Tokenizer::from_folder(&folder()).unwrap();
        let mut lm_config = lm_config(tokenizer.n_ids() as i64, 64, 2, true);
        (lm_config.bos, lm_config.eos, lm_config.pad, lm_config.max_positions) = (Some(0), vec![1], Some(2), 256);
        let lm = CausalLm::random(lm_config, Device::Cpu, Kind::Float, 5).unwrap();
        let prompts = Prompts::new(prompt_config, &items(), &tokenizer, lm.vocab_size(), 256).unwrap();
        let (student, student_config) = student(8, 16, 7);
        let encoder = Encoder::new(student, &student_config, "made up").unwrap();
        let titles: Vec<Vec<i64>> = TITLES.iter().map(|title| ids(&tokenizer, title)).collect();
        let titles: Vec<&[i64]> = titles.iter().map(Vec::as_slice).collect();
        let titles = encode_titles(&lm, &titles, 8, &mut |_| Ok(())).unwrap();
        let markers = prompts.markers();
        let tokens = AddedTokens {
            first: i64::from(markers.added[0].1),
            count: markers.added.len() as i64,
            injected: vec![i64::from(markers.ids.history), i64::from(markers.ids.candidate)],
            pad: 2,
        };
        let (items, state_width) = (encoder.items(), encoder.state_width());
        let parts = Parts { config, lm, tokens, items, state_width, titles: Some(&titles), seed: 3 };
        let teacher = Teacher::new(parts).unwrap();
        Self { tokenizer, prompts, encoder, teacher }
    }

    /// A teacher that computes something, with a gate of its own for each row.
    fn random(config: &TeacherConfig, prompt_config: &PromptConfig) -> Self {
        tch::manual_seed(2);
        let world = Self::new(config, prompt_config);
        randomise(&world.teacher, 0.2);
        world
    }

    fn speaker(&self) -> Speaker<'_> {
        Speaker::new(&self.teacher, &self.encoder, &self.prompts, &self.tokenizer).unwrap()
    }

    fn likelihood(&self, settings: RankSettings, likely: Likely) -> Likelihood<'_> {
        Likelihood::new(&self.teacher, &self.encoder, &self.prompts, settings, likely).unwrap()
    }

    fn gate(&self, history: &[u32]) -> Option<Tensor> {
        let states = self.encoder.states(&[history], &mut |_| Ok(())).unwrap();
        no_grad(|| self.teacher.gate(&states, &[row_key(history)], GateMode::Eval)).unwrap()
    }

    fn open(&self, histories: &[&[u32]], mode: PromptMode) -> Vec<Prompted> {
        histories.iter().map(|history| self.prompts.open(history, 0, mode).unwrap()).collect()
    }

    /// ln p of every title after the open prompt, each with its prompt read anew.
    fn brute_force(&self, history: &[u32], gate_of: &[u32], mode: PromptMode) -> Vec<f64> {
        let prompt = self.prompts.open(history, 0, mode).unwrap();
        let gate = self.gate(gate_of);
        let of = |item: u32| {
            let row = [Sequence { prompt: &prompt, answer: self.prompts.answer(item) }];
            self.teacher.log_likelihoods(&row, gate.as_ref()).unwrap()[0]
        };
        (0..8).map(of).collect()
    }
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<i64> {
    tokenizer.encode(text, false).unwrap().into_iter().map(i64::from).collect()
}

fn best(scores: &[f64]) -> usize {
    (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap()
}

fn order(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order
}

fn largest(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn of_row(scores: &Tensor, row: usize) -> Vec<f64> {
    Vec::<f64>::try_from(scores.get(row as i64).to_kind(Kind::Double)).unwrap()
}

fn zero_shot() -> TeacherConfig {
    let mut config = config();
    (config.lora, config.gate, config.head) = (None, None, None);
    (config.injection, config.train_tokens) = (false, false);
    config
}

/// Issue 4, scoring: on a case small enough to enumerate the ways agree.
#[test]
fn all_ways_name_the_same_item_once_the_rows_are_learned() {
    let rows = rows();
    let sequences: Vec<Vec<u32>> =
        rows.iter().map(|(history, target)| history.iter().copied().chain([*target]).collect()).collect();
    let mut data = dataset(&sequences, u32::MAX);
    data.items = items();
    data.train_counts.truncate(8);
    let mut config = config();
    (config.train.batch_size, config.train.epochs, config.train.valid_every) = (8, 300, 0);
    (config.train.log_every, config.train.optim.lr, config.train.open_lm_weight) = (10, 1e-2, 1.0);
    config.train.curriculum = Curriculum::AlwaysHybrid;
    let world = World::new(&config, &prompt_config());
    let offer = |epoch: u64, key: u64, _: &[u32], _: u32| -> Result<Vec<u32>> {
        let mut list: Vec<u32> = (0..8).collect();
        list.rotate_left((epoch + key) as usize % 8);
        Ok(list)
    };
    let (eval, mut watch) = (eval_config(), Recorder::default());
    let setup = TeacherSetup {
        config: &config,
        dataset: &data,
        encoder: &world.encoder,
        prompts: &world.prompts,
        candidates: &offer,
        validate: None,
        eval: &eval,
        seed: 11,
        folder: None,
        resume: false,
    };
    fit_teacher(&setup, &world.teacher, &mut watch).unwrap();
    let losses = watch.values("train/lm_loss");
    eprintln!("lm loss {:.2} -> {:.4}", losses[0], losses[losses.len() - 1]);

    let histories: Vec<&[u32]> = rows.iter().map(|(history, _)| history.as_slice()).collect();
    let batch = Batch { users: &[0; 8], histories: &histories };
    let ranker = Ranker::new(&world.teacher, &world.encoder, &world.prompts, HYBRID).unwrap();
    let head = ranker.score(&batch).unwrap();
    let [sum, mean] = [Likely::Sum, Likely::MeanPerToken].map(|likely| world.likelihood(HYBRID, likely));
    let rerank = Rerank::new(&ranker, &sum, 3, false).unwrap();
    let (speaker, matcher) = (world.speaker(), Matcher::new(TITLES));
    let [last, middle] = [TitleState::Last, TitleState::Mean]
        .map(|state| Grounding::new(&speaker, HYBRID, state, &mut |_| Ok(())).unwrap());
    let said = speaker.next(&histories, &HYBRID).unwrap();
    let ways: [(&str, Tensor); 6] = [
        ("head", head),
        ("likelihood", sum.score(&batch).unwrap()),
        ("likelihood per token", mean.score(&batch).unwrap()),
        ("reranked", rerank.score(&batch).unwrap()),
        ("grounded, last token", last.score(&batch).unwrap()),
        ("grounded, mean", middle.score(&batch).unwrap()),
    ];
    for (i, (history, target)) in rows.iter().enumerate() {
        let target = *target as usize;
        assert_eq!(matcher.find(&said[i]), Found::One(target), "{history:?}: said {:?}", said[i]);
        for (name, scores) in &ways {
            assert_eq!(best(&of_row(scores, i)), target, "{name} of {history:?}: {:?}", of_row(scores, i));
        }
        assert_eq!(said[i], TITLES[target]);
        // What is said word for word is at no distance.
        for (_, scores) in &ways[4..] {
            let scores = of_row(scores, i);
            let next = order(&scores)[1];
            assert!(scores[target] > -1e-4 && scores[next] < -1e-2, "{scores:?}");
        }
        let brute = world.brute_force(history, history, PromptMode::Hybrid);
        assert!(largest(&of_row(&ways[1].1, i), &brute) < 1e-4);
        assert_eq!(order(&of_row(&ways[1].1, i)), order(&brute));
    }

    // The same teacher asked with candidates.
    let questions: Vec<ChoiceRow> = rows
        .iter()
        .enumerate()
        .map(|(row, (history, target))| ChoiceRow {
            row,
            history: history.clone(),
            target: *target,
            candidates: offer(3, row as u64, history, *target).unwrap(),
            template: 0,
        })
        .collect();
    for batch in [1, 3, 8] {
        let (metrics, answers) =
            evaluate_choices(&world.prompts, &questions, PromptMode::Hybrid, batch, &mut |rows, prompted| {
                speaker.answers(rows, prompted)
            })
            .unwrap();
        let outputs: Vec<&str> = answers.iter().map(|answer| answer.output.as_str()).collect();
        assert_eq!((metrics.robust.hr, metrics.robust.valid_ratio), (1.0, 1.0), "{outputs:?}");
    }
}

#[test]
fn likelihoods_are_those_of_every_title_without_a_cache() {
    let rows = rows();
    let histories: Vec<&[u32]> = rows.iter().map(|(history, _)| history.as_slice()).collect();
    let world = World::random(&config(), &prompt_config());
    let gates: Vec<Tensor> = histories.iter().map(|history| world.gate(history).unwrap()).collect();
    assert!((1..8).all(|i| apart(&gates[0], &gates[i]) > 1e-2), "gates that hardly differ prove nothing");
    let mut worst = 0f64;
    for mode in [PromptMode::Hybrid, PromptMode::TextOnly] {
        let wanted: Vec<Vec<f64>> = histories.iter().map(|history| world.brute_force(history, history, mode)).collect();
        for batch in [1, 3, 64] {
            let settings = RankSettings { mode, batch, ..HYBRID };
            let likelihood = world.likelihood(settings, Likely::Sum);
            let all = likelihood.of_all(&histories).unwrap();
            for (got, wanted) in all.iter().zip(&wanted) {
                worst = worst.max(largest(got, wanted));
                assert_eq!(order(got), order(wanted));
            }
            // A few of them, other ones for each row, none for one row.
            let lists: Vec<Vec<u32>> = (0..8u32).map(|row| (0..row % 5).map(|i| (row + i * 3) % 8).collect()).collect();
            let lists: Vec<&[u32]> = lists.iter().map(Vec::as_slice).collect();
            for ((got, list), wanted) in likelihood.of(&histories, &lists).unwrap().iter().zip(&lists).zip(&wanted) {
                let wanted: Vec<f64> = list.iter().map(|&item| wanted[item as usize]).collect();
                worst = worst.max(largest(got, &wanted));
            }
            let mean = world.likelihood(settings, Likely::MeanPerToken).of_all(&histories).unwrap();
            for (got, wanted) in mean.iter().zip(&wanted) {
                let wanted: Vec<f64> =
                    (0..8u32).map(|item| wanted[item as usize] / world.prompts.answer(item).len() as f64).collect();
                worst = worst.max(largest(got, &wanted));
            }
        }
    }
    eprintln!("largest difference of a log-likelihood to one pass for each title: {worst:.1e}");
    assert!(worst < 1e-4, "{worst}");
    // Gates and item vectors matter: with another row's gate, or without vectors, the numbers are others.
    let own = world.brute_force(histories[1], histories[1], PromptMode::Hybrid);
    assert!(largest(&own, &world.brute_force(histories[1], histories[2], PromptMode::Hybrid)) > 1e-2);
    assert!(largest(&own, &world.brute_force(histories[1], histories[1], PromptMode::TextOnly)) > 1e-2);
}

/// The teacher's BOS of answers is read with the prompt; the reference counts it as part of the answer.
#[test]
fn a_bos_in_front_of_answers_adds_the_same_to_all_titles() {
    let rows = rows();
    let mut config = config();
    config.answer_bos = true;
    let world = World::random(&config, &prompt_config());
    let histories: Vec<&[u32]> = rows.iter().map(|(history, _)| history.as_slice()).collect();
    let all = world.likelihood(HYBRID, Likely::Sum).of_all(&histories).unwrap();
    for (history, got) in histories.iter().zip(&all) {
        let wanted = world.brute_force(history, history, PromptMode::Hybrid);
        let bos = wanted[0] - got[0];
        assert!(bos < -1e-2, "{bos}");
        assert!(got.iter().zip(&wanted).all(|(got, wanted)| (wanted - got - bos).abs() < 1e-4), "{got:?} {wanted:?}");
    }
}

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

/// Scores that are given.
struct Fixed(Tensor);

impl Recommender for Fixed {
    fn score(&self, _: &Batch<'_>) -> Result<Tensor> {
        Ok(self.0.shallow_clone())
    }
}

#[test]
fn reranking_orders_the_best_k_and_keeps_the_rest() {
    let world = World::random(&config(), &prompt_config());
    let likelihood = world.likelihood(HYBRID, Likely::Sum);
    let histories: [&[u32]; 2] = [&[6, 1], &[3]];
    let batch = Batch { users: &[0, 1], histories: &histories };
    let low = f32::NEG_INFINITY;
    // By this: 4 6 1 7 (3 = 5) 0 2, and 0 to 7 of equal scores.
    let given = [[0.5, 7.0, low, 1.0, 9.0, 1.0, 8.0, 2.0], [4.0; 8]];
    let first = Fixed(Tensor::from_slice2(&given));
    let likely = likelihood.of_all(&histories).unwrap();
    let by = |row: usize, mut list: Vec<usize>| {
        list.sort_by(|&a, &b| likely[row][b].total_cmp(&likely[row][a]));
        list
    };
    let found = |k: usize, exclude: bool| {
        let scores = Rerank::new(&first, &likelihood, k, exclude).unwrap().score(&batch).unwrap();
        [0, 1].map(|row| {
            let scores = of_row(&scores, row);
            let mut sorted = scores.clone();
            sorted.sort_by(f64::total_cmp);
            assert_eq!(sorted, (0..8).map(f64::from).collect::<Vec<_>>(), "strict and finite");
            order(&scores)
        })
    };
    let tail = |head: Vec<usize>, tail: &[usize]| [head, tail.to_vec()].concat();
    assert_eq!(
        found(3, false),
        [tail(by(0, vec![4, 6, 1]), &[7, 3, 5, 0, 2]), tail(by(1, vec![0, 1, 2]), &[3, 4, 5, 6, 7])]
    );
    // Without the history's items 6 and 1, and 3.
    assert_eq!(
        found(3, true),
        [tail(by(0, vec![4, 7, 3]), &[5, 0, 2, 6, 1]), tail(by(1, vec![0, 1, 2]), &[4, 5, 6, 7, 3])]
    );
    assert_eq!(found(1, false), [vec![4, 6, 1, 7, 3, 5, 0, 2], (0..8).collect()]);
    for k in [8, 1000] {
        assert_eq!(found(k, false), [0, 1].map(|row| by(row, (0..8).collect())));
        assert_eq!(found(k, true)[1], tail(by(1, vec![0, 1, 2, 4, 5, 6, 7]), &[3]));
    }
    assert_ne!(by(0, vec![4, 6, 1]), [4, 6, 1], "an order that stays proves little");
    let refuse =
        |first: &Fixed| Rerank::new(first, &likelihood, 3, false).unwrap().score(&batch).unwrap_err().to_string();
    let nan = Fixed(Tensor::from_slice2(&[[0.0; 8], [0.0, 0.0, f32::NAN, 0.0, 0.0, 0.0, 0.0, 0.0]]));
    assert_eq!(refuse(&nan), "the score of item 2 for row 1 of a batch is NaN");
    let narrow = Fixed(Tensor::zeros([2, 7], (Kind::Float, Device::Cpu)));
    assert_eq!(refuse(&narrow), "scores have the shape [2, 7], wanted [2, 8]");
    let error = Rerank::new(&first, &likelihood, 0, false).err().unwrap().to_string();
    assert!(error.contains("best 0 items"), "{error}");
}

#[test]
fn grounding_measures_titles_as_the_bare_model_reads_them() {
    let world = World::new(&config(), &prompt_config());
    let speaker = world.speaker();
    let texts = ["Alien".to_owned(), " Aliens 3\nand more".to_owned(), String::new(), "\n\n".to_owned()];
    for state in [TitleState::Last, TitleState::Mean] {
        let make = || Grounding::new(&speaker, RankSettings { batch: 3, ..HYBRID }, state, &mut |_| Ok(())).unwrap();
        let before = make();
        randomise(&world.teacher, 0.2);
        let after = make();
        assert_eq!(before.titles(), after.titles(), "adapters are off");
        // One title alone, with adapters that would need a gate.
        let encode = |text: &str| {
            let ids = [vec![0], ids(&world.tokenizer, text)].concat();
            let input = LmInput { ids: Tensor::from_slice(&ids).unsqueeze(0), ..LmInput::default() };
            let pass = Pass { base_only: true, ..Pass::default() };
            let states = no_grad(|| world.teacher.lm().hidden(&input, None, &pass)).unwrap().squeeze_dim(0);
            match state {
                TitleState::Last => states.get(-1),
                TitleState::Mean => states.narrow(0, 1, ids.len() as i64 - 1).mean_dim(0, false, Kind::Float),
            }
        };
        let titles = Tensor::stack(&TITLES.map(encode), 0);
        assert!(apart(&titles, after.titles()) < 1e-5);
        let (scores, empty) = after.scores(&texts).unwrap();
        assert_eq!(empty, 2);
        let middle = titles.mean_dim([0i64].as_slice(), false, Kind::Float);
        for (row, from) in [encode("Alien"), encode("Aliens 3"), middle.shallow_clone(), middle].iter().enumerate() {
            let off: Tensor = &titles - from;
            let wanted = off.square().sum_dim_intlist([1i64].as_slice(), false, Kind::Float).sqrt() * -1.0;
            assert!(apart(&scores.get(row as i64), &wanted) < 1e-4, "{row}");
        }
        assert_eq!(best(&of_row(&scores, 0)), 0);
        let histories: [&[u32]; 3] = [&[1, 2], &[5], &[3, 4, 1]];
        let grounded = after.ground(&histories).unwrap();
        assert_eq!(grounded.texts, speaker.next(&histories, &HYBRID).unwrap());
        assert_eq!(apart(&grounded.scores, &after.scores(&grounded.texts).unwrap().0), 0.0);
        let batch = Batch { users: &[0; 3], histories: &histories };
        assert_eq!(apart(&after.score(&batch).unwrap(), &grounded.scores), 0.0);
    }
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

#[test]
fn requests_that_do_not_fit_are_refused() {
    let world = World::new(&config(), &prompt_config());
    let likelihood = world.likelihood(HYBRID, Likely::Sum);
    let refuse = |histories: &[&[u32]], lists: &[&[u32]], want: &str| {
        let error = likelihood.of(histories, lists).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    };
    refuse(&[&[1]], &[], "0 lists of items for 1 histories");
    refuse(&[&[1], &[2]], &[&[3], &[4, 8]], "list 1 has item 8, the catalogue has items 0..8");
    refuse(&[&[8]], &[&[3]], "item 8");
    assert!(likelihood.of(&[], &[]).unwrap().is_empty());
    let speaker = world.speaker();
    let error = speaker.say(&[&[1]], &[]).unwrap_err().to_string();
    assert!(error.contains("0 prompts for 1 histories"), "{error}");
    assert!(speaker.next(&[], &HYBRID).unwrap().is_empty());
    let mut other = prompt_config();
    other.window = 2;
    let fewer = Prompts::new(&other, &items()[..7], &world.tokenizer, world.tokenizer.n_ids(), 256).unwrap();
    let error = Speaker::new(&world.teacher, &world.encoder, &fewer, &world.tokenizer).err().unwrap().to_string();
    assert_eq!(error, "the prompts have 7 titles, the teacher has 8 items");
    let wider = Prompts::new(&other, &items(), &world.tokenizer, 500, 256).unwrap();
    let error = Speaker::new(&world.teacher, &world.encoder, &wider, &world.tokenizer).err().unwrap().to_string();
    assert!(error.contains("use 503 token ids"), "{error}");
}

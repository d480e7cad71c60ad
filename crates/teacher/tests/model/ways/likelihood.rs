//! Likelihoods of titles and rankings by them.

use super::*;

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

/// Candidates after the question that lists them, each beside one pass of prompt and title.
#[test]
fn candidates_are_scored_after_their_own_question() {
    let world = World::random(&config(), &prompt_config());
    let row = |row: usize, history: &[u32], target: u32, candidates: &[u32]| ChoiceRow {
        row,
        history: history.to_vec(),
        target,
        candidates: candidates.to_vec(),
        template: 0,
    };
    let rows = [row(0, &[6, 1], 3, &[3, 0, 5]), row(1, &[3], 2, &[7, 2, 4]), row(2, &[1, 2, 5], 7, &[0, 7, 6])];
    let got = world.likelihood(HYBRID, Likely::Sum).of_choices(&rows).unwrap();
    for (row, got) in rows.iter().zip(&got) {
        let prompt = world.prompts.choice(&row.history, &row.candidates, 0, PromptMode::Hybrid).unwrap();
        let gate = world.gate(&row.history);
        let of = |&item: &u32| {
            let row = [Sequence { prompt: &prompt, answer: world.prompts.answer(item) }];
            world.teacher.log_likelihoods(&row, gate.as_ref()).unwrap()[0]
        };
        let wanted: Vec<f64> = row.candidates.iter().map(of).collect();
        assert!(largest(got, &wanted) < 1e-4, "{got:?} {wanted:?}");
        // the question matters: after the open prompt the numbers are others
        let open = world.brute_force(&row.history, &row.history, PromptMode::Hybrid);
        let open: Vec<f64> = row.candidates.iter().map(|&item| open[item as usize]).collect();
        assert!(largest(got, &open) > 1e-2);
    }
    let beyond = world.likelihood(HYBRID, Likely::Sum).of_choices(&[row(4, &[1], 2, &[2, 8])]);
    assert!(beyond.is_err(), "there are eight items");
}

/// A second BOS is part of the answer, and counted as in training.
#[test]
fn a_second_bos_is_part_of_the_answer() {
    let rows = rows();
    let prompt_config = PromptConfig { second_bos: true, ..prompt_config() };
    let world = World::random(&config(), &prompt_config);
    assert!((0..8).all(|item| world.prompts.answer(item)[0] == 0));
    let histories: Vec<&[u32]> = rows.iter().map(|(history, _)| history.as_slice()).collect();
    let all = world.likelihood(HYBRID, Likely::Sum).of_all(&histories).unwrap();
    for (history, got) in histories.iter().zip(&all) {
        assert!(largest(got, &world.brute_force(history, history, PromptMode::Hybrid)) < 1e-4);
    }
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

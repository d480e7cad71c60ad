//! Tests of candidate lists.

use proptest::prelude::*;

use super::*;

fn config(n: usize) -> CandidatesConfig {
    CandidatesConfig { n, seed: 42 }
}

#[test]
fn lists_hang_on_seed_part_epoch_and_row_only() {
    let c = Candidates::new(1000, &config(20)).unwrap();
    let list = |draw, key| c.list(draw, key, &[1, 2, 3], 4).unwrap();
    let train = |seed, epoch| Draw::Train { seed, epoch };
    let base = list(Draw::Test, 5);
    assert_eq!(base, list(Draw::Test, 5));
    for other in [list(Draw::Valid, 5), list(Draw::Test, 6), list(train(42, 0), 5)] {
        assert_ne!(base, other);
    }
    assert_eq!(list(train(1, 2), 5), list(train(1, 2), 5));
    for other in [list(train(2, 2), 5), list(train(1, 3), 5), list(train(1, 2), 6)] {
        assert_ne!(list(train(1, 2), 5), other);
    }
    let other = Candidates::new(1000, &CandidatesConfig { n: 20, seed: 43 }).unwrap();
    assert_ne!(other.list(Draw::Test, 5, &[1, 2, 3], 4).unwrap(), base);
    let drawn: Vec<usize> = (0..200).map(|row| c.template(Draw::Test, row, 3)).collect();
    assert_eq!(drawn, (0..200).map(|row| c.template(Draw::Test, row, 3)).collect::<Vec<_>>());
    assert!((0..3).all(|t| drawn.iter().filter(|&&d| d == t).count() > 40), "{drawn:?}");
}

/// 40 000 lists of 5 of 12 items: every other item equally often, the target equally often at each place. The bounds
/// are five standard deviations of a binomial count.
#[test]
fn items_and_places_are_uniform() {
    let c = Candidates::new(12, &config(5)).unwrap();
    let (mut items, mut places, n) = ([0u32; 12], [0u32; 5], 40_000);
    for key in 0..n {
        let list = c.list(Draw::Test, key, &[0, 7], 3).unwrap();
        list.iter().for_each(|&item| items[item as usize] += 1);
        places[list.iter().position(|&item| item == 3).unwrap()] += 1;
    }
    assert_eq!((items[0], items[7], items[3]), (0, 0, n as u32));
    let near = |count: u32, p: f64| {
        let n = n as f64;
        (f64::from(count) - n * p).abs() < 5.0 * (n * p * (1.0 - p)).sqrt()
    };
    for item in [1, 2, 4, 5, 6, 8, 9, 10, 11] {
        assert!(near(items[item], 4.0 / 9.0), "{items:?}");
    }
    assert!(places.iter().all(|&count| near(count, 0.2)), "{places:?}");
}

#[test]
fn too_small_a_catalogue_is_named() {
    let message = Candidates::new(19, &config(20)).unwrap_err().to_string();
    assert!(message.contains("needs 20 items") && message.contains("has 19"), "{message}");
    let c = Candidates::new(22, &config(20)).unwrap();
    let error = c.list(Draw::Test, 17, &[0, 1, 2], 3).unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("row 17: 19 candidates beside the target") && message.contains("only 18"), "{message}");
    assert_eq!(error.hint().unwrap(), "set candidates.n of the prompts to 19 or less");
    let (place, train) = (crate::TrainRow { row: 0, place: 2 }.key(), Draw::Train { seed: 1, epoch: 0 });
    assert!(c.list(train, place, &[0, 1, 2], 3).unwrap_err().to_string().starts_with("row 0, place 2: "));
    assert!(c.list(Draw::Test, 0, &[22], 3).unwrap_err().to_string().contains("item 22, but there are 22"));
    // the smallest catalogue that does
    assert_eq!(c.list(Draw::Test, 0, &[0, 1], 3).unwrap().len(), 20);
}

#[test]
fn training_rows_are_the_targets_with_enough_history() {
    let mut rows = Rows::new();
    rows.push(0, [9, 8, 7, 6], 1);
    rows.push(1, [5, 4], 1);
    rows.push(2, [1, 2, 3, 4], 3);
    let of = |min_history| crate::TrainRows::new(&rows, min_history, 0, 0);
    let found = of(2);
    assert_eq!(found.too_short(), 2);
    let read: Vec<(Vec<u32>, u32)> = (0..found.len()).map(|i| (found.history(i).to_vec(), found.target(i))).collect();
    assert_eq!(read, [(vec![9, 8], 7), (vec![9, 8, 7], 6), (vec![1, 2, 3], 4)]);
    assert_eq!(of(0).len(), rows.n_targets());
    assert_eq!((of(9).len(), of(9).too_short()), (0, 5));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn a_list_is_a_list(n_items in 2usize..60, n in 2usize..25, history in prop::collection::vec(0u32..60, 0..30),
                        target in 0u32..60, key: u64) {
        let history: Vec<u32> = history.into_iter().map(|h| h % n_items as u32).collect();
        let target = target % n_items as u32;
        let Ok(c) = Candidates::new(n_items, &config(n)) else { return Ok(()) };
        let outside: BTreeSet<u32> = history.iter().copied().chain([target]).collect();
        match c.list(Draw::Valid, key, &history, target) {
            Err(_) => prop_assert!(n_items - outside.len() < n - 1),
            Ok(list) => {
                prop_assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), n);
                prop_assert_eq!(list.len(), n);
                prop_assert!(list.iter().all(|&i| (i as usize) < n_items && (i == target || !outside.contains(&i))));
                prop_assert!(list.contains(&target));
            }
        }
    }
}

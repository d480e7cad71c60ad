use proptest::prelude::*;

use super::*;

/// Every interaction is an item of its own, so that a target can be told from all others.
fn histories(lengths: &[usize], time: impl Fn(usize, usize) -> f64) -> Histories {
    let mut offsets = vec![0];
    let mut times = Vec::new();
    for (user, &n) in lengths.iter().enumerate() {
        offsets.push(offsets[user] + n);
        times.extend((0..n).map(|at| time(user, at)));
    }
    let n: usize = lengths.iter().sum();
    let id = |i: usize| super::super::Item { id: i.to_string(), title: i.to_string(), text: String::new() };
    Histories {
        users: (0..lengths.len()).map(|u| u.to_string()).collect(),
        items: (0..n).map(id).collect(),
        offsets,
        item: (0..n as u32).collect(),
        time: Some(times),
        steps: Vec::new(),
    }
}

fn config(kind: SplitKind) -> SplitConfig {
    SplitConfig {
        kind,
        fractions: [0.8, 0.1, 0.1],
        targets: Targets::First,
        window: 2,
        min_len: 1,
        train_form: TrainForm::Sequences,
        seed: 42,
    }
}

fn rows(rows: &Rows) -> Vec<(u32, Vec<u32>, usize)> {
    (0..rows.len()).map(|r| (rows.user(r), rows.items(r).to_vec(), rows.first_target(r))).collect()
}

#[test]
fn leave_one_out_by_hand() {
    let data = histories(&[4, 1, 2, 3], |_, at| at as f64);
    let out = split(&data, &config(SplitKind::LeaveOneOut)).unwrap();
    assert_eq!(rows(&out.train), [(0, vec![0, 1], 1), (2, vec![5, 6], 1)]);
    assert_eq!(rows(&out.valid), [(0, vec![0, 1, 2], 2), (3, vec![7, 8], 1)]);
    assert_eq!(rows(&out.test), [(0, vec![0, 1, 2, 3], 3), (3, vec![7, 8, 9], 2)]);
    assert_eq!(out.visible, [2, 1, 2, 1]);
    assert_eq!(out.counts["dropped"]["users_with_1_no_rows"], 1);
    assert_eq!(out.counts["dropped"]["users_with_fewer_than_3_train_only"], 2);
}

#[test]
fn windows_of_training_sequences() {
    let data = histories(&[6], |_, at| at as f64);
    let windows = SplitConfig { train_form: TrainForm::Windows, ..config(SplitKind::LeaveOneOut) };
    let out = split(&data, &windows).unwrap();
    assert_eq!(rows(&out.train), [(0, vec![0, 1], 1), (0, vec![0, 1, 2], 2), (0, vec![1, 2, 3], 2)]);
}

#[test]
fn temporal_by_hand() {
    // ten interactions at times 0..10: train below 8, valid at 8, test from 9
    let data = histories(&[5, 5], |user, at| (2 * at + user) as f64);
    let out = split(&data, &config(SplitKind::Temporal)).unwrap();
    assert_eq!(rows(&out.train), [(0, vec![0, 1, 2, 3], 1), (1, vec![5, 6, 7, 8], 1)]);
    assert_eq!(rows(&out.valid), [(0, vec![0, 1, 2, 3, 4], 4)]);
    assert_eq!(rows(&out.test), [(1, vec![5, 6, 7, 8, 9], 4)]);
    let halves = SplitConfig { fractions: [0.5, 0.2, 0.3], targets: Targets::All, ..config(SplitKind::Temporal) };
    let out = split(&data, &halves).unwrap();
    assert_eq!(rows(&out.valid), [(0, vec![0, 1, 2, 3], 3), (1, vec![5, 6, 7], 2)]);
    assert_eq!(rows(&out.test), [(0, vec![0, 1, 2, 3, 4], 4), (1, vec![5, 6, 7, 8], 3), (1, vec![5, 6, 7, 8, 9], 4)]);
}

#[test]
fn temporal_never_splits_a_second() {
    let data = histories(&[10, 10], |_, at| (at / 4) as f64);
    let error = split(&data, &config(SplitKind::Temporal)).unwrap_err();
    assert_eq!(error.to_string(), "the split leaves no validation rows");
    let data = histories(&[10, 10], |_, at| (at / 2) as f64);
    let out = split(&data, &config(SplitKind::Temporal)).err().map(|e| e.to_string());
    assert_eq!(out.as_deref(), Some("the split leaves no validation rows"));
}

#[test]
fn dllm2rec_by_hand() {
    // window 2: targets at positions 2.. of long histories, at the last of short ones
    let data = histories(&[12, 2], |user, at| if user == 0 { at as f64 } else { 100.0 + at as f64 });
    let out = split(&data, &config(SplitKind::Dllm2rec)).unwrap();
    // 11 windows: floor(8.8) = 8 train, floor(9.9) = 9, so one valid and two test
    assert_eq!((out.train.len(), out.valid.len(), out.test.len()), (8, 1, 2));
    assert_eq!(out.train.items(0), [0, 1, 2]);
    assert_eq!(out.valid.items(0), [8, 9, 10]);
    assert_eq!(rows(&out.test), [(0, vec![9, 10, 11], 2), (1, vec![12, 13], 1)]);
    assert_eq!(out.visible, [10, 0]);
}

#[test]
fn llara_holds_out_users() {
    let data = histories(&[5; 943], |_, at| at as f64);
    let out = split(&data, &config(SplitKind::Llara)).unwrap();
    assert_eq!((out.train.len(), out.valid.len(), out.test.len()), (754, 94, 95));
    assert!((0..94).all(|row| out.valid.items(row).len() == 3 && out.visible[out.valid.user(row) as usize] == 0));
    let other = split(&data, &SplitConfig { seed: 1, ..config(SplitKind::Llara) }).unwrap();
    assert_ne!(rows(&out.test), rows(&other.test));
}

#[test]
fn times_are_needed_where_they_are() {
    for kind in [SplitKind::Temporal, SplitKind::Dllm2rec] {
        let data = Histories { time: None, ..histories(&[5; 20], |_, at| at as f64) };
        let error = split(&data, &config(kind)).unwrap_err();
        assert!(error.to_string().contains("needs the time of each interaction"), "{error}");
        assert!(error.hint().unwrap().contains("dataset.columns.time"));
    }
}

#[test]
fn too_short_histories_say_so() {
    let data = histories(&[2, 1], |_, at| at as f64);
    let error = split(&data, &config(SplitKind::LeaveOneOut)).unwrap_err();
    assert_eq!(error.to_string(), "the split leaves no validation rows");
}

proptest! {
    #[test]
    fn what_is_asked_is_never_learned(
        lengths in prop::collection::vec(1usize..15, 3..25),
        seconds in prop::collection::vec(0u16..60, 25),
        kind in prop::sample::select(vec![SplitKind::LeaveOneOut, SplitKind::Temporal, SplitKind::Llara, SplitKind::Dllm2rec]),
        targets in prop::sample::select(vec![Targets::First, Targets::All]),
        train_form in prop::sample::select(vec![TrainForm::Sequences, TrainForm::Windows]),
        window in 1usize..6,
    ) {
        let data = histories(&lengths, |user, at| f64::from(seconds[user]) + (at / 2) as f64 * 3.0);
        let config = SplitConfig { targets, train_form, window, fractions: [0.6, 0.2, 0.2], ..config(kind) };
        let Ok(out) = split(&data, &config) else { return Ok(()) };
        // every interaction is an item of its own: a training row that holds a held-out target has leaked it
        let mut learned = vec![false; data.items.len()];
        for row in 0..out.train.len() {
            out.train.items(row).iter().for_each(|item| learned[*item as usize] = true);
        }
        let mut asked = std::collections::HashSet::new();
        for part in [&out.valid, &out.test] {
            for row in 0..part.len() {
                prop_assert!(!learned[part.target(row) as usize]);
                prop_assert!(asked.insert(part.target(row)), "asked twice");
                // the history is what came right before the target
                prop_assert!(part.items(row).windows(2).all(|w| w[0] + 1 == w[1]));
                let user = part.user(row) as usize;
                prop_assert!((data.offsets[user]..data.offsets[user + 1]).contains(&(part.target(row) as usize)));
                prop_assert!(part.target(row) as usize >= data.offsets[user] + out.visible[user]);
            }
        }
        for (item, learned) in learned.iter().enumerate() {
            let user = data.offsets.partition_point(|o| *o <= item) - 1;
            prop_assert!(!learned || item < data.offsets[user] + out.visible[user], "visible is too small");
        }
        if kind == SplitKind::Temporal {
            let time = data.time.as_ref().unwrap();
            let of = |part: &Rows| (0..part.len()).map(|r| time[part.target(r) as usize]).collect::<Vec<_>>();
            let newest = learned.iter().zip(time).filter(|(l, _)| **l).map(|(_, t)| *t).fold(0.0, f64::max);
            prop_assert!(of(&out.valid).iter().all(|t| *t > newest));
            prop_assert!(of(&out.test).iter().all(|t| of(&out.valid).iter().all(|v| v < t)));
        }
    }
}

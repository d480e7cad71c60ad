//! The generated data keeps what its documentation promises.

use std::collections::{BTreeMap, HashMap};

use super::*;

fn toy() -> Dataset {
    load_from(&shipped("toy", &[]), Path::new("data")).unwrap()
}

/// "Iron Harbor 3: The Long Night (mystery)" is part 3 of "Iron Harbor".
fn series(title: &str) -> (&str, u32) {
    let (name, part) = title.split_once(':').unwrap().0.rsplit_once(' ').unwrap();
    (name, part.parse().unwrap())
}

#[test]
fn it_is_the_same_everywhere() {
    let (a, b) = (toy(), toy());
    assert_eq!((a.n_users(), a.n_items()), (2000, 500));
    assert_eq!((&a.train, &a.test, &a.items, &a.hash), (&b.train, &b.test, &b.items, &b.hash));
    let other = load_from(&shipped("toy", &[("toy.seed", "1")]), Path::new("data")).unwrap();
    assert_ne!(a.items_hash, other.items_hash);
    let titles: std::collections::HashSet<_> = a.items.iter().map(|i| &i.title).collect();
    assert_eq!(titles.len(), 500);
}

#[test]
fn toy_rule_and_popularity() {
    let data = toy();
    let place: HashMap<_, u32> = data.items.iter().zip(0..).map(|(item, at)| (series(&item.title), at)).collect();
    let (mut next_part, mut popular, mut cold_hits, mut cold, mut never) = (0, 0, 0, 0, 0);
    let mut by_count: Vec<u32> = (0..500).collect();
    by_count.sort_by_key(|&item| std::cmp::Reverse(data.train_counts[item as usize]));
    for row in 0..data.test.len() {
        let (name, part) = series(&data.items[*data.test.history(row).last().unwrap() as usize].title);
        let target = data.test.target(row);
        let hit = place.get(&(name, part + 1)) == Some(&target);
        next_part += u32::from(hit);
        popular += u32::from(by_count[..10].contains(&target));
        if data.train_counts[target as usize] <= 10 {
            cold += 1;
            cold_hits += u32::from(hit);
            never += u32::from(data.train_counts[target as usize] == 0);
        }
    }
    let rare = data.train_counts.iter().filter(|n| **n <= 10).count();
    let n = data.test.len() as f64;
    let (rule, popularity) = (f64::from(next_part) / n, f64::from(popular) / n);
    println!(
        "interactions {} next part HR@1 {rule:.3}, popularity HR@10 {popularity:.3}",
        data.provenance["steps"][0]["interactions"]
    );
    println!(
        "{rare} items with at most 10 training interactions; {cold} test targets there, {cold_hits} are next parts; \
         {never} targets were never seen in training"
    );
    assert!((0.45..0.75).contains(&rule), "{rule}");
    assert!(popularity < 0.6 * rule, "{popularity}");
    assert!(rare >= 50, "{rare}");
    assert!(cold >= 300 && cold_hits * 5 > cold * 2, "{cold_hits} of {cold}");
    assert!(never >= 50, "{never}");
}

#[test]
fn series_are_read_in_order() {
    let data = toy();
    let mut parts: BTreeMap<(u32, String), u32> = BTreeMap::new();
    for row in 0..data.test.len() {
        for &item in data.test.items(row) {
            let (name, part) = series(&data.items[item as usize].title);
            let last = parts.entry((data.test.user(row), name.to_owned())).or_insert(0);
            assert_eq!(part, *last + 1);
            *last = part;
        }
    }
}

#[test]
fn every_split_works_on_it() {
    for kind in ["leave_one_out", "temporal", "llara", "dllm2rec"] {
        let data = load_from(&shipped("toy", &[("split.kind", kind)]), Path::new("data")).unwrap();
        assert!(data.train.len() > 100 && data.valid.len() > 100 && data.test.len() > 100, "{kind}");
        assert!(data.protocol.starts_with(kind), "{}", data.protocol);
        assert_eq!(data.train_counts.iter().sum::<u64>(), data.train_order.len() as u64);
    }
}

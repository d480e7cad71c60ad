//! Real data sets where they are at hand: the counts that their owners and the papers state.

use super::*;

fn load_shared(folder: &str, name: &str, changes: &[(&str, &str)]) -> Option<Dataset> {
    let root = shared(folder)?;
    Some(load_from(&shipped(name, changes), &root).unwrap_or_else(|e| panic!("{name}: {e} {:?}", e.hint())))
}

fn read(data: &Dataset) -> [u64; 3] {
    ["interactions", "users", "items"].map(|key| data.provenance["steps"][0][key].as_u64().unwrap())
}

#[test]
fn movielens_100k() {
    let Some(data) = load_shared("movielens-100k", "movielens-100k", &[]) else { return };
    assert_eq!(read(&data), [100_000, 943, 1682]);
    assert_eq!((data.n_users(), data.n_items(), data.test.len(), data.valid.len()), (943, 1682, 943, 943));
    assert_eq!(data.train_counts.iter().sum::<u64>(), 100_000 - 2 * 943);
    let title = |id: &str| data.items[data.find_item(id).unwrap() as usize].title.clone();
    assert_eq!(title("12"), "The Usual Suspects (1995)");
    assert_eq!(title("267"), "unknown");
    assert_eq!(title("1412"), "Land Before Time III: The Time of the Great Giving (1995)");
    assert_eq!(data.items[0].text, "Animation, Children's, Comedy");
    assert!(
        data.items
            .iter()
            .any(|item| item.title.starts_with("Misérables, Les") || item.title.starts_with("Les Misérables"))
    );
    assert_eq!(data.find_item("usual suspects").unwrap(), 11);
    let rated = load_shared(
        "movielens-100k",
        "movielens-100k",
        &[("filter.min_rating", "4"), ("filter.item_core", "5"), ("filter.user_core", "5")],
    )
    .unwrap();
    assert_eq!(rated.provenance["steps"][1]["interactions"], 55_375);
    assert!(rated.n_items() < 1682);
}

#[test]
fn movielens_100k_gives_the_windows_of_llara() {
    let Some(root) = shared("llara-movielens") else { return };
    let changes = [("filter.min_rating", "3"), ("split.kind", "llara"), ("split.min_len", "3")];
    let data = load_from(&shipped("movielens-100k", &changes), &root).unwrap();
    assert_eq!((data.valid.len(), data.test.len()), (94, 95));
    let given = load_from(&shipped("movielens-llara", &[]), &root).unwrap();
    // user by user: the last window by our rule against the released ones, up to the order within one second
    let all = [("filter.min_rating", "3"), ("split.kind", "leave_one_out")];
    let all = load_from(&shipped("movielens-100k", &all), &root).unwrap();
    let window = |data: &Dataset, items: &[u32], shift: i64| -> Vec<i64> {
        let start = items.len().saturating_sub(11);
        ids(data, &items[start..]).iter().map(|id| id.parse::<i64>().unwrap() + shift).collect()
    };
    let ours: Vec<Vec<i64>> = (0..all.test.len())
        .map(|row| {
            let mut items = window(&all, all.test.items(row), -1);
            items.sort_unstable();
            items
        })
        .collect();
    let mut found = 0;
    for rows in [&given.valid, &given.test] {
        for row in 0..rows.len() {
            let mut items = window(&given, rows.items(row), 0);
            items.sort_unstable();
            found += usize::from(ours.contains(&items));
        }
    }
    // many ratings share one second, and the original order within it is unknown: such windows differ at their edge
    assert!(found >= 120, "{found} of 189");
}

#[test]
fn movielens_1m() {
    let Some(root) = shared("movielens-1m") else { return };
    let mut said = Vec::new();
    let config = shipped("movielens-1m", &[]);
    let data_config = data(&root, None);
    let data = load(&config, &data_config, &mut |note| said.push(note.to_owned())).unwrap();
    assert_eq!(read(&data), [1_000_209, 6040, 3706]);
    assert_eq!((data.n_items(), data.test.len()), (3706, 6040));
    assert!(said.iter().all(|note| note.contains("sequences.tsv")), "{said:?}");
    assert_eq!(ids(&data, &data.test.items(0)[..3]), ["3186", "1721", "1022"]);
    assert_eq!(data.items[data.test.target(0) as usize].id, "48");
    assert_eq!(data.items[data.find_item("1").unwrap() as usize].text, "Animation, Children's, Comedy");
    let all = load_from(&shipped("movielens-1m", &[("filter.catalogue", "all")]), &root).unwrap();
    assert_eq!(all.n_items(), 3883);
    assert!(all.items.iter().all(|item| !item.title.is_empty()));
}

#[test]
fn movielens_1m_starts_fast_the_second_time() {
    let Some(root) = shared("movielens-1m") else { return };
    let cache = tempfile::tempdir().unwrap();
    let config = shipped("movielens-1m", &[]);
    let data_config = data(&root, Some(cache.path()));
    let time = |what: &str| {
        let start = std::time::Instant::now();
        let data = load(&config, &data_config, &mut |_| {}).unwrap();
        let seconds = start.elapsed().as_secs_f64();
        println!("{what}: {seconds:.3} s");
        (data, seconds)
    };
    let (first, _) = time("first start");
    let (second, seconds) = time("second start");
    assert_eq!((first.hash, first.train), (second.hash, second.train));
    // the goal is 1 s; a busy machine gets more
    assert!(seconds < 3.0, "{seconds}");
}

#[test]
fn amazon() {
    if let Some(data) = load_shared("amazon-games-llmrank", "amazon-games", &[]) {
        assert_eq!(read(&data), [440_264, 50_546, 16_859]);
        assert_eq!(data.items[data.find_item("0").unwrap() as usize].title, "Fire Emblem: The Sacred Stones");
        let entity = |title: &str| title.contains("&amp;") || title.contains("&reg;") || title.contains("&#");
        assert!(!data.items.iter().any(|item| entity(&item.title)));
    }
    if let Some(data) = load_shared("amazon-beauty-s3rec", "amazon-beauty", &[]) {
        assert_eq!(read(&data), [198_502, 22_363, 12_101]);
    }
    if let Some(data) = load_shared("amazon-games-dllm2rec", "amazon-games-dllm2rec", &[]) {
        assert_eq!(
            (data.train.len(), data.valid.len(), data.test.len(), data.n_items()),
            (119_515, 14_980, 14_980, 17_408)
        );
        let repeats =
            |rows: &super::super::Rows| (0..rows.len()).filter(|&r| rows.history(r).contains(&rows.target(r))).count();
        assert_eq!((repeats(&data.valid), repeats(&data.test)), (140, 164));
        let largest = |rows: &super::super::Rows| (0..rows.len()).flat_map(|r| rows.items(r)).max().copied();
        assert_eq!((largest(&data.valid), largest(&data.test)), (Some(17_406), Some(17_405)));
    }
}

#[test]
fn llara_windows() {
    if let Some(data) = load_shared("llara-lastfm", "lastfm", &[]) {
        let dropped = &data.provenance["split"]["dropped"];
        assert_eq!((data.train.len(), data.valid.len(), data.test.len()), (47_872, 122, 122));
        assert_eq!((dropped["train_rows_read"].as_u64(), data.n_items()), (Some(50_800), 4606));
        assert_eq!(data.items[2].title, "Café Del Mar");
        assert_eq!(data.users.iter().filter(|user| user.starts_with("train")).count(), 976);
    }
    if let Some(data) = load_shared("llara-movielens", "movielens-llara", &[]) {
        let dropped = &data.provenance["split"]["dropped"];
        assert_eq!((data.train.len(), data.valid.len(), data.test.len()), (66_127, 94, 95));
        assert_eq!((dropped["train_rows_read"].as_u64(), data.n_items()), (Some(68_389), 1682));
        assert_eq!(data.items[0].title, "Toy Story (1995)");
        assert_eq!(data.items[11].title, "The Usual Suspects (1995)");
        assert_eq!(data.items[1681].id, "1681");
        assert!((0..95).all(|row| !data.test.history(row).contains(&data.test.target(row))));
    }
}

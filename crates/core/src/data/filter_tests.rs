use proptest::prelude::*;

use super::*;

/// Users and items by number, times and ratings as given.
fn raw(rows: &[(u32, u32, f64, f64)]) -> Interactions {
    let users = rows.iter().map(|r| r.0 + 1).max().unwrap_or(0);
    let items = rows.iter().map(|r| r.1 + 1).max().unwrap_or(0);
    Interactions {
        users: (0..users).map(|u| u.to_string()).collect(),
        items: (0..items).map(|i| i.to_string()).collect(),
        user: rows.iter().map(|r| r.0).collect(),
        item: rows.iter().map(|r| r.1).collect(),
        time: Some(rows.iter().map(|r| r.2).collect()),
        rating: Some(rows.iter().map(|r| r.3).collect()),
    }
}

fn config() -> FilterConfig {
    FilterConfig {
        min_rating: None,
        ties: Ties::FileOrder,
        duplicates: Duplicates::KeepAll,
        user_core: 0,
        item_core: 0,
        max_history: None,
        catalogue: Catalogue::Interactions,
    }
}

fn ids(data: &Histories, user: usize) -> Vec<&str> {
    data.items_of(user).iter().map(|&item| data.items[item as usize].id.as_str()).collect()
}

#[test]
fn ties_follow_the_file_or_the_item() {
    let raw = raw(&[(0, 7, 2.0, 5.0), (0, 3, 1.0, 5.0), (0, 9, 2.0, 5.0), (0, 4, 2.0, 5.0)]);
    assert_eq!(ids(&apply("x", &raw, None, &config()).unwrap(), 0), ["3", "7", "9", "4"]);
    let by_item = FilterConfig { ties: Ties::ItemId, ..config() };
    assert_eq!(ids(&apply("x", &raw, None, &by_item).unwrap(), 0), ["3", "4", "7", "9"]);
}

#[test]
fn duplicates_ratings_and_newest() {
    let raw = raw(&[(0, 1, 1.0, 5.0), (0, 2, 2.0, 2.0), (0, 1, 3.0, 4.0), (1, 1, 1.0, 3.0)]);
    let with = |change: &dyn Fn(&mut FilterConfig)| {
        let mut config = config();
        change(&mut config);
        let data = apply("x", &raw, None, &config).unwrap();
        (0..data.users.len()).map(|u| ids(&data, u).join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(with(&|_| {}), ["1 2 1", "1"]);
    assert_eq!(with(&|c| c.duplicates = Duplicates::KeepFirst), ["1 2", "1"]);
    assert_eq!(with(&|c| c.duplicates = Duplicates::KeepLast), ["2 1", "1"]);
    assert_eq!(with(&|c| c.min_rating = Some(3.0)), ["1 1", "1"]);
    assert_eq!(with(&|c| c.max_history = Some(2)), ["2 1", "1"]);
    assert_eq!(with(&|c| c.user_core = 2), ["1 2 1"]);
}

#[test]
fn ids_sort_by_number_only_when_all_are_numbers() {
    let order = |ids: &[&str]| ranks(&ids.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
    assert_eq!(order(&["10", "9", "1"]), [2, 1, 0]);
    assert_eq!(order(&["10", "9", "b"]), [0, 1, 2]);
}

#[test]
fn nothing_left_says_what_removed_how_much() {
    let raw = raw(&[(0, 1, 1.0, 5.0), (0, 2, 2.0, 2.0)]);
    let config = FilterConfig { min_rating: Some(4.5), user_core: 5, ..config() };
    let error = apply("x", &raw, None, &config).unwrap_err().to_string();
    assert_eq!(
        error,
        "data set `x` is empty after filtering: 2 interactions read; min_rating=4.5 removed 1; user_core=5 item_core=0 removed 1"
    );
}

#[test]
fn a_catalogue_can_hold_items_nobody_touched() {
    let raw = raw(&[(0, 2, 1.0, 1.0), (0, 0, 2.0, 1.0)]);
    let mut table = ItemTable::default();
    for id in ["0", "1", "2"] {
        table.place.insert(id.into(), table.items.len());
        table.items.push(Item { id: id.into(), title: format!("title {id}"), text: String::new() });
    }
    let all = FilterConfig { catalogue: Catalogue::All, ..config() };
    let data = apply("x", &raw, Some((&table, Path::new("items"), UnknownItems::Error)), &all).unwrap();
    assert_eq!(data.items.iter().map(|i| i.title.as_str()).collect::<Vec<_>>(), ["title 0", "title 1", "title 2"]);
    assert_eq!(data.items_of(0), [2, 0]);
    let data = apply("x", &raw, Some((&table, Path::new("items"), UnknownItems::Error)), &config()).unwrap();
    assert_eq!((data.items.len(), data.items_of(0)), (2, &[1, 0][..]));
}

#[test]
fn items_that_the_file_lacks() {
    let raw = raw(&[(0, 0, 1.0, 1.0), (0, 1, 2.0, 1.0)]);
    let mut table = ItemTable::default();
    table.place.insert("0".into(), 0);
    table.items.push(Item { id: "0".into(), title: "zero".into(), text: String::new() });
    let with = |unknown| apply("x", &raw, Some((&table, Path::new("items.tsv"), unknown)), &config());
    let error = with(UnknownItems::Error).unwrap_err();
    assert_eq!(error.to_string(), "items.tsv: 1 of 2 items of the interactions are not in this item file, such as 1");
    assert_eq!(with(UnknownItems::Keep).unwrap().items[1].title, "1");
    assert_eq!(with(UnknownItems::Drop).unwrap().items.len(), 1);
}

proptest! {
    #[test]
    fn k_core_is_the_largest_fixpoint(
        pairs in prop::collection::vec((0u32..8, 0u32..8), 1..80),
        user_core in 0usize..5,
        item_core in 0usize..5,
    ) {
        let raw = raw(&pairs.iter().map(|&(u, i)| (u, i, 0.0, 0.0)).collect::<Vec<_>>());
        let mut rows: Vec<u32> = (0..pairs.len() as u32).collect();
        k_core(&raw, &mut rows, user_core, item_core);
        let count = |rows: &[u32], f: &dyn Fn(u32) -> bool| rows.iter().filter(|r| f(**r)).count();
        for &row in &rows {
            let (user, item) = pairs[row as usize];
            prop_assert!(count(&rows, &|r| pairs[r as usize].0 == user) >= user_core);
            prop_assert!(count(&rows, &|r| pairs[r as usize].1 == item) >= item_core);
        }
        // the same set is reached by removing one offending row after another, in any order
        let mut one: Vec<u32> = (0..pairs.len() as u32).collect();
        while let Some(at) = one.iter().rposition(|&row| {
            let (user, item) = pairs[row as usize];
            count(&one, &|r| pairs[r as usize].0 == user) < user_core || count(&one, &|r| pairs[r as usize].1 == item) < item_core
        }) {
            one.remove(at);
        }
        prop_assert_eq!(rows, one);
    }

    #[test]
    fn filters_keep_histories_in_time_order(rows in prop::collection::vec((0u32..6, 0u32..6, 0u8..4, 0u8..5), 1..60), core in 0usize..3) {
        let rows: Vec<_> = rows.iter().map(|&(u, i, t, r)| (u, i, f64::from(t), f64::from(r))).collect();
        let config = FilterConfig { user_core: core, item_core: core, duplicates: Duplicates::KeepLast, ..config() };
        if let Ok(data) = apply("x", &raw(&rows), None, &config) {
            let time = data.time.as_ref().unwrap();
            prop_assert_eq!(data.offsets.len(), data.users.len() + 1);
            for user in 0..data.users.len() {
                let items = data.items_of(user);
                prop_assert!(!items.is_empty());
                let mut unique = items.to_vec();
                unique.sort_unstable();
                unique.dedup();
                prop_assert_eq!(unique.len(), items.len());
                prop_assert!(time[data.offsets[user]..data.offsets[user + 1]].is_sorted());
            }
        }
    }
}

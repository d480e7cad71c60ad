//! From interactions in file order to one time-ordered history a user: ratings, ties, duplicates, k-core, catalogue.

use std::path::Path;

use serde_json::{Value, json};

use super::{
    config::{Catalogue, Duplicates, FilterConfig, Ties, UnknownItems},
    dataset::Item,
    read::{Interactions, ItemTable, data_error},
};
use crate::{Error, Result};

/// Histories of all users, oldest interaction first, in one flat buffer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Histories {
    pub(super) users: Vec<String>,
    pub(super) items: Vec<Item>,
    /// `[n_users + 1]`: where each user's interactions begin.
    pub(super) offsets: Vec<usize>,
    pub(super) item: Vec<u32>,
    pub(super) time: Option<Vec<f64>>,
    /// What each step left and removed.
    pub(super) steps: Vec<Value>,
}

impl Histories {
    /// The items of a user.
    pub(super) fn items_of(&self, user: usize) -> &[u32] {
        &self.item[self.offsets[user]..self.offsets[user + 1]]
    }
}

/// Applies the filter; `items` and its file are there when the data set has an item file.
///
/// # Errors
/// When an item is not in the item file and must be, or when nothing is left.
pub(super) fn apply(
    name: &str,
    raw: &Interactions,
    items: Option<(&ItemTable, &Path, UnknownItems)>,
    config: &FilterConfig,
) -> Result<Histories> {
    let mut steps = Steps { name, steps: Vec::new(), read: raw.user.len() };
    let mut rows: Vec<u32> = (0..raw.user.len() as u32).collect();
    steps.add("read", raw, &rows);
    if let Some((table, path, unknown)) = items {
        drop_unknown(raw, &mut rows, table, path, unknown)?;
        if unknown == UnknownItems::Drop {
            steps.add("items.unknown=drop", raw, &rows);
        }
    }
    if config.min_rating.is_some() && raw.rating.is_none() {
        return Err(Error::Invalid {
            message: format!("filter.min_rating is set, but data set `{name}` was read from a file without ratings"),
            hint: Some("write dataset.filter.min_rating=null, or read a file with ratings".into()),
        });
    }
    if let (Some(least), Some(rating)) = (config.min_rating, &raw.rating) {
        rows.retain(|&row| rating[row as usize] >= least);
        steps.add(&format!("min_rating={least}"), raw, &rows);
    }
    let (user_rank, item_rank) = (ranks(&raw.users), ranks(&raw.items));
    order(raw, &mut rows, &user_rank, &item_rank, config.ties);
    if config.duplicates != Duplicates::KeepAll {
        drop_duplicates(raw, &mut rows, config.duplicates == Duplicates::KeepLast);
        let kept = if config.duplicates == Duplicates::KeepLast { "keep_last" } else { "keep_first" };
        steps.add(&format!("duplicates={kept}"), raw, &rows);
    }
    if config.user_core > 1 || config.item_core > 1 {
        k_core(raw, &mut rows, config.user_core, config.item_core);
        steps.add(&format!("user_core={} item_core={}", config.user_core, config.item_core), raw, &rows);
    }
    if let Some(longest) = config.max_history {
        keep_newest(raw, &mut rows, longest);
        steps.add(&format!("max_history={longest}"), raw, &rows);
    }
    if rows.is_empty() {
        return Err(steps.empty());
    }
    Ok(index(raw, &rows, &user_rank, items.map(|(table, _, _)| table), config.catalogue, steps.steps))
}

fn drop_unknown(
    raw: &Interactions,
    rows: &mut Vec<u32>,
    table: &ItemTable,
    path: &Path,
    unknown: UnknownItems,
) -> Result<()> {
    let missing: Vec<bool> = raw.items.iter().map(|id| !table.place.contains_key(id)).collect();
    let n_missing = missing.iter().filter(|m| **m).count();
    if n_missing == 0 || unknown == UnknownItems::Keep {
        return Ok(());
    }
    if unknown == UnknownItems::Error {
        let examples: Vec<&str> =
            raw.items.iter().zip(&missing).filter(|(_, m)| **m).take(3).map(|(id, _)| id.as_str()).collect();
        let message = format!(
            "{n_missing} of {} items of the interactions are not in this item file, such as {}",
            raw.items.len(),
            examples.join(", ")
        );
        let hint = "do the files belong together? dataset.items.unknown=keep keeps such items, =drop leaves them out";
        return Err(data_error(path, None, message, hint));
    }
    rows.retain(|&row| !missing[raw.item[row as usize] as usize]);
    Ok(())
}

/// The place of each id among all: by number when all are whole numbers, else by bytes.
pub(super) fn ranks(ids: &[String]) -> Vec<u32> {
    let numbers: Option<Vec<i64>> = ids.iter().map(|id| id.parse().ok()).collect();
    let mut order: Vec<usize> = (0..ids.len()).collect();
    match &numbers {
        Some(numbers) => order.sort_by(|&a, &b| numbers[a].cmp(&numbers[b]).then_with(|| ids[a].cmp(&ids[b]))),
        None => order.sort_by(|&a, &b| ids[a].cmp(&ids[b])),
    }
    let mut ranks = vec![0; ids.len()];
    for (rank, &at) in order.iter().enumerate() {
        ranks[at] = rank as u32;
    }
    ranks
}

/// By user, time and tie rule; the file order decides what is left equal.
fn order(raw: &Interactions, rows: &mut [u32], user_rank: &[u32], item_rank: &[u32], ties: Ties) {
    let user = |row: u32| user_rank[raw.user[row as usize] as usize];
    match &raw.time {
        None => rows.sort_by_key(|&row| user(row)),
        Some(time) => rows.sort_by(|&a, &b| {
            let by_time = user(a).cmp(&user(b)).then(time[a as usize].total_cmp(&time[b as usize]));
            match ties {
                Ties::FileOrder => by_time,
                Ties::ItemId => by_time
                    .then(item_rank[raw.item[a as usize] as usize].cmp(&item_rank[raw.item[b as usize] as usize])),
            }
        }),
    }
}

fn drop_duplicates(raw: &Interactions, rows: &mut Vec<u32>, keep_last: bool) {
    let mut last_user = vec![u32::MAX; raw.items.len()];
    if keep_last {
        rows.reverse();
    }
    rows.retain(|&row| {
        let (user, item) = (raw.user[row as usize], raw.item[row as usize] as usize);
        std::mem::replace(&mut last_user[item], user) != user
    });
    if keep_last {
        rows.reverse();
    }
}

/// Removes users and items with too few interactions until all that are left have enough.
fn k_core(raw: &Interactions, rows: &mut Vec<u32>, user_core: usize, item_core: usize) {
    loop {
        let before = rows.len();
        let mut of_user = vec![0usize; raw.users.len()];
        let mut of_item = vec![0usize; raw.items.len()];
        for &row in rows.iter() {
            of_user[raw.user[row as usize] as usize] += 1;
            of_item[raw.item[row as usize] as usize] += 1;
        }
        rows.retain(|&row| {
            of_user[raw.user[row as usize] as usize] >= user_core
                && of_item[raw.item[row as usize] as usize] >= item_core
        });
        if rows.len() == before {
            return;
        }
    }
}

fn keep_newest(raw: &Interactions, rows: &mut Vec<u32>, longest: usize) {
    let mut seen = vec![0usize; raw.users.len()];
    rows.reverse();
    rows.retain(|&row| {
        let n = &mut seen[raw.user[row as usize] as usize];
        *n += 1;
        *n <= longest
    });
    rows.reverse();
}

/// Numbers users and items and gathers the histories.
fn index(
    raw: &Interactions,
    rows: &[u32],
    user_rank: &[u32],
    table: Option<&ItemTable>,
    catalogue: Catalogue,
    steps: Vec<Value>,
) -> Histories {
    let mut used = vec![false; raw.items.len()];
    let mut user_order: Vec<u32> = Vec::new();
    for &row in rows {
        used[raw.item[row as usize] as usize] = true;
        let user = raw.user[row as usize];
        if user_order.last() != Some(&user) {
            user_order.push(user);
        }
    }
    debug_assert!(user_order.windows(2).all(|w| user_rank[w[0] as usize] < user_rank[w[1] as usize]));
    let mut ids: Vec<String> =
        raw.items.iter().zip(&used).filter(|(_, used)| **used).map(|(id, _)| id.clone()).collect();
    if let (Catalogue::All, Some(table)) = (catalogue, table) {
        let known: std::collections::HashSet<String> = ids.iter().cloned().collect();
        ids.extend(table.items.iter().filter(|item| !known.contains(&item.id)).map(|item| item.id.clone()));
    }
    let rank = ranks(&ids);
    let mut sorted = vec![String::new(); ids.len()];
    for (id, &rank) in ids.into_iter().zip(&rank) {
        sorted[rank as usize] = id;
    }
    let of_id: std::collections::HashMap<&str, u32> = sorted.iter().zip(0..).map(|(id, i)| (id.as_str(), i)).collect();
    let of_raw: Vec<u32> = raw.items.iter().map(|id| of_id.get(id.as_str()).copied().unwrap_or(u32::MAX)).collect();
    let items = sorted.iter().map(|id| describe(id, table)).collect();
    let mut offsets = vec![0];
    for (at, pair) in rows.windows(2).enumerate() {
        if raw.user[pair[0] as usize] != raw.user[pair[1] as usize] {
            offsets.push(at + 1);
        }
    }
    offsets.push(rows.len());
    Histories {
        users: user_order.iter().map(|&user| raw.users[user as usize].clone()).collect(),
        items,
        offsets,
        item: rows.iter().map(|&row| of_raw[raw.item[row as usize] as usize]).collect(),
        time: raw.time.as_ref().map(|time| rows.iter().map(|&row| time[row as usize]).collect()),
        steps,
    }
}

/// The item from the item file, or with its id as title.
pub(super) fn describe(id: &str, table: Option<&ItemTable>) -> Item {
    let known = table.and_then(|table| table.place.get(id).map(|&at| table.items[at].clone()));
    known.unwrap_or_else(|| Item { id: id.to_owned(), title: id.to_owned(), text: String::new() })
}

/// The record of what was removed, for the provenance and for the message when nothing is left.
struct Steps<'a> {
    name: &'a str,
    steps: Vec<Value>,
    read: usize,
}

impl Steps<'_> {
    fn add(&mut self, step: &str, raw: &Interactions, rows: &[u32]) {
        let count = |n: usize, codes: &[u32]| {
            let mut seen = vec![false; n];
            rows.iter().for_each(|&row| seen[codes[row as usize] as usize] = true);
            seen.into_iter().filter(|s| *s).count()
        };
        let before = self.steps.last().and_then(|s| s["interactions"].as_u64()).unwrap_or(rows.len() as u64);
        self.steps.push(json!({
            "step": step,
            "interactions": rows.len(),
            "users": count(raw.users.len(), &raw.user),
            "items": count(raw.items.len(), &raw.item),
            "removed": before - rows.len() as u64,
        }));
    }

    fn empty(&self) -> Error {
        let removed: Vec<String> = self.steps[1..]
            .iter()
            .map(|s| format!("{} removed {}", s["step"].as_str().unwrap_or_default(), s["removed"]))
            .collect();
        Error::Invalid {
            message: format!(
                "data set `{}` is empty after filtering: {} interactions read; {}",
                self.name,
                self.read,
                removed.join("; ")
            ),
            hint: Some("weaken the option that removed most, under dataset.filter".into()),
        }
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod filter_tests;

//! Lists from outside: ids become numbers, every value is checked at its line, and a bundle is written of them.

use std::{collections::HashMap, path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tch::Tensor;

use super::{
    BundleWriter, Confidence, DatasetIdentity, Flush, Lists, Manifest, Opened, Position, Spec, Teacher,
    check::{HistoryCheck, ListCheck, list_len},
};
use crate::{
    Error, Result,
    data::{Dataset, TargetIndex},
};

/// What the first column of a table names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowIds {
    /// Numbers of targets from 0 ([`TargetIndex`]).
    Number,
    /// User ids of the data set's source; each user has one target at the position.
    User,
}

/// How a table names items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemIds {
    /// Numbers from 0 in the order of the data set.
    Index,
    /// Ids of the data set's source.
    Id,
}

/// Which numbers stand behind the items of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Given {
    /// None: the place in the list, from 0, becomes the distance.
    None,
    /// Distances, small is good.
    Distance,
    /// Scores, large is good: the first score minus each becomes the distance.
    Score,
}

impl Given {
    pub(super) fn confidence(self) -> Confidence {
        Confidence::distance(match self {
            Self::None => "place in the list, from 0 (the source has no confidence)",
            Self::Distance => "distance as imported",
            Self::Score => "first score of the list - score",
        })
    }
}

/// Collects rows of a source, each checked when it comes.
pub(super) struct Collector<'a> {
    path: &'a Path,
    n_rows: usize,
    n_items: usize,
    given: Given,
    items: Option<HashMap<&'a str, u32>>,
    /// Row and number of targets of each user.
    users: Option<HashMap<&'a str, (u32, usize)>>,
    /// Longer lists are cut to this; without it the first list sets the length and no list may be longer.
    cut: Option<usize>,
    lists: Option<Lists>,
    seen: Vec<bool>,
    check: ListCheck,
}

impl<'a> Collector<'a> {
    pub(super) fn new(
        path: &'a Path,
        dataset: &'a Dataset,
        position: Position,
        (row_ids, item_ids): (RowIds, ItemIds),
        given: Given,
        cut: Option<usize>,
    ) -> Self {
        let rows = position.rows(dataset);
        let index = TargetIndex::new(rows);
        let items = || dataset.items.iter().zip(0u32..).map(|(item, at)| (item.id.as_str(), at)).collect();
        let users = || {
            let mut users: HashMap<&str, (u32, usize)> = HashMap::new();
            for row in 0..rows.len() {
                let Some(name) = dataset.users.get(rows.user(row) as usize) else { continue };
                let numbers = index.numbers(row);
                users.entry(name).or_insert((numbers.start as u32, 0)).1 += numbers.len();
            }
            users
        };
        Self {
            path,
            n_rows: index.len(),
            n_items: dataset.n_items(),
            given,
            items: (item_ids == ItemIds::Id).then(items),
            users: (row_ids == RowIds::User).then(users),
            cut,
            lists: None,
            seen: vec![false; index.len()],
            check: ListCheck::new(dataset.n_items()),
        }
    }

    /// Adds the list of one row as it stands at `line` (1-based) of the source.
    pub(super) fn add(&mut self, line: u64, row: &str, items: &[&str], values: &[&str]) -> Result<()> {
        self.try_add(row, items, values).map_err(|(message, hint)| Error::Data {
            path: self.path.to_owned(),
            line: Some(line),
            message,
            hint: Some(hint.to_owned()),
        })
    }

    fn try_add(&mut self, row: &str, items: &[&str], values: &[&str]) -> Result<(), (String, &'static str)> {
        let number = self.row(row)?;
        let seen = self.seen.get_mut(number as usize);
        if seen.is_some_and(|seen| std::mem::replace(seen, true)) {
            return Err((format!("row {row}: it stands there twice"), "leave one list for each row"));
        }
        let at = |why: String| (format!("row {row}: {why}"), "make the lists again from the data set at hand");
        let keep = self.cut.unwrap_or(usize::MAX).min(items.len());
        let items = items[..keep].iter().map(|item| self.item(item)).collect::<Result<Vec<u32>, _>>().map_err(at)?;
        let distances = self.distances(keep, values).map_err(at)?;
        let top_n = self.cut.unwrap_or(items.len()).min(self.n_items).max(1);
        let lists = self.lists.get_or_insert_with(|| Lists::new(top_n));
        if items.len() > lists.top_n {
            let message = format!("row {row}: {} items, the first list has {}", items.len(), lists.top_n);
            return Err((message, "say how many to keep with table.top_n"));
        }
        lists.push(number, &items, &distances, None);
        let (list, far) = lists.padded(lists.len() - 1);
        self.check.list(list, far, (0, f32::NAN)).map_err(at)
    }

    fn row(&self, text: &str) -> Result<u32, (String, &'static str)> {
        if let Some(users) = &self.users {
            return match users.get(text) {
                Some(&(row, 1)) => Ok(row),
                Some((_, n)) => Err((
                    format!("user {text}: has {n} targets at this position, so a user names no row"),
                    "number the rows (table.row=number)",
                )),
                None => Err((
                    format!("user {text}: the data set has no such user with a target at this position"),
                    "take the lists of this data set; table.row=number counts rows instead",
                )),
            };
        }
        whole(text).filter(|&row| (row as usize) < self.n_rows).ok_or_else(|| {
            (
                format!("row {text}: the data set has rows 0..{} at this position", self.n_rows),
                "is it the right position?",
            )
        })
    }

    fn item(&self, text: &str) -> Result<u32, String> {
        match &self.items {
            Some(items) => {
                let plain = text.strip_suffix(".0").unwrap_or(text);
                let found = items.get(text).or_else(|| items.get(plain)).copied();
                found.ok_or_else(|| format!("item {text}: the data set has no item of that id"))
            }
            None => whole(text)
                .filter(|&item| (item as usize) < self.n_items)
                .ok_or_else(|| format!("item {text}: the catalogue has items 0..{}", self.n_items)),
        }
    }

    fn distances(&self, n: usize, values: &[&str]) -> Result<Vec<f32>, String> {
        if self.given == Given::None {
            return Ok((0..n).map(|place| place as f32).collect());
        }
        if values.len() < n {
            return Err(format!("{n} items and {} numbers", values.len()));
        }
        let number = |text: &&str| text.parse::<f32>().map_err(|_| format!("`{text}` is no number"));
        let values = values[..n].iter().map(number).collect::<Result<Vec<f32>, _>>()?;
        if self.given == Given::Distance {
            return Ok(values);
        }
        let best = values.first().copied().unwrap_or(0.0);
        match values.windows(2).position(|w| w[1] > w[0]) {
            Some(at) => Err(format!(
                "score {} at place {} is above {} before it: best items come first",
                values[at + 1],
                at + 1,
                values[at]
            )),
            None => Ok(values.into_iter().map(|value| best - value).collect()),
        }
    }

    /// The lists; nothing at all is an error.
    pub(super) fn finish(self) -> Result<Lists> {
        self.lists.ok_or_else(|| super::bad(self.path, "has no rows", "get the file again, or name another"))
    }
}

/// A whole number, also as `12.0` or `1.2e1`.
fn whole(text: &str) -> Option<u32> {
    text.parse().ok().or_else(|| {
        let number: f64 = text.parse().ok()?;
        (number.fract() == 0.0 && (0.0..f64::from(u32::MAX)).contains(&number)).then_some(number as u32)
    })
}

/// Lists from outside, ready to be written as a bundle.
#[derive(Debug)]
pub struct Imported {
    /// One for each row, in any order.
    pub lists: Lists,
    /// What their distances are.
    pub confidence: Confidence,
    /// Vectors of the items `[N, D]`.
    pub embeddings: Option<Tensor>,
    /// Where they came from, for the manifest.
    pub origin: Value,
}

/// Writes the bundle `folder` from imported lists.
///
/// Whether histories were left out is found by looking at the lists. The rank of a target is its place in its list,
/// equal distances counted against it; unknown where the list does not hold it.
///
/// # Errors
/// What [`BundleWriter`] meets.
pub fn write_imported(
    folder: &Path,
    dataset: &Dataset,
    position: Position,
    teacher: &str,
    imported: Imported,
) -> Result<Manifest> {
    let Imported { mut lists, confidence, embeddings, origin } = imported;
    let index = TargetIndex::new(position.rows(dataset));
    let mut order: Vec<usize> = (0..lists.len()).collect();
    order.sort_unstable_by_key(|&i| lists.rows[i]);
    let mut histories = HistoryCheck::new(&index, dataset.n_items());
    let mut exclude_history = true;
    for i in order {
        let row = lists.rows[i] as usize;
        let (items, distances) = lists.padded(i);
        let len = list_len(items);
        exclude_history &= histories.look(row, &items[..len]).0.is_none();
        if let Some(place) = index.target(row).and_then(|target| items[..len].iter().position(|&item| item == target)) {
            let distance = distances[place];
            let rank = distances[..len].iter().filter(|&&other| other <= distance).count() as u32;
            (lists.true_ranks[i], lists.true_distances[i]) = (rank, distance);
        }
    }
    let all = lists.len() == index.len();
    let spec = Spec {
        dataset: DatasetIdentity::of(dataset, position),
        position,
        top_n: lists.top_n,
        exclude_history,
        target_may_appear: true,
        confidence,
        teacher: Teacher { name: teacher.to_owned(), config: origin },
        selection: if all { Value::Null } else { json!({"how": "the rows that the source has"}) },
    };
    let flush = Flush { rows: usize::MAX, time: Duration::MAX };
    match BundleWriter::open(folder, &spec, flush)? {
        Opened::Done(manifest) => Ok(*manifest),
        Opened::Writer(mut writer) => {
            if writer.next_batch() == 0 {
                writer.push(&lists)?;
            }
            writer.finish(embeddings.as_ref(), dataset)
        }
    }
}

//! Runs grouped into methods, and the checks that make their figures comparable.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
};

use anyo_core::{Error, Result, data::Dataset};
use serde_json::{Map, Value};

use super::{
    config::{BASELINE, TEACHER},
    past::{APPS, Past, Ranks},
};

/// Keys of a configuration that may differ between the seeds of one method: they change no figure, or follow the seed.
const FREE: [&str; 8] =
    ["seed", "run", "threads", "device", "data", "teacher_run", "train.log_every", "train.checkpoint"];

/// What a method is, which is also the order of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Teacher,
    /// Popularity and other rows without gradients.
    Untrained,
    Student,
    Distilled,
}

/// One row of the report.
#[derive(Debug, Clone)]
pub(super) struct Method {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// By seed, ascending; for a row without gradients the run that it stood in.
    pub(super) runs: Vec<Past>,
    /// `[seeds][rows]`; empty where the run did not keep them.
    pub(super) ranks: Vec<Vec<u32>>,
    /// The figures as the run told them, where there are no ranks.
    pub(super) quoted: Option<Value>,
}

impl Method {
    /// Whether it was trained with the seeds of its runs.
    pub(super) fn is_trained(&self) -> bool {
        self.kind != Kind::Untrained
    }
}

/// The test rows that all methods ranked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TestRows {
    /// User of each row, numbered as met.
    pub(super) users: Vec<u32>,
    /// Item of each row.
    pub(super) targets: Vec<u32>,
}

/// Names runs that were not named: after their application, and after their choice of student where it differs.
pub(super) fn name(runs: Vec<(Option<String>, Past)>) -> Vec<(String, Past)> {
    let label = |past: &Past| match past.app.as_str() {
        app if app == APPS[0] => BASELINE.to_owned(),
        app if app == APPS[1] => TEACHER.to_owned(),
        _ => past.choice("distill").unwrap_or("distilled").to_owned(),
    };
    let group = |past: &Past| if past.app == APPS[1] { "teacher" } else { "student" };
    let mut variants: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (_, past) in runs.iter().filter(|(name, _)| name.is_none()) {
        let choice = past.choice(group(past)).unwrap_or_default().to_owned();
        variants.entry(label(past)).or_default().insert(choice);
    }
    let own = |past: &Past| {
        let label = label(past);
        match past.choice(group(past)) {
            Some(choice) if variants.get(&label).is_some_and(|v| v.len() > 1) => format!("{label} {choice}"),
            _ => label,
        }
    };
    runs.into_iter()
        .map(|(name, past)| {
            let name = name.unwrap_or_else(|| own(&past));
            (name, past)
        })
        .collect()
}

/// Whether all runs ranked the same rows under the same rules.
///
/// # Errors
/// Both values of what differs.
pub(super) fn check_same(runs: &[(String, Past)]) -> Result<()> {
    let Some((_, first)) = runs.first() else {
        return Err(Error::invalid("there is no run to compare"));
    };
    let data = |past: &Past| {
        let name = past.config.get("dataset").and_then(|d| d["name"].as_str()).unwrap_or("unknown");
        format!("{name} {}", past.data_hash())
    };
    for (_, past) in runs {
        for (what, a, b) in [
            ("data set and split", data(first), data(past)),
            ("protocol", first.protocol.clone(), past.protocol.clone()),
        ] {
            if a != b {
                return Err(Error::Invalid {
                    message: format!(
                        "the runs differ in {what}: {} has {a}, {} has {b}",
                        first.path.display(),
                        past.path.display()
                    ),
                    hint: Some("only runs on the same data, split and protocol can be compared".into()),
                });
            }
        }
    }
    Ok(())
}

/// Groups runs by method, ascending by seed.
///
/// # Errors
/// The same seed twice, or runs of one method that differ in more than the seed.
pub(super) fn group(runs: Vec<(String, Past)>, note: &mut dyn FnMut(String)) -> Result<Vec<(String, Vec<Past>)>> {
    let mut methods: BTreeMap<String, Vec<Past>> = BTreeMap::new();
    for (name, past) in runs {
        methods.entry(name).or_default().push(past);
    }
    for (name, runs) in &mut methods {
        runs.sort_by_key(|past| past.seed);
        for pair in runs.windows(2) {
            let paths = format!("{} and {}", pair[0].path.display(), pair[1].path.display());
            let hint = || {
                let (a, b) = (pair[0].path.display(), pair[1].path.display());
                Some(format!("leave one out, or name them apart: 'named={{a: [\"{a}\"], b: [\"{b}\"]}}'"))
            };
            if pair[0].seed == pair[1].seed {
                let message = format!("`{name}` has seed {} twice: {paths}", pair[0].seed);
                return Err(Error::Invalid { message, hint: hint() });
            }
            let mut absent = Vec::new();
            let differs = difference(&pair[0].config, &pair[1].config, &mut absent);
            if !absent.is_empty() {
                note(format!("{paths} are of different versions: only one of them has the key {}", absent.join(", ")));
            }
            if let Some((key, a, b)) = differs {
                let message =
                    format!("the runs of `{name}` differ in more than the seed: {paths} have {key} {a} and {b}");
                return Err(Error::Invalid { message, hint: hint() });
            }
        }
    }
    Ok(methods.into_iter().collect())
}

/// The first key that differs and may not. A key that only one side has was added by a later version: it goes to `absent`.
fn difference(
    a: &Map<String, Value>,
    b: &Map<String, Value>,
    absent: &mut Vec<String>,
) -> Option<(String, String, String)> {
    fn walk(key: &str, a: &Value, b: &Value, absent: &mut Vec<String>) -> Option<(String, String, String)> {
        if a == b || FREE.contains(&key) {
            return None;
        }
        let (Value::Object(x), Value::Object(y)) = (a, b) else {
            return Some((key.to_owned(), a.to_string(), b.to_string()));
        };
        let keys: BTreeSet<&String> = x.keys().chain(y.keys()).collect();
        keys.into_iter().find_map(|k| {
            let path = if key.is_empty() { k.clone() } else { format!("{key}.{k}") };
            match (x.get(k), y.get(k)) {
                (Some(a), Some(b)) => walk(&path, a, b, absent),
                _ => {
                    absent.push(path);
                    None
                }
            }
        })
    }
    walk("", &Value::Object(a.clone()), &Value::Object(b.clone()), absent)
}

/// Reads every rank and adds the rows without gradients of the first baseline run, in the order of the report.
///
/// # Errors
/// Files that cannot be read, rows that are not those of the data set, runs that ranked other rows.
pub(super) fn load(
    groups: Vec<(String, Vec<Past>)>,
    dataset: &Dataset,
    note: &mut dyn FnMut(String),
) -> Result<(Vec<Method>, TestRows)> {
    let mut first: Option<(PathBuf, Ranks)> = None;
    let mut same = |past: &Past, ranks: &Ranks| check_rows(&mut first, past, ranks, dataset);
    let mut methods = Vec::new();
    for (name, runs) in groups {
        let mut all = Vec::new();
        for past in &runs {
            let ranks = past.ranks()?;
            same(past, &ranks)?;
            all.push(ranks.ranks);
        }
        let kind = match runs.first().map(|past| past.app.as_str()) {
            Some(app) if app == APPS[1] => Kind::Teacher,
            Some(app) if app == APPS[2] => Kind::Distilled,
            _ => Kind::Student,
        };
        methods.push(Method { name, kind, runs, ranks: all, quoted: None });
    }
    let baselines: Vec<Past> =
        methods.iter().flat_map(|method| &method.runs).filter(|past| past.app == APPS[0]).cloned().collect();
    // a run that kept the ranks, else the first
    let source = baselines.iter().find(|past| past.path.join("metrics/other_ranks.parquet").is_file());
    if let Some(past) = source.or(baselines.first()) {
        for (name, ranks) in past.others()? {
            if methods.iter().any(|method| method.name == name) {
                continue;
            }
            let quoted = match &ranks {
                Some(ranks) => {
                    same(past, ranks)?;
                    None
                }
                None => {
                    note(format!("{}: {name} has no ranks by user there, so it is not tested", past.path.display()));
                    Some(past.quoted(&name)?)
                }
            };
            let ranks = ranks.into_iter().map(|ranks| ranks.ranks).collect();
            methods.push(Method { name, kind: Kind::Untrained, runs: vec![past.clone()], ranks, quoted });
        }
    }
    // a stable sort: what has no gradients stays in the order of the run's table
    methods.sort_by_key(|method| method.kind);
    let Some((_, rows)) = first else { return Err(Error::invalid("there is no run to compare")) };
    Ok((methods, number(&rows, dataset)?))
}

/// The rows must be the data set's test rows, and the same in every run.
fn check_rows(first: &mut Option<(PathBuf, Ranks)>, past: &Past, ranks: &Ranks, dataset: &Dataset) -> Result<()> {
    let differ =
        |message: String| Error::Invalid { message, hint: Some("the files were changed; run it again".into()) };
    if ranks.ranks.len() != dataset.test.len() {
        let (got, want) = (ranks.ranks.len(), dataset.test.len());
        return Err(differ(format!("{} ranked {got} rows, the data set has {want} test rows", past.path.display())));
    }
    match first {
        None => *first = Some((past.path.clone(), ranks.clone())),
        Some((path, rows)) => {
            let pairs = rows.users.iter().zip(&rows.targets).zip(ranks.users.iter().zip(&ranks.targets));
            if let Some(row) = pairs.into_iter().position(|(a, b)| a != b) {
                return Err(differ(format!(
                    "row {row} is user {} and item {} in {}, but user {} and item {} in {}",
                    rows.users[row],
                    rows.targets[row],
                    path.display(),
                    ranks.users[row],
                    ranks.targets[row],
                    past.path.display()
                )));
            }
        }
    }
    Ok(())
}

fn number(rows: &Ranks, dataset: &Dataset) -> Result<TestRows> {
    let items: HashMap<&str, u32> = dataset.items.iter().zip(0..).map(|(item, at)| (item.id.as_str(), at)).collect();
    let mut seen: HashMap<&str, u32> = HashMap::new();
    let mut users = Vec::with_capacity(rows.users.len());
    for user in &rows.users {
        let next = seen.len() as u32;
        users.push(*seen.entry(user).or_insert(next));
    }
    let target = |id: &String| {
        let found = items.get(id.as_str()).copied();
        found.ok_or_else(|| Error::invalid(format!("item {id} of the runs is not in data set {}", dataset.name)))
    };
    Ok(TestRows { users, targets: rows.targets.iter().map(target).collect::<Result<_>>()? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn only_what_changes_figures_counts_as_a_difference() {
        let a = map(
            json!({"seed": 1, "run": {"dir": "a"}, "train": {"epochs": 3, "log_every": 1}, "student": {"lr": 0.1}}),
        );
        let b = map(
            json!({"seed": 2, "run": {"dir": "b"}, "train": {"epochs": 3, "log_every": 9}, "student": {"lr": 0.1}}),
        );
        let mut absent = Vec::new();
        assert_eq!(difference(&a, &b, &mut absent), None);
        assert!(absent.is_empty());
        let c = map(json!({"seed": 2, "run": {"dir": "b"}, "student": {}, "train": {"epochs": 4, "log_every": 9}}));
        let (key, x, y) = difference(&a, &c, &mut absent).unwrap();
        assert_eq!((key.as_str(), x.as_str(), y.as_str()), ("train.epochs", "3", "4"));
        assert_eq!(absent, ["student.lr"], "a key of another version is told, not refused");
    }
}

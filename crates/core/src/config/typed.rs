//! The typed end of loading: one report of everything that is wrong.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
};

use serde::de::DeserializeOwned;

use super::{
    Check, Problem, Report,
    extract::{self, Extracted, Found, What},
    load::Composed,
    suggest,
    value::origin_note,
};

/// Turns the tree into `C`.
///
/// # Errors
/// A [`Report`] of unknown keys, wrong types, missing values and values out of range, all together.
pub fn typed<C: DeserializeOwned + Check>(composed: &Composed) -> Result<C, Report> {
    let extracted = extract::all::<C>(&composed.tree, false);
    let mut problems = composed.problems.clone();
    problems.extend(found_problems(&extracted, composed));
    problems.extend(composed.missing_problem());
    problems.extend(range_problems(&extracted, composed));
    match extracted.value {
        Some(config) if problems.is_empty() => Ok(config),
        None if problems.is_empty() => {
            Err(Report { problems: vec![Problem::new("", "the configuration cannot be read")] })
        }
        _ => Err(Report { problems }),
    }
}

fn found_problems<C>(extracted: &Extracted<C>, composed: &Composed) -> Vec<Problem> {
    let recorder = &extracted.recorder;
    let known = recorder.known.borrow();
    let open = recorder.open.borrow();
    let mut problems = Vec::new();
    let mut told = BTreeSet::new();
    for found in &extracted.found {
        // A reference that could not be resolved has been reported under its key.
        if composed.problems.iter().any(|p| p.key == found.key && !p.key.is_empty())
            || composed.missing.contains(&found.key)
        {
            continue;
        }
        problems.push(match &found.what {
            What::Unknown => unknown(found, composed, &known, &mut told),
            What::Absent => {
                let note = origin_note(found.origin.as_deref());
                Problem::new(&found.key, format!("this key is missing{note}"))
            }
            What::Wrong { message, hint } => Problem {
                key: found.key.clone(),
                message: format!("{message}{}", origin_note(found.origin.as_deref())),
                hint: hint.clone(),
            },
        });
    }
    // `key=value` without + may not add to a map that takes any key.
    for word in &composed.pending {
        let parent = word.key.rsplit_once('.').map_or("", |(parent, _)| parent);
        let above = |path: &String| path == parent || path.is_empty() || parent.starts_with(&format!("{path}."));
        if told.contains(&word.key) || known.contains(&word.key) || !open.iter().any(above) {
            continue;
        }
        let near = siblings(composed, parent);
        let near = suggest::nearest(&word.key, near.iter().map(String::as_str));
        let add = format!("to add it write +{}", word.word);
        let hint = near.map_or(add.clone(), |near| format!("did you mean `{near}`? {add}"));
        problems.push(Problem { hint: Some(hint), ..Problem::new("", format!("unknown key `{}` ({word})", word.key)) });
    }
    problems
}

fn unknown(found: &Found, composed: &Composed, known: &BTreeSet<String>, told: &mut BTreeSet<String>) -> Problem {
    let inside = |key: &str| key == found.key || key.starts_with(&format!("{}.", found.key));
    let word = composed.overrides.iter().rev().find(|w| inside(&w.key));
    let (key, note) = match word {
        Some(word) => (word.key.clone(), format!(" ({word})")),
        None => (found.key.clone(), origin_note(found.origin.as_deref())),
    };
    told.insert(key.clone());
    let groups = composed.groups.iter().map(String::as_str);
    let hint = suggest::did_you_mean(&key, known.iter().map(String::as_str).chain(groups)).or_else(|| {
        let parent = found.key.rsplit_once('.').map_or("", |(parent, _)| parent);
        let prefix = if parent.is_empty() { String::new() } else { format!("{parent}.") };
        let names: Vec<&str> = known
            .iter()
            .filter_map(|k| k.strip_prefix(&prefix))
            .filter(|k| !k.contains('.') && !k.is_empty())
            .collect();
        let place = if parent.is_empty() { "keys".to_owned() } else { format!("keys of `{parent}`") };
        (!names.is_empty()).then(|| format!("{place}: {}", names.join(", ")))
    });
    Problem { hint, ..Problem::new("", format!("unknown key `{key}`{note}")) }
}

fn siblings(composed: &Composed, parent: &str) -> Vec<String> {
    let pending = |key: &str| composed.pending.iter().any(|w| w.key == key);
    let entries = composed.tree.at(parent).and_then(|v| v.entries()).unwrap_or_default();
    entries.iter().map(|(key, _)| super::value::join(parent, key)).filter(|key| !pending(key)).collect()
}

/// Ranges, with stand-ins for what could not be read: a range problem counts when two different sets of stand-ins give it.
fn range_problems<C: DeserializeOwned + Check>(extracted: &Extracted<C>, composed: &Composed) -> Vec<Problem> {
    let Some(config) = &extracted.value else { return Vec::new() };
    let stand_ins = extracted.recorder.stand_ins.borrow();
    let mut problems = if stand_ins.is_empty() {
        config.problems()
    } else {
        let second = extract::all::<C>(&composed.tree, true);
        let quiet = |config: Option<&C>| {
            config.and_then(|c| catch_unwind(AssertUnwindSafe(|| c.problems())).ok()).unwrap_or_default()
        };
        let second = quiet(second.value.as_ref());
        let mut first = quiet(Some(config));
        first.retain(|p| second.contains(p) && !stand_ins.contains(&p.key));
        first
    };
    for problem in &mut problems {
        let origin = composed.tree.at(&problem.key).filter(|_| !problem.key.is_empty());
        problem.message += &origin.map(super::value::Value::origin_note).unwrap_or_default();
    }
    problems
}

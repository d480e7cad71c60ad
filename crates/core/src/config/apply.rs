//! Value overrides on the merged files, left to right.

use std::sync::Arc;

use super::{
    Problem,
    layers::Layers,
    lexer::Parsed,
    overrides::{Op, Override},
    suggest,
    value::{Kind, Value},
};

/// Applies one override. `Ok(true)`: the key did not exist and the types must say whether it may.
pub(crate) fn apply(layers: &mut Layers, word: &Override) -> Result<bool, Problem> {
    let tree = layers.tree();
    let there = tree.at(&word.key);
    if word.op == Op::Delete {
        return delete(layers, &tree, there, word).map(|()| false);
    }
    let Some(Parsed::One(value)) = &word.value else { return Ok(false) };
    if let (Op::Add, Some(there)) = (word.op, there)
        && !mergeable(there, value)
    {
        let message = format!("`{}` is there already: {there}{} ({word})", word.key, there.origin_note());
        let hint = format!("to change it drop the +: {}={}", word.key, word.text);
        return Err(Problem { hint: Some(hint), ..Problem::new("", message) });
    }
    let origin: Arc<str> = word.to_string().into();
    let value = value.clone().with_origin(&origin);
    let root = match list_above(&tree, &word.key) {
        Some((list, inside)) => in_list(&tree, list, inside, value, word)?.wrap(list),
        None => {
            if there.is_none() {
                above(&tree, word)?;
            }
            value.wrap(&word.key)
        }
    };
    layers.merge(&origin, &root);
    Ok(there.is_none() && word.op == Op::Set)
}

/// `+key` on what is there: maps merge and lists replace, as in Hydra; a scalar must not be hidden.
fn mergeable(there: &Value, value: &Value) -> bool {
    matches!((&there.kind, &value.kind), (Kind::Map(_), Kind::Map(_)) | (Kind::List(_), Kind::List(_)))
}

fn delete(layers: &mut Layers, tree: &Value, there: Option<&Value>, word: &Override) -> Result<(), Problem> {
    let Some(there) = there else {
        let mut keys = Vec::new();
        tree.leaves("", &mut |path, _| keys.push(path.to_owned()));
        let hint = suggest::did_you_mean(&word.key, keys.iter().map(String::as_str));
        return Err(Problem { hint, ..Problem::new("", format!("unknown key `{}` ({word})", word.key)) });
    };
    match &word.value {
        Some(Parsed::One(wanted)) if wanted != there => {
            return Err(Problem::new("", format!("`{}` is {there}, not {wanted} ({word})", word.key)));
        }
        _ => {}
    }
    match list_above(tree, &word.key) {
        None => layers.remove(&word.key),
        Some(_) => {
            let hint = "write the whole list without it".to_owned();
            return Err(Problem {
                hint: Some(hint),
                ..Problem::new("", format!("an element cannot be taken out ({word})"))
            });
        }
    }
    Ok(())
}

/// The outermost list on the way to `key`, and the rest of the key.
fn list_above<'k>(tree: &Value, key: &'k str) -> Option<(&'k str, &'k str)> {
    key.match_indices('.')
        .map(|(i, _)| (&key[..i], &key[i + 1..]))
        .find(|(prefix, _)| matches!(tree.at(prefix), Some(Value { kind: Kind::List(_), .. })))
}

/// The list with one element changed.
fn in_list(tree: &Value, list: &str, inside: &str, value: Value, word: &Override) -> Result<Value, Problem> {
    let Some(found) = tree.at(list) else { return Ok(Value::map()) };
    let mut changed = found.clone();
    let mut place = &mut changed;
    let mut path = list.to_owned();
    for key in inside.split('.') {
        let length = if let Kind::List(items) = &place.kind { Some(items.len()) } else { None };
        let next = match &mut place.kind {
            Kind::List(items) => key.parse::<usize>().ok().and_then(|i| items.get_mut(i)),
            Kind::Map(entries) => {
                if !entries.iter().any(|(k, _)| k == key) {
                    entries.push((key.to_owned(), Value::map()));
                }
                entries.iter_mut().find(|(k, _)| k == key).map(|(_, v)| v)
            }
            _ => None,
        };
        place = next.ok_or_else(|| match length {
            Some(n) => Problem::new("", format!("`{path}` is a list of {n}; it has no element `{key}` ({word})")),
            None => Problem::new("", format!("`{path}` has no keys ({word})")),
        })?;
        path = super::value::join(&path, key);
    }
    *place = value;
    Ok(changed)
}

/// Nothing may be added below a scalar.
fn above(tree: &Value, word: &Override) -> Result<(), Problem> {
    for (i, _) in word.key.match_indices('.') {
        let prefix = &word.key[..i];
        match tree.at(prefix) {
            Some(Value { kind: Kind::Map(_) | Kind::Null, .. }) | None => {}
            Some(_) if word.op == Op::Force => {}
            Some(value) => {
                let message = format!("`{prefix}` is {value}, not a group of keys ({word})");
                return Err(Problem::new("", message));
            }
        }
    }
    Ok(())
}

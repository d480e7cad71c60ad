//! From the tree to typed structs, with every problem at once.
//!
//! figment and serde stop at the first error and lose the key inside tagged enums. This deserializer knows at each value
//! what is wanted, so it notes the problem, hands out a stand-in of the right type and goes on.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use serde::de::{self, Deserialize, DeserializeSeed};

use super::{
    decode::Node,
    value::{Value, got},
};

/// A problem at a key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    pub(crate) key: String,
    pub(crate) what: What,
    pub(crate) origin: Option<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    /// No such field.
    Unknown,
    /// A field that has no default is nowhere.
    Absent,
    /// Wrong type or refused value.
    Wrong { message: String, hint: Option<String> },
}

/// What was learnt while reading the tree.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    found: RefCell<Vec<Found>>,
    /// Keys of all structs met.
    pub(crate) known: RefCell<BTreeSet<String>>,
    /// Maps that take any key.
    pub(crate) open: RefCell<BTreeSet<String>>,
    /// Keys whose value is replaced by a stand-in, with what is wrong.
    spoiled: BTreeMap<String, Option<Found>>,
    /// Keys that got a stand-in in this pass.
    pub(crate) stand_ins: RefCell<BTreeSet<String>>,
    second: Cell<bool>,
}

/// The outcome of [`all`]: the typed value may hold stand-ins when there are problems.
pub(crate) struct Extracted<C> {
    pub(crate) value: Option<C>,
    pub(crate) found: Vec<Found>,
    pub(crate) recorder: Recorder,
}

/// Reads `C`, collecting every problem. `second` takes other stand-ins, so that a caller can tell what depends on them.
pub(crate) fn all<C: de::DeserializeOwned>(root: &Value, second: bool) -> Extracted<C> {
    let mut recorder = Recorder::default();
    recorder.second.set(second);
    // A field that is absent or refused by its own type shows only as an error: note it, spoil the key, read again.
    loop {
        recorder.found.take();
        recorder.stand_ins.take();
        let result = C::deserialize(Node::new(root, String::new(), &recorder));
        let value = match result {
            Ok(value) => Some(value),
            Err(failure) => {
                let (key, found) = failure.into_found(root);
                if !recorder.spoiled.contains_key(&key) && recorder.spoiled.len() < 500 {
                    recorder.spoiled.insert(key, Some(found));
                    continue;
                }
                // The stand-in is refused too: nothing more can be learnt here.
                recorder.found.borrow_mut().push(found);
                None
            }
        };
        let mut found = recorder.found.take();
        found.extend(recorder.spoiled.values().flatten().cloned());
        dedup(&mut found);
        return Extracted { value, found, recorder };
    }
}

/// Reads one value; all problems become one text.
pub(crate) fn once<'de, S: DeserializeSeed<'de>>(root: &'de Value, seed: S) -> Result<S::Value, String> {
    let recorder = Recorder::default();
    // The recorder borrows nothing from 'de, so the node may live shorter than the tree.
    let result = seed.deserialize(Node::new(root, String::new(), &recorder));
    let mut found = recorder.found.take();
    match result {
        Ok(value) if found.is_empty() => return Ok(value),
        Ok(_) => {}
        Err(failure) => found.push(failure.into_found(root).1),
    }
    dedup(&mut found);
    let text: Vec<String> = found.iter().map(Found::to_string).collect();
    Err(text.join("; "))
}

fn dedup(found: &mut Vec<Found>) {
    let mut seen = BTreeSet::new();
    found.retain(|f| seen.insert(f.key.clone()));
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Unknown => write!(f, "unknown key `{}`", self.key),
            What::Absent => write!(f, "{}: this key is missing", self.key),
            What::Wrong { message, .. } if self.key.is_empty() => f.write_str(message),
            What::Wrong { message, .. } => write!(f, "{}: {message}", self.key),
        }
    }
}

impl Recorder {
    pub(crate) fn unknown(&self, key: String, value: &Value) {
        self.found.borrow_mut().push(Found { key, what: What::Unknown, origin: value.origin.clone() });
    }

    pub(crate) fn wrong(&self, key: &str, wanted: &str, value: &Value, hint: Option<String>) {
        let message = format!("expected {wanted}, got {}", got(value));
        let what = What::Wrong { message, hint };
        self.found.borrow_mut().push(Found { key: key.to_owned(), what, origin: value.origin.clone() });
        self.stand_in(key);
    }

    pub(crate) fn stand_in(&self, key: &str) {
        self.stand_ins.borrow_mut().insert(key.to_owned());
    }

    pub(crate) fn is_spoiled(&self, key: &str) -> bool {
        self.spoiled.contains_key(key)
    }

    /// Spoiled fields of the struct at `path` that the tree does not hold.
    pub(crate) fn spoiled_fields(&self, path: &str, fields: &'static [&'static str]) -> Vec<&'static str> {
        let is_spoiled = |field: &&&str| self.is_spoiled(&super::value::join(path, field));
        fields.iter().filter(is_spoiled).copied().collect()
    }

    pub(crate) fn second(&self) -> bool {
        self.second.get()
    }
}

/// An error on its way up: the key is filled in where it is known.
#[derive(Debug)]
pub(crate) struct Failure {
    key: Option<String>,
    absent: Option<&'static str>,
    message: String,
}

impl Failure {
    pub(crate) fn at(mut self, key: &str) -> Self {
        self.key.get_or_insert_with(|| key.to_owned());
        self
    }

    fn into_found(self, root: &Value) -> (String, Found) {
        let place = self.key.unwrap_or_default();
        let (key, what) = match self.absent {
            Some(field) => (super::value::join(&place, field), What::Absent),
            None => (place.clone(), What::Wrong { message: self.message, hint: None }),
        };
        let origin = root.at(&place).and_then(|v| v.origin.clone());
        (key.clone(), Found { key, what, origin })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl de::Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { key: None, absent: None, message: message.to_string() }
    }
    fn missing_field(field: &'static str) -> Self {
        Self { key: None, absent: Some(field), message: format!("missing field `{field}`") }
    }
}

/// Reads a whole document strictly: for configurations saved by this tool.
///
/// # Errors
/// All problems in one text.
pub(crate) fn strict<C: for<'de> Deserialize<'de>>(root: &Value) -> Result<C, String> {
    let extracted = all::<C>(root, false);
    match extracted.value {
        Some(value) if extracted.found.is_empty() => Ok(value),
        _ => Err(extracted.found.iter().map(Found::to_string).collect::<Vec<_>>().join("; ")),
    }
}

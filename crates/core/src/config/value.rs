//! The untyped tree between the YAML files and the typed structs: ordered, and every value knows where it came from.

use std::{fmt, sync::Arc};

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value of the configuration with its origin; equality ignores the origin.
#[derive(Debug, Clone)]
pub struct Value {
    /// What it is.
    pub kind: Kind,
    /// The file or override it came from: `conf/student/sasrec.yaml` or ``override 2: `seed=1` ``.
    pub origin: Option<Arc<str>>,
}

/// The kinds of value that YAML and the override grammar share.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A number with a point or exponent, `inf`, `nan`.
    Float(f64),
    /// Text.
    Str(String),
    /// `[a, b]`
    List(Vec<Value>),
    /// `{a: 1}` in the order written.
    Map(Vec<(String, Value)>),
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

impl From<Kind> for Value {
    fn from(kind: Kind) -> Self {
        Self { kind, origin: None }
    }
}

impl Value {
    /// An empty map.
    pub fn map() -> Self {
        Kind::Map(Vec::new()).into()
    }

    /// Text.
    pub fn text(text: impl Into<String>) -> Self {
        Kind::Str(text.into()).into()
    }

    /// The text, when it is text.
    pub fn as_str(&self) -> Option<&str> {
        match &self.kind {
            Kind::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The entries, when it is a map.
    pub fn entries(&self) -> Option<&[(String, Value)]> {
        match &self.kind {
            Kind::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// Whether this is the mark of a value that must be given.
    pub fn is_missing(&self) -> bool {
        self.as_str() == Some("???")
    }

    /// The value at a dotted path (`layers.0` is an element); the empty path is the value itself.
    pub fn at(&self, path: &str) -> Option<&Value> {
        if path.is_empty() {
            return Some(self);
        }
        path.split('.').try_fold(self, |value, key| value.child(key))
    }

    fn child(&self, key: &str) -> Option<&Value> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            Kind::List(items) => items.get(key.parse::<usize>().ok()?),
            _ => None,
        }
    }

    /// Takes out the value at a dotted path of map keys.
    pub fn remove(&mut self, path: &str) -> Option<Value> {
        let (head, rest) = path.split_once('.').map_or((path, None), |(h, r)| (h, Some(r)));
        let Kind::Map(entries) = &mut self.kind else { return None };
        let i = entries.iter().position(|(k, _)| k == head)?;
        match rest {
            None => Some(entries.remove(i).1),
            Some(rest) => entries[i].1.remove(rest),
        }
    }

    /// This value under a dotted path: `wrap("a.b")` gives `{a: {b: self}}`.
    pub fn wrap(self, path: &str) -> Self {
        if path.is_empty() {
            return self;
        }
        path.rsplit('.').fold(self, |value, key| Kind::Map(vec![(key.to_owned(), value)]).into())
    }

    /// Calls `visit(path, leaf)` for every value that is no map or an empty one.
    pub fn leaves<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a Value)) {
        match &self.kind {
            Kind::Map(entries) if !entries.is_empty() => {
                for (key, value) in entries {
                    value.leaves(&join(path, key), visit);
                }
            }
            _ => visit(path, self),
        }
    }

    /// `self` with this origin wherever there is none yet.
    pub(crate) fn with_origin(mut self, origin: &Arc<str>) -> Self {
        self.stamp(origin);
        self
    }

    fn stamp(&mut self, origin: &Arc<str>) {
        self.origin.get_or_insert_with(|| origin.clone());
        match &mut self.kind {
            Kind::List(items) => items.iter_mut().for_each(|v| v.stamp(origin)),
            Kind::Map(entries) => entries.iter_mut().for_each(|(_, v)| v.stamp(origin)),
            _ => {}
        }
    }

    /// ` (from conf/x.yaml)`, `` (override 2: `a=1`)`` or nothing.
    pub(crate) fn origin_note(&self) -> String {
        origin_note(self.origin.as_deref())
    }
}

pub(crate) fn origin_note(origin: Option<&str>) -> String {
    match origin {
        Some(o) if o.starts_with("override ") => format!(" ({o})"),
        Some(o) => format!(" (from {o})"),
        None => String::new(),
    }
}

/// `path.key`, or `key` at the root.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// As a person reads it in a message: text in double quotes, maps and lists shortened.
pub(crate) fn got(value: &Value) -> String {
    let text = match &value.kind {
        Kind::Str(text) => return format!("{text:?}"),
        Kind::Map(entries) => {
            let keys: Vec<&str> = entries.iter().map(|(k, _)| k.as_str()).collect();
            return format!("the keys {{{}}}", keys.join(", "));
        }
        _ => value.to_string(),
    };
    if text.chars().count() > 60 { format!("{}…", text.chars().take(57).collect::<String>()) } else { text }
}

/// As an override value: what is printed lexes back to the same value.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Null => f.write_str("null"),
            Kind::Bool(b) => write!(f, "{b}"),
            Kind::Int(i) => write!(f, "{i}"),
            Kind::Float(x) if x.is_nan() => f.write_str("nan"),
            Kind::Float(x) => write!(f, "{x:?}"),
            // The same text must also survive inside a list or map, hence the first condition.
            Kind::Str(text) if text.is_empty() || text.starts_with(':') || text.contains('\\') => quote(text, f),
            Kind::Str(text) => match super::lexer::parse(text) {
                Ok(super::lexer::Parsed::One(v)) if v == *self => f.write_str(text),
                _ => quote(text, f),
            },
            Kind::List(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
            Kind::Map(entries) => {
                f.write_str("{")?;
                for (i, (key, value)) in entries.iter().enumerate() {
                    f.write_str(if i > 0 { ", " } else { "" })?;
                    if key.chars().all(|c| c.is_alphanumeric() || c == '_') && !key.is_empty() {
                        f.write_str(key)?;
                    } else {
                        quote(key, f)?;
                    }
                    write!(f, ": {value}")?;
                }
                f.write_str("}")
            }
        }
    }
}

fn quote(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E: de::Error>(self, v: bool) -> Result<Value, E> {
        Ok(Kind::Bool(v).into())
    }
    fn visit_i64<E: de::Error>(self, v: i64) -> Result<Value, E> {
        Ok(Kind::Int(v.into()).into())
    }
    fn visit_u64<E: de::Error>(self, v: u64) -> Result<Value, E> {
        Ok(Kind::Int(v.into()).into())
    }
    fn visit_i128<E: de::Error>(self, v: i128) -> Result<Value, E> {
        Ok(Kind::Int(v).into())
    }
    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Value, E> {
        Ok(Kind::Float(v).into())
    }
    fn visit_str<E: de::Error>(self, v: &str) -> Result<Value, E> {
        Ok(Value::text(v))
    }
    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Kind::Null.into())
    }
    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Kind::Null.into())
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Kind::List(items).into())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Kind::Map(entries).into())
    }
}

//! Merging: one figment provider for each file or override, so that every value remembers where it came from.

use std::{collections::HashMap, sync::Arc};

use figment::{
    Figment, Metadata, Profile, Provider,
    value::{Dict, Empty, Map, Num, Tag, Value as FigmentValue},
};

use super::value::{Kind, Value, join};

/// The layers merged so far.
#[derive(Clone, Default)]
pub(crate) struct Layers {
    figment: Figment,
    /// figment sorts keys; this is the order in which they were first written.
    order: HashMap<String, usize>,
}

/// One file or override.
struct Layer {
    name: String,
    dict: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }
    fn data(&self) -> figment::error::Result<Map<Profile, Dict>> {
        // Tuples would land in the global profile and beat every later layer.
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}

impl Layers {
    /// Merges `root` (a map) on top: maps merge, everything else replaces.
    pub(crate) fn merge(&mut self, name: &str, root: &Value) {
        let Kind::Map(entries) = &root.kind else { return };
        self.remember("", entries);
        let layer = Layer { name: name.to_owned(), dict: dict(entries) };
        self.figment = std::mem::take(&mut self.figment).merge(layer);
    }

    fn remember(&mut self, path: &str, entries: &[(String, Value)]) {
        for (key, value) in entries {
            let path = join(path, key);
            if let Kind::Map(inner) = &value.kind {
                self.remember(&path, inner);
            }
            let next = self.order.len();
            self.order.entry(path).or_insert(next);
        }
    }

    /// Takes out a dotted path. figment cannot delete: the tree is edited and merged again, origin by origin.
    pub(crate) fn remove(&mut self, path: &str) {
        let mut tree = self.tree();
        tree.remove(path);
        self.figment = Figment::new();
        let mut by_origin: Vec<(Arc<str>, Value)> = Vec::new();
        tree.leaves("", &mut |path, leaf| {
            let origin = leaf.origin.clone().unwrap_or_else(|| "default".into());
            let i = by_origin.iter().position(|(o, _)| *o == origin).unwrap_or_else(|| {
                by_origin.push((origin, Value::map()));
                by_origin.len() - 1
            });
            insert(&mut by_origin[i].1, path, leaf.clone());
        });
        for (origin, layer) in by_origin {
            self.merge(&origin, &layer);
        }
    }

    /// Everything merged, in the order first written.
    pub(crate) fn tree(&self) -> Value {
        let data =
            self.figment.data().ok().and_then(|mut profiles| profiles.remove(&Profile::Default)).unwrap_or_default();
        let mut names = HashMap::new();
        self.map(data, "", &mut names)
    }

    fn map(&self, dict: Dict, path: &str, names: &mut HashMap<Tag, Arc<str>>) -> Value {
        let mut entries: Vec<(usize, String, Value)> = dict
            .into_iter()
            .map(|(key, value)| {
                let path = join(path, &key);
                let value = self.value(value, &path, names);
                (self.order.get(&path).copied().unwrap_or(usize::MAX), key, value)
            })
            .collect();
        entries.sort_by_key(|(rank, ..)| *rank);
        Kind::Map(entries.into_iter().map(|(_, key, value)| (key, value)).collect()).into()
    }

    fn value(&self, value: FigmentValue, path: &str, names: &mut HashMap<Tag, Arc<str>>) -> Value {
        let tag = value.tag();
        let name = names.get(&tag).cloned().or_else(|| {
            let name: Arc<str> = self.figment.get_metadata(tag)?.name.as_ref().into();
            names.insert(tag, name.clone());
            Some(name)
        });
        let kind = match value {
            FigmentValue::String(_, s) => Kind::Str(s),
            FigmentValue::Char(_, c) => Kind::Str(c.into()),
            FigmentValue::Bool(_, b) => Kind::Bool(b),
            FigmentValue::Num(_, n) => match n {
                Num::F32(_) | Num::F64(_) => Kind::Float(n.to_f64().unwrap_or(f64::NAN)),
                _ => n.to_i128().map_or_else(|| Kind::Float(f64::NAN), Kind::Int),
            },
            FigmentValue::Empty(..) => Kind::Null,
            FigmentValue::Dict(_, dict) => self.map(dict, path, names).kind,
            FigmentValue::Array(_, items) => {
                let items = items.into_iter().enumerate();
                Kind::List(items.map(|(i, v)| self.value(v, &join(path, &i.to_string()), names)).collect())
            }
        };
        Value { kind, origin: name }
    }
}

/// Puts `leaf` at a dotted path, making maps on the way.
pub(crate) fn insert(root: &mut Value, path: &str, leaf: Value) {
    let (head, rest) = path.split_once('.').map_or((path, None), |(h, r)| (h, Some(r)));
    if !matches!(root.kind, Kind::Map(_)) {
        root.kind = Kind::Map(Vec::new());
    }
    let Kind::Map(entries) = &mut root.kind else { return };
    let i = match entries.iter().position(|(k, _)| k == head) {
        Some(i) => i,
        None => {
            entries.push((head.to_owned(), Value::map()));
            entries.len() - 1
        }
    };
    match rest {
        None => entries[i].1 = leaf,
        Some(rest) => insert(&mut entries[i].1, rest, leaf),
    }
}

fn dict(entries: &[(String, Value)]) -> Dict {
    entries.iter().map(|(key, value)| (key.clone(), to_figment(value))).collect()
}

fn to_figment(value: &Value) -> FigmentValue {
    let tag = Tag::Default;
    match &value.kind {
        Kind::Null => FigmentValue::Empty(tag, Empty::Unit),
        Kind::Bool(b) => FigmentValue::Bool(tag, *b),
        Kind::Int(i) => FigmentValue::Num(tag, Num::I128(*i)),
        Kind::Float(x) => FigmentValue::Num(tag, Num::F64(*x)),
        Kind::Str(s) => FigmentValue::String(tag, s.clone()),
        Kind::List(items) => FigmentValue::Array(tag, items.iter().map(to_figment).collect()),
        Kind::Map(entries) => FigmentValue::Dict(tag, dict(entries)),
    }
}

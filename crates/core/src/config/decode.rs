//! The deserializer of [`super::extract`]: one node of the tree with its key.

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::{
    extract::{Failure, Recorder},
    suggest, tagged,
    value::{Kind, Value, join},
};

/// One value to be read, or a stand-in when `value` is `None`.
pub(crate) struct Node<'a> {
    value: Option<&'a Value>,
    path: String,
    recorder: &'a Recorder,
    /// The value is a [`tagged::Tagged`] enum.
    tagged: bool,
    /// A key that has been read already: the tag.
    skip: Option<&'static str>,
}

impl<'a> Node<'a> {
    pub(crate) fn new(value: &'a Value, path: String, recorder: &'a Recorder) -> Self {
        let usable = !value.is_missing() && !recorder.is_spoiled(&path);
        if !usable {
            recorder.stand_in(&path);
        }
        Self { value: usable.then_some(value), path, recorder, tagged: false, skip: None }
    }

    fn stand_in(path: String, recorder: &'a Recorder) -> Self {
        recorder.stand_in(&path);
        Self { value: None, path, recorder, tagged: false, skip: None }
    }

    /// Notes that something else was wanted.
    fn wrong(&self, wanted: &str, hint: Option<String>) {
        if let Some(value) = self.value {
            self.recorder.wrong(&self.path, wanted, value, hint);
        }
    }

    fn whole(&self, low: i128, high: i128) -> i128 {
        match self.value.map(|v| &v.kind) {
            Some(Kind::Int(n)) if (low..=high).contains(n) => return *n,
            Some(Kind::Int(_)) if low == 0 => self.wrong(&format!("a whole number from 0 to {high}"), None),
            Some(Kind::Int(_)) => self.wrong(&format!("a whole number from {low} to {high}"), None),
            Some(_) => self.wrong("a whole number", None),
            None => {}
        }
        if self.recorder.second() { 97.clamp(low, high) } else { 1 }
    }

    fn number(&self) -> f64 {
        match self.value.map(|v| &v.kind) {
            Some(Kind::Int(n)) => return *n as f64,
            Some(Kind::Float(x)) => return *x,
            Some(_) => self.wrong("a number", None),
            None => {}
        }
        if self.recorder.second() { 0.37 } else { 1.0 }
    }

    fn text(&self, wanted: &str) -> String {
        match self.value.map(|v| &v.kind) {
            Some(Kind::Str(text)) => return text.clone(),
            Some(Kind::Int(_) | Kind::Float(_) | Kind::Bool(_)) => {
                let value = self.value.map(Value::to_string).unwrap_or_default();
                let key = &self.path;
                self.wrong(
                    wanted,
                    Some(format!("text in quotes: {key}='\"{value}\"' on the command line, \"{value}\" in YAML")),
                );
            }
            Some(_) => self.wrong(wanted, None),
            None => {}
        }
        if self.recorder.second() { "b" } else { "a" }.to_owned()
    }

    fn list(&self, wanted: &str) -> Option<&'a [Value]> {
        match self.value.map(|v| &v.kind) {
            Some(Kind::List(items)) => return Some(items),
            Some(_) => self.wrong(wanted, None),
            None => {}
        }
        None
    }

    fn entries(&self, wanted: &str) -> Option<&'a [(String, Value)]> {
        match self.value.map(|v| &v.kind) {
            Some(Kind::Map(entries)) => return Some(entries),
            Some(_) => self.wrong(wanted, None),
            None => {}
        }
        None
    }

    /// One of `names`; the problem is noted at `key`.
    fn pick(&self, names: &'static [&'static str], value: Option<&Value>, key: &str) -> String {
        match value.map(|v| (v, v.as_str())) {
            Some((_, Some(text))) if names.contains(&text) => return text.to_owned(),
            Some((value, text)) => {
                let hint = text.and_then(|t| suggest::did_you_mean(t, names.iter().copied()));
                self.recorder.wrong(key, &format!("one of {}", names.join(", ")), value, hint);
            }
            None => {}
        }
        let name = if self.recorder.second() { names.last() } else { names.first() };
        name.copied().unwrap_or_default().to_owned()
    }
}

macro_rules! whole_numbers {
    ($($method:ident $visit:ident $type:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            let n = self.whole(<$type>::MIN as i128, <$type>::MAX as i128);
            visitor.$visit(n as $type).map_err(|e: Failure| e.at(&self.path))
        }
    )*};
}

macro_rules! texts {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            visitor.visit_string(self.text("text")).map_err(|e: Failure| e.at(&self.path))
        }
    )*};
}

impl<'de, 'a> Deserializer<'de> for Node<'a> {
    type Error = Failure;

    whole_numbers!(
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_i128 visit_i128 i128, deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64
    );
    texts!(deserialize_str deserialize_string deserialize_char deserialize_bytes deserialize_byte_buf deserialize_identifier);

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_f64(self.number()).map_err(|e: Failure| e.at(&self.path))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let value = match self.value.map(|v| &v.kind) {
            Some(Kind::Bool(b)) => *b,
            _ => {
                self.wrong("true or false", None);
                self.recorder.second()
            }
        };
        visitor.visit_bool(value).map_err(|e: Failure| e.at(&self.path))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.value.map(|v| &v.kind) {
            None | Some(Kind::Null) => visitor.visit_none(),
            Some(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        if !matches!(self.value.map(|v| &v.kind), None | Some(Kind::Null)) {
            self.wrong("null", None);
        }
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        if name == tagged::MAGIC {
            self.tagged = true;
            return visitor.visit_some(self);
        }
        let path = self.path.clone();
        visitor.visit_newtype_struct(self).map_err(|e| e.at(&path))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let items = self.list("a list").unwrap_or_default();
        let elements =
            Elements { items: items.iter(), path: &self.path, index: 0, recorder: self.recorder, stand_ins: 0 };
        visitor.visit_seq(elements).map_err(|e| e.at(&self.path))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Failure> {
        let wanted = format!("a list of {len}");
        let items = self.list(&wanted).filter(|items| {
            let fits = items.len() == len;
            if !fits {
                self.wrong(&wanted, None);
            }
            fits
        });
        let stand_ins = if items.is_none() { len } else { 0 };
        let items = items.unwrap_or_default().iter();
        let elements = Elements { items, path: &self.path, index: 0, recorder: self.recorder, stand_ins };
        visitor.visit_seq(elements).map_err(|e| e.at(&self.path))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.recorder.open.borrow_mut().insert(self.path.clone());
        let entries = self.entries("keys with values").unwrap_or_default();
        let entries = entries.iter().filter(|(k, _)| Some(k.as_str()) != self.skip).map(|(k, v)| (k.as_str(), Some(v)));
        visitor.visit_map(Entries::new(entries.collect(), &self.path, self.recorder)).map_err(|e| e.at(&self.path))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.recorder.known.borrow_mut().extend(fields.iter().map(|field| join(&self.path, field)));
        let wanted = format!("the keys {}", fields.join(", "));
        let mut read: Vec<(&str, Option<&Value>)> = Vec::new();
        match self.entries(&wanted) {
            Some(entries) => {
                for (key, value) in entries.iter().filter(|(k, _)| Some(k.as_str()) != self.skip) {
                    if fields.contains(&key.as_str()) {
                        read.push((key, Some(value)));
                    } else {
                        self.recorder.unknown(join(&self.path, key), value);
                    }
                }
                for field in self.recorder.spoiled_fields(&self.path, fields) {
                    if read.iter().all(|(key, _)| *key != field) {
                        read.push((field, None));
                    }
                }
            }
            None => read.extend(fields.iter().map(|field| (*field, None))),
        }
        visitor.visit_map(Entries::new(read, &self.path, self.recorder)).map_err(|e| e.at(&self.path))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let path = self.path.clone();
        let variant = if self.tagged {
            let key = join(&path, name);
            self.recorder.known.borrow_mut().insert(key.clone());
            let tag = self.entries(&format!("keys with `{name}`, one of {}", variants.join(", "))).map(|entries| {
                let tag = entries.iter().find(|(k, _)| k == name).map(|(_, v)| v);
                tag.ok_or_else(|| {
                    let failure: Failure = de::Error::missing_field(name);
                    failure.at(&path)
                })
            });
            let tag = match tag {
                Some(Err(failure)) if !self.recorder.is_spoiled(&key) => return Err(failure),
                Some(Ok(tag)) if !tag.is_missing() && !self.recorder.is_spoiled(&key) => Some(tag),
                _ => None,
            };
            let known = tag.is_some_and(|t| t.as_str().is_some_and(|t| variants.contains(&t)));
            let variant = self.pick(variants, tag, &key);
            // Of an unknown variant the other keys say nothing.
            let body = Node {
                value: self.value.filter(|_| known),
                path: path.clone(),
                recorder: self.recorder,
                tagged: false,
                skip: Some(name),
            };
            Variant { name: variant, body }
        } else if let Some(Kind::Map(entries)) = self.value.map(|v| &v.kind)
            && let [(key, value)] = entries.as_slice()
            && variants.contains(&key.as_str())
        {
            Variant { name: key.clone(), body: Node::new(value, join(&path, key), self.recorder) }
        } else {
            let variant = self.pick(variants, self.value, &path);
            // A plain name has no body; whether the name is a stand-in has been noted already.
            let body = Node { value: None, path: path.clone(), recorder: self.recorder, tagged: false, skip: None };
            Variant { name: variant, body }
        };
        visitor.visit_enum(variant).map_err(|e| e.at(&path))
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let path = self.path.clone();
        let Some(value) = self.value else { return visitor.visit_unit() };
        match &value.kind {
            Kind::Null => visitor.visit_unit(),
            Kind::Bool(b) => visitor.visit_bool(*b),
            Kind::Int(n) => match (i64::try_from(*n), u64::try_from(*n)) {
                (Ok(n), _) => visitor.visit_i64(n),
                (_, Ok(n)) => visitor.visit_u64(n),
                _ => visitor.visit_i128(*n),
            },
            Kind::Float(x) => visitor.visit_f64(*x),
            Kind::Str(text) => visitor.visit_str(text),
            Kind::List(_) => return self.deserialize_seq(visitor),
            Kind::Map(_) => return self.deserialize_map(visitor),
        }
        .map_err(|e: Failure| e.at(&path))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_unit()
    }
}

struct Elements<'a, 'p> {
    items: std::slice::Iter<'a, Value>,
    path: &'p str,
    index: usize,
    recorder: &'a Recorder,
    stand_ins: usize,
}

impl<'de> SeqAccess<'de> for Elements<'_, '_> {
    type Error = Failure;
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        let path = join(self.path, &self.index.to_string());
        self.index += 1;
        let node = match self.items.next() {
            Some(item) => Node::new(item, path.clone(), self.recorder),
            None if self.stand_ins >= self.index => Node::stand_in(path.clone(), self.recorder),
            None => return Ok(None),
        };
        seed.deserialize(node).map(Some).map_err(|e| e.at(&path))
    }
}

struct Entries<'a, 'p> {
    entries: std::vec::IntoIter<(&'a str, Option<&'a Value>)>,
    current: Option<(&'a str, Option<&'a Value>)>,
    path: &'p str,
    recorder: &'a Recorder,
}

impl<'a, 'p> Entries<'a, 'p> {
    fn new(entries: Vec<(&'a str, Option<&'a Value>)>, path: &'p str, recorder: &'a Recorder) -> Self {
        Self { entries: entries.into_iter(), current: None, path, recorder }
    }
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = Failure;
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        self.current = self.entries.next();
        let Some((key, _)) = self.current else { return Ok(None) };
        let path = join(self.path, key);
        let deserializer: de::value::StrDeserializer<'_, Failure> = key.into_deserializer();
        seed.deserialize(deserializer).map(Some).map_err(|e| e.at(&path))
    }
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        let (key, value) = self.current.unwrap_or_default();
        let path = join(self.path, key);
        let node = match value {
            Some(value) => Node::new(value, path.clone(), self.recorder),
            None => Node::stand_in(path.clone(), self.recorder),
        };
        seed.deserialize(node).map_err(|e| e.at(&path))
    }
}

struct Variant<'a> {
    name: String,
    body: Node<'a>,
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Failure;
    type Variant = Node<'a>;
    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Node<'a>), Failure> {
        let deserializer: de::value::StringDeserializer<Failure> = self.name.into_deserializer();
        Ok((seed.deserialize(deserializer)?, self.body))
    }
}

impl<'de> VariantAccess<'de> for Node<'_> {
    type Error = Failure;
    fn unit_variant(self) -> Result<(), Failure> {
        Ok(())
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Failure> {
        seed.deserialize(self)
    }
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_tuple(len, visitor)
    }
    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_struct("", fields, visitor)
    }
}

//! JSON values of a weight file's header, read without keeping what no header has.
//!
//! A `serde_json::Value` of a list takes sixteen times the bytes that the list has in the file. Here nothing is kept but
//! short lists of whole numbers and texts; the rest is read over.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Most numbers of a list; tensors have a handful of axes.
const LONGEST: usize = 64;

/// Any value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Loose {
    Text(String),
    Number(u64),
    /// Whole numbers, at most [`LONGEST`].
    Numbers(Vec<u64>),
    Other,
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor)
    }
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Loose;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Loose, E> {
        Ok(Loose::Number(number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_unit<E>(self) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Loose, E> {
        Ok(Loose::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Loose, A::Error> {
        let mut numbers = Vec::new();
        while let Some(element) = seq.next_element::<Loose>()? {
            match element {
                Loose::Number(number) if numbers.len() < LONGEST => numbers.push(number),
                _ => {
                    while seq.next_element::<IgnoredAny>()?.is_some() {}
                    return Ok(Loose::Other);
                }
            }
        }
        Ok(Loose::Numbers(numbers))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Loose, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Loose::Other)
    }
}

/// The fields of one tensor.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) dtype: Option<Loose>,
    pub(super) shape: Option<Loose>,
    pub(super) data_offsets: Option<Loose>,
}

impl<'de> Deserialize<'de> for Entry {
    /// Something other than an object has no fields.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntryVisitor;
        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with dtype, shape and data_offsets")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
                let mut entry = Entry::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "dtype" => entry.dtype = Some(map.next_value()?),
                        "shape" => entry.shape = Some(map.next_value()?),
                        "data_offsets" => entry.data_offsets = Some(map.next_value()?),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(entry)
            }
        }
        deserializer.deserialize_map(EntryVisitor)
    }
}

//! The header of a safetensors file: eight bytes of length, then JSON; the data follows without gaps.

use std::{collections::BTreeMap, fmt, path::Path};

use anyo_core::Result;
use safetensors::Dtype;
use serde::de::{Deserialize, Deserializer, IgnoredAny, IntoDeserializer, MapAccess, Visitor, value};

use super::{
    damaged,
    loose::{Entry, Loose},
};

/// What a header says of one tensor; checked against the file's length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Number type in the file.
    pub dtype: Dtype,
    /// Sizes of its axes.
    pub shape: Vec<i64>,
    /// First byte, counted from the start of the data.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// The format's own limit for the header.
const LONGEST: u64 = 100_000_000;

/// Reads and checks the header at the front of `bytes`, the whole file: where the data starts and what is in it, by name. No
/// allocation is larger than the file, but for the
/// text of a message that quotes it and a name that it writes with escapes, at most twice as large.
///
/// # Errors
/// When the header is longer than the file, not JSON of the right form, or the tensors overlap, leave gaps, do not fit their
/// shape and type or do not fill the file exactly.
pub fn parse_header(path: &Path, bytes: &[u8]) -> Result<(usize, BTreeMap<String, TensorInfo>)> {
    let got = bytes.len();
    let Some(first) = bytes.first_chunk::<8>() else {
        return Err(damaged(path, format!("truncated: {got} bytes, not even the length of its header")));
    };
    let header = u64::from_le_bytes(*first);
    if header > LONGEST && header <= got as u64 {
        return Err(damaged(path, format!("not a safetensors file: its header would be {header} bytes long")));
    }
    let Some(data) = header.checked_add(8).filter(|&end| end <= got as u64).map(|end| end as usize) else {
        return Err(damaged(path, format!("the header says it is {header} bytes long, but the file has {got} bytes")));
    };
    let found: Found = serde_json::from_slice(&bytes[8..data])
        .map_err(|e| damaged(path, format!("its header is not the JSON of a safetensors file ({e})")))?;
    if let Some((name, what)) = found.bad {
        return Err(damaged(path, format!("tensor `{name}`: {what}")));
    }
    check_layout(path, &found.infos, (got - data) as u64, got as u64)?;
    Ok((data, found.infos))
}

/// The tensors of a header, and what is wrong with the first bad one.
#[derive(Default)]
struct Found {
    infos: BTreeMap<String, TensorInfo>,
    bad: Option<(String, String)>,
}

impl<'de> Deserialize<'de> for Found {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FoundVisitor;
        impl<'de> Visitor<'de> for FoundVisitor {
            type Value = Found;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
                let mut found = Found::default();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" || found.bad.is_some() {
                        let _: IgnoredAny = map.next_value()?;
                        continue;
                    }
                    match info(map.next_value()?) {
                        Ok(_) if found.infos.contains_key(&name) => {
                            found.bad = Some((name, "the header has it twice".to_owned()));
                        }
                        Ok(info) => drop(found.infos.insert(name, info)),
                        Err(what) => found.bad = Some((name, what)),
                    }
                }
                Ok(found)
            }
        }
        deserializer.deserialize_map(FoundVisitor)
    }
}

/// One entry of the header, consistent in itself.
fn info(entry: Entry) -> Result<TensorInfo, String> {
    let field = |value: Option<Loose>, key: &str| value.ok_or_else(|| format!("its header entry has no `{key}`"));
    let dtype = match field(entry.dtype, "dtype")? {
        Loose::Text(text) => {
            let known: Result<Dtype, value::Error> = Dtype::deserialize(text.as_str().into_deserializer());
            known.map_err(|_| format!("unknown number type \"{text}\""))?
        }
        _ => return Err("unknown number type: `dtype` must be a text such as F32".to_owned()),
    };
    let numbers = |value: Option<Loose>, key: &str| match field(value, key)? {
        Loose::Numbers(numbers) => Ok(numbers),
        _ => Err(format!("`{key}` must be a short list of whole numbers")),
    };
    let (shape, offsets) = (numbers(entry.shape, "shape")?, numbers(entry.data_offsets, "data_offsets")?);
    let [start, end] = offsets[..] else {
        return Err(format!("`data_offsets` must be two numbers, got {}", offsets.len()));
    };
    let count = shape.iter().try_fold(1u64, |n, &size| n.checked_mul(size));
    let bytes = count.and_then(|n| n.checked_mul(dtype.bitsize() as u64)).map(|bits| bits.div_ceil(8));
    let axes: Option<Vec<i64>> = shape.iter().map(|&size| i64::try_from(size).ok()).collect();
    let (Some(bytes), Some(axes)) = (bytes, axes) else {
        return Err(format!("shape {shape:?} has too many elements for any file"));
    };
    if start > end {
        return Err(format!("its data would end at {end}, before its start {start}"));
    }
    if end - start != bytes {
        return Err(format!("shape {shape:?} of {dtype:?} needs {bytes} bytes, its data_offsets have {}", end - start));
    }
    let (Ok(start), Ok(end)) = (usize::try_from(start), usize::try_from(end)) else {
        return Err(format!("data_offsets [{start}, {end}] are out of range"));
    };
    Ok(TensorInfo { dtype, shape: axes, start, end })
}

/// Tensors follow each other without gap or overlap and fill the file.
fn check_layout(path: &Path, infos: &BTreeMap<String, TensorInfo>, data: u64, file: u64) -> Result<()> {
    let mut order = Vec::with_capacity(infos.len());
    order.extend(infos);
    order.sort_by_key(|(_, info)| (info.start, info.end));
    let mut at = 0;
    for (i, (name, info)) in order.iter().enumerate() {
        if info.start < at {
            let message =
                format!("tensors `{}` and `{name}` overlap at byte {} of the data", order[i - 1].0, info.start);
            return Err(damaged(path, message));
        }
        if info.end as u64 > data {
            let wanted = infos.values().map(|info| info.end as u64).max().unwrap_or(0).saturating_add(file - data);
            let message = format!("truncated: the file has {file} bytes, its header needs {wanted} (tensor `{name}`)");
            return Err(damaged(path, message));
        }
        if info.start > at {
            let message = format!("{} bytes in front of tensor `{name}` belong to no tensor", info.start - at);
            return Err(damaged(path, message));
        }
        at = info.end;
    }
    if at as u64 != data {
        let wanted = file - data + at as u64;
        return Err(damaged(path, format!("longer than its header says: {file} bytes, wanted {wanted}")));
    }
    Ok(())
}

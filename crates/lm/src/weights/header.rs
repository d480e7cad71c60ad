//! The header of a safetensors file: eight bytes of length, then JSON; the data follows without gaps.

use std::path::Path;

use anyo_core::Result;
use safetensors::Dtype;
use serde_json::{Map, Value};

use super::damaged;

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

/// Reads and checks the header at the front of `bytes`, the whole file: where the data starts and what is in it.
///
/// # Errors
/// When the header is longer than the file, not JSON of the right form, or the tensors overlap, leave gaps, do not fit their
/// shape and type or do not fill the file exactly.
pub fn parse_header(path: &Path, bytes: &[u8]) -> Result<(usize, Vec<(String, TensorInfo)>)> {
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
    let map: Map<String, Value> = serde_json::from_slice(&bytes[8..data])
        .map_err(|e| damaged(path, format!("its header is not the JSON of a safetensors file ({e})")))?;
    let mut infos = Vec::with_capacity(map.len());
    for (name, value) in map {
        if name == "__metadata__" {
            continue;
        }
        let info = info(&value).map_err(|what| damaged(path, format!("tensor `{name}`: {what}")))?;
        infos.push((name, info));
    }
    check_layout(path, &mut infos, (got - data) as u64, got as u64)?;
    Ok((data, infos))
}

/// One entry of the header, consistent in itself.
fn info(value: &Value) -> Result<TensorInfo, String> {
    let field = |key: &str| value.get(key).ok_or_else(|| format!("its header entry has no `{key}`"));
    let dtype = field("dtype")?;
    let dtype: Dtype = serde_json::from_value(dtype.clone()).map_err(|_| format!("unknown number type {dtype}"))?;
    let numbers = |key: &str| -> Result<Vec<u64>, String> {
        let list = field(key)?;
        let parsed: Option<Vec<u64>> = list.as_array().and_then(|list| list.iter().map(Value::as_u64).collect());
        parsed.ok_or_else(|| format!("`{key}` must be a list of whole numbers"))
    };
    let (shape, offsets) = (numbers("shape")?, numbers("data_offsets")?);
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
fn check_layout(path: &Path, infos: &mut [(String, TensorInfo)], data: u64, file: u64) -> Result<()> {
    infos.sort_by_key(|(_, info)| (info.start, info.end));
    let mut at = 0;
    for (i, (name, info)) in infos.iter().enumerate() {
        if info.start < at {
            let message =
                format!("tensors `{}` and `{name}` overlap at byte {} of the data", infos[i - 1].0, info.start);
            return Err(damaged(path, message));
        }
        if info.end as u64 > data {
            let wanted = infos.iter().map(|(_, info)| info.end as u64).max().unwrap_or(0).saturating_add(file - data);
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

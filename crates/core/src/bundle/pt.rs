//! One tensor in the file format of Python's `torch.save`: a zip of a small pickle and the raw numbers.
//!
//! Only what DLLM2Rec's `all_embeddings.pt` needs: one dense tensor of floats. The pickle is read by looking for the few
//! things that a tensor is made of; nothing in it is ever executed.

use std::{collections::BTreeMap, fs, path::Path};

use tch::{Device, Kind, Tensor};

use super::bad;
use crate::{Error, Result, run::write_atomic};

const HINT: &str = "save it with torch.save(tensor, path): one dense tensor of floats, on the CPU";

/// Reads the tensor of a `torch.save` file.
///
/// # Errors
/// Names the file and what is not as `torch.save` writes it.
pub fn read_pt(path: &Path) -> Result<Tensor> {
    let bytes = fs::read(path).map_err(Error::io(path, "read the tensor"))?;
    parse(&bytes).map_err(|why| bad(path, why, HINT))?.tensor(path)
}

/// Writes a tensor of floats as f32, as `torch.save` does; `torch.load` reads it.
///
/// # Errors
/// When the file cannot be written.
pub fn write_pt(path: &Path, tensor: &Tensor) -> Result<()> {
    let plain = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    let mut values = vec![0f32; plain.numel()];
    plain.f_copy_data(&mut values, plain.numel())?;
    let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let files = [
        ("archive/data.pkl", pickle(&plain.size(), values.len())),
        ("archive/byteorder", b"little".to_vec()),
        ("archive/data/0", data),
        ("archive/version", b"3\n".to_vec()),
    ];
    write_atomic(path, &zip(&files)?)
}

struct Found<'a> {
    kind: Kind,
    shape: Vec<i64>,
    data: &'a [u8],
}

impl Found<'_> {
    fn tensor(&self, path: &Path) -> Result<Tensor> {
        let want =
            self.shape.iter().try_fold(self.kind.elt_size_in_bytes(), |n, &d| n.checked_mul(usize::try_from(d).ok()?));
        if want != Some(self.data.len()) || self.data.is_empty() {
            let message = format!("holds {} bytes for a tensor of shape {:?}", self.data.len(), self.shape);
            return Err(bad(path, message, HINT));
        }
        Ok(Tensor::f_from_data_size(self.data, &self.shape, self.kind)?)
    }
}

fn parse(bytes: &[u8]) -> std::result::Result<Found<'_>, String> {
    let files = unzip(bytes)?;
    let find = |end: &str| files.iter().find(|(name, _)| name.ends_with(end)).map(|(_, data)| *data);
    let pickle = find("/data.pkl").ok_or("is no file of torch.save: it has no data.pkl")?;
    if find("/byteorder").is_some_and(|order| order != b"little") {
        return Err("was written on a big-endian machine".into());
    }
    let (kind, key, shape) = read_pickle(pickle)?;
    let data = find(&format!("/data/{key}")).ok_or_else(|| format!("its numbers (data/{key}) are missing"))?;
    Ok(Found { kind, shape, data })
}

/// Values that the pickle of a tensor is made of.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Mark,
    Int(i64),
    Text(String),
    /// `module name` of a class or function.
    Global(String),
    Tuple(Vec<Value>),
    /// A storage: class, key, number of elements.
    Storage(String, String),
    /// The tensor: storage, offset, shape, stride.
    Tensor(Box<Value>, Vec<i64>, Vec<i64>, i64),
    Other,
}

/// Kind, storage key and shape of the one tensor; refuses what is not contiguous.
fn read_pickle(bytes: &[u8]) -> std::result::Result<(Kind, String, Vec<i64>), String> {
    let mut stack: Vec<Value> = Vec::new();
    let mut memo: BTreeMap<u64, Value> = BTreeMap::new();
    let mut rest = bytes;
    let short = || "its pickle ends early".to_owned();
    loop {
        let op = take(&mut rest, 1).ok_or_else(short)?[0];
        let number = |rest: &mut &[u8], n: usize| -> std::result::Result<u64, String> {
            Ok(take(rest, n).ok_or_else(short)?.iter().rev().fold(0, |value, &b| value << 8 | u64::from(b)))
        };
        match op {
            0x80 => drop(number(&mut rest, 1)?),
            b'}' | b'N' | 0x88 => stack.push(Value::Other),
            0x89 => stack.push(Value::Int(0)),
            b')' => stack.push(Value::Tuple(Vec::new())),
            b'(' => stack.push(Value::Mark),
            b'K' => stack.push(Value::Int(number(&mut rest, 1)? as i64)),
            b'M' => stack.push(Value::Int(number(&mut rest, 2)? as i64)),
            b'J' => stack.push(Value::Int(i64::from(number(&mut rest, 4)? as u32 as i32))),
            0x8a => {
                let n = number(&mut rest, 1)? as usize;
                if n > 8 {
                    return Err("its pickle holds a number that is too large".into());
                }
                stack.push(Value::Int(number(&mut rest, n)? as i64));
            }
            b'X' | 0x8c => {
                let n = number(&mut rest, if op == b'X' { 4 } else { 1 })? as usize;
                let text = take(&mut rest, n).ok_or_else(short)?;
                stack.push(Value::Text(String::from_utf8_lossy(text).into_owned()));
            }
            b'c' => {
                let mut line = || {
                    let end = rest.iter().position(|&b| b == b'\n')?;
                    let line = String::from_utf8_lossy(&rest[..end]).into_owned();
                    rest = &rest[end + 1..];
                    Some(line)
                };
                let (module, name) = (line().ok_or_else(short)?, line().ok_or_else(short)?);
                stack.push(Value::Global(format!("{module} {name}")));
            }
            b'q' | b'r' => {
                let at = number(&mut rest, if op == b'q' { 1 } else { 4 })?;
                memo.insert(at, stack.last().cloned().ok_or_else(short)?);
            }
            b'h' | b'j' => {
                let at = number(&mut rest, if op == b'h' { 1 } else { 4 })?;
                stack.push(memo.get(&at).cloned().ok_or_else(short)?);
            }
            b't' => {
                let mark = stack.iter().rposition(|v| *v == Value::Mark).ok_or_else(short)?;
                let values = stack.split_off(mark + 1);
                stack.pop();
                stack.push(Value::Tuple(values));
            }
            0x85..=0x87 => {
                let at = stack.len().checked_sub(usize::from(op - 0x84)).ok_or_else(short)?;
                let values = stack.split_off(at);
                stack.push(Value::Tuple(values));
            }
            b'Q' => {
                let id = stack.pop().ok_or_else(short)?;
                stack.push(storage(&id)?);
            }
            b'R' => {
                let (arguments, function) = (stack.pop().ok_or_else(short)?, stack.pop().ok_or_else(short)?);
                stack.push(call(&function, arguments)?);
            }
            b's' | b'u' | b'a' | b'e' => return Err("it holds something else than one tensor".into()),
            b'.' => break,
            other => return Err(format!("its pickle does something (code {other:#x}) that a tensor does not need")),
        }
    }
    match stack.pop() {
        Some(Value::Tensor(storage, shape, stride, offset)) => {
            let Value::Storage(class, key) = *storage else { return Err("its tensor has no storage".into()) };
            let mut want: Vec<i64> =
                shape.iter().rev().scan(1i64, |n, &d| Some(std::mem::replace(n, n.saturating_mul(d)))).collect();
            want.reverse();
            if offset != 0 || (stride != want && !shape.contains(&1)) {
                return Err("its tensor is a view of another; save tensor.contiguous().clone()".into());
            }
            let kind = match class.as_str() {
                "torch FloatStorage" => Kind::Float,
                "torch DoubleStorage" => Kind::Double,
                "torch HalfStorage" => Kind::Half,
                "torch BFloat16Storage" => Kind::BFloat16,
                other => return Err(format!("its tensor is of `{other}`, wanted floats")),
            };
            Ok((kind, key, shape))
        }
        _ => Err("it holds something else than one tensor".into()),
    }
}

fn storage(id: &Value) -> std::result::Result<Value, String> {
    match id {
        Value::Tuple(parts) => match &parts[..] {
            [Value::Text(_), Value::Global(class), Value::Text(key), ..] => {
                Ok(Value::Storage(class.clone(), key.clone()))
            }
            _ => Err("its pickle names a storage in an unknown form".into()),
        },
        _ => Err("its pickle names a storage in an unknown form".into()),
    }
}

fn call(function: &Value, arguments: Value) -> std::result::Result<Value, String> {
    let Value::Global(name) = function else { return Err("its pickle calls something unknown".into()) };
    let ints = |value: &Value| match value {
        Value::Tuple(values) => {
            values.iter().map(|v| if let Value::Int(n) = v { Some(*n) } else { None }).collect::<Option<Vec<i64>>>()
        }
        _ => None,
    };
    match (name.as_str(), arguments) {
        ("collections OrderedDict", _) => Ok(Value::Other),
        ("torch._utils _rebuild_tensor_v2", Value::Tuple(parts)) => match &parts[..] {
            [storage, Value::Int(offset), shape, stride, ..] => {
                let (Some(shape), Some(stride)) = (ints(shape), ints(stride)) else {
                    return Err("its tensor has no plain shape".into());
                };
                Ok(Value::Tensor(Box::new(storage.clone()), shape, stride, *offset))
            }
            _ => Err("its tensor is described in an unknown form".into()),
        },
        ("torch._utils _rebuild_parameter", Value::Tuple(parts)) => {
            parts.into_iter().next().ok_or_else(|| "its parameter is empty".into())
        }
        (other, _) => Err(format!("its pickle asks for `{other}`, which a tensor does not need")),
    }
}

/// The pickle (protocol 2) of one contiguous f32 tensor.
fn pickle(shape: &[i64], n: usize) -> Vec<u8> {
    let mut out = vec![0x80, 2];
    let global = |out: &mut Vec<u8>, module: &str, name: &str| out.extend(format!("c{module}\n{name}\n").bytes());
    let text = |out: &mut Vec<u8>, text: &str| {
        out.push(b'X');
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text.bytes());
    };
    // LONG1 with eight bytes holds any size
    let int = |out: &mut Vec<u8>, n: i64| {
        out.extend([0x8a, 8]);
        out.extend(n.to_le_bytes());
    };
    let tuple = |out: &mut Vec<u8>, values: &[i64]| {
        out.push(b'(');
        values.iter().for_each(|&n| int(out, n));
        out.push(b't');
    };
    global(&mut out, "torch._utils", "_rebuild_tensor_v2");
    out.extend(b"((");
    text(&mut out, "storage");
    global(&mut out, "torch", "FloatStorage");
    text(&mut out, "0");
    text(&mut out, "cpu");
    int(&mut out, n as i64);
    out.extend(b"tQ");
    int(&mut out, 0);
    tuple(&mut out, shape);
    let mut strides: Vec<i64> = shape.iter().rev().scan(1, |n, &d| Some(std::mem::replace(n, *n * d))).collect();
    strides.reverse();
    tuple(&mut out, &strides);
    out.push(0x89);
    global(&mut out, "collections", "OrderedDict");
    out.extend(b")RtR.");
    out
}

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(n)?;
    *rest = tail;
    Some(head)
}

fn le(bytes: &[u8], at: usize, n: usize) -> Option<u64> {
    Some(bytes.get(at..at.checked_add(n)?)?.iter().rev().fold(0, |value, &b| value << 8 | u64::from(b)))
}

/// Names and contents of a zip whose entries are stored as they are, as `torch.save` writes it.
fn unzip(bytes: &[u8]) -> std::result::Result<Vec<(String, &[u8])>, String> {
    let no_zip = || "is no whole file of torch.save: the directory of its zip is missing or damaged".to_owned();
    let from = bytes.len().saturating_sub(22 + 65_535);
    let end = (from..bytes.len().saturating_sub(21))
        .rev()
        .find(|&at| bytes[at..].starts_with(b"PK\x05\x06"))
        .ok_or_else(no_zip)?;
    let (mut n, mut at) = (le(bytes, end + 10, 2).ok_or_else(no_zip)?, le(bytes, end + 16, 4).ok_or_else(no_zip)?);
    if n == 0xffff || at == 0xffff_ffff {
        // ZIP64: the locator in front of the end names the record with wide fields
        let wide = end.checked_sub(20).and_then(|at| le(bytes, at + 8, 8)).ok_or_else(no_zip)? as usize;
        (n, at) = (
            le(bytes, wide.saturating_add(32), 8).ok_or_else(no_zip)?,
            le(bytes, wide.saturating_add(48), 8).ok_or_else(no_zip)?,
        );
    }
    let mut at = at as usize;
    let mut files = Vec::new();
    for _ in 0..n {
        let field = |offset: usize, n: usize| at.checked_add(offset).and_then(|at| le(bytes, at, n)).ok_or_else(no_zip);
        if field(0, 4)? != 0x0201_4b50 || field(10, 2)? != 0 {
            return Err("its zip is compressed; torch.save does not do that".into());
        }
        let (name_len, extra_len, note_len) = (field(28, 2)? as usize, field(30, 2)? as usize, field(32, 2)? as usize);
        let (mut size, mut start) = (field(24, 4)?, field(42, 4)?);
        let name = bytes.get(at + 46..at + 46 + name_len).ok_or_else(no_zip)?;
        let mut extra = bytes.get(at + 46 + name_len..at + 46 + name_len + extra_len).ok_or_else(no_zip)?;
        while extra.len() >= 4 {
            let (id, len) = (le(extra, 0, 2), le(extra, 2, 2).unwrap_or(0) as usize);
            let mut body = extra.get(4..4 + len).ok_or_else(no_zip)?;
            if id == Some(1) {
                // wide values stand in a fixed order, only those whose narrow field is full
                let mut wide = || take(&mut body, 8).and_then(|b| le(b, 0, 8)).ok_or_else(no_zip);
                if size == 0xffff_ffff {
                    size = wide()?;
                }
                if field(20, 4)? == 0xffff_ffff {
                    wide()?;
                }
                if start == 0xffff_ffff {
                    start = wide()?;
                }
            }
            extra = &extra[4 + len..];
        }
        let local = usize::try_from(start).map_err(|_| no_zip())?;
        let skip =
            le(bytes, local.saturating_add(26), 2).zip(le(bytes, local.saturating_add(28), 2)).ok_or_else(no_zip)?;
        let data = local.saturating_add(30 + skip.0 as usize + skip.1 as usize);
        let content = data.checked_add(size as usize).and_then(|end| bytes.get(data..end)).ok_or_else(no_zip)?;
        files.push((String::from_utf8_lossy(name).into_owned(), content));
        at = at.saturating_add(46 + name_len + extra_len + note_len);
    }
    Ok(files)
}

/// A zip with the files stored as they are; the numbers start at a multiple of 64 bytes.
fn zip(files: &[(&str, Vec<u8>)]) -> Result<Vec<u8>> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in files {
        let start = u32::try_from(out.len()).ok().zip(u32::try_from(data.len()).ok());
        let Some((start, size)) = start else {
            let hint = "keep item_embeddings.safetensors, which has no such limit";
            return Err(Error::Invalid {
                message: "the tensor is larger than 4 GiB, too large for this .pt writer".into(),
                hint: Some(hint.into()),
            });
        };
        let pad = (64 - (out.len() + 30 + name.len() + 4) % 64) % 64;
        let mut header = Vec::new();
        header.extend([0u16, 0, 0, 0].iter().flat_map(|v| v.to_le_bytes())); // flags, stored, time, date
        header[6..8].copy_from_slice(&0x21u16.to_le_bytes()); // 1980-01-01
        header.extend(crc32(data).to_le_bytes());
        header.extend(size.to_le_bytes());
        header.extend(size.to_le_bytes());
        header.extend((name.len() as u16).to_le_bytes());
        out.extend(b"PK\x03\x04\x14\x00");
        out.extend(&header);
        out.extend((pad as u16 + 4).to_le_bytes());
        out.extend(name.bytes());
        out.extend(b"FB");
        out.extend((pad as u16).to_le_bytes());
        out.extend(std::iter::repeat_n(b'Z', pad));
        out.extend(data);
        directory.extend(b"PK\x01\x02\x14\x00\x14\x00");
        directory.extend(&header);
        directory.extend([0; 12]); // no extra, no note, disk 0, attributes
        directory.extend(start.to_le_bytes());
        directory.extend(name.bytes());
    }
    let start = out.len() as u32;
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend((files.len() as u16).to_le_bytes());
    out.extend((files.len() as u16).to_le_bytes());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0, 0]);
    Ok(out)
}

fn crc32(data: &[u8]) -> u32 {
    let table: Vec<u32> =
        (0..256u32).map(|i| (0..8).fold(i, |c, _| if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 })).collect();
    !data.iter().fold(!0, |crc, &byte| table[((crc ^ u32::from(byte)) & 0xff) as usize] ^ (crc >> 8))
}

//! Named tensors in one safetensors file: written by streaming, read with every check before a tensor is made.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};
use tch::{Kind, Tensor};

use super::{Params, raw};
use crate::{Error, Result};

/// Writes the tensors of `params` to `path` beside and renames, so that `path` is never half a file.
///
/// # Errors
/// When the file cannot be written; an older one at `path` is intact then.
pub fn save_model(path: &Path, params: &Params, metadata: &BTreeMap<String, String>) -> Result<()> {
    save_tensors(path, &aligned(params.named()), metadata)
}

/// Writes tensors to `path` in this order, beside and renames, so that `path` is never half a file.
///
/// # Errors
/// When a tensor has a number type without a name in safetensors, or the file cannot be written; an older one at `path`
/// is intact then.
pub fn save_tensors(path: &Path, tensors: &[(&str, &Tensor)], metadata: &BTreeMap<String, String>) -> Result<()> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = path.with_file_name(format!(".tmp_{name}"));
    let written = write(&temporary, tensors, metadata)
        .and_then(|_| fs::rename(&temporary, path).map_err(Error::io(path, "rename the finished file")))
        .and_then(|()| sync_folder(&parent(path)));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Reads all tensors of a safetensors file to the CPU.
///
/// # Errors
/// When the file is missing, truncated, longer than it says, of an unknown number type, or holds NaN or infinity.
pub fn load_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    parse(path, &read(path)?)
}

/// The metadata of a safetensors file.
///
/// # Errors
/// As [`load_tensors`], without the check of values.
pub fn load_metadata(path: &Path) -> Result<BTreeMap<String, String>> {
    let bytes = read(path)?;
    check_length(path, &bytes)?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| damaged(path, &e.to_string()))?;
    Ok(header.metadata().clone().unwrap_or_default().into_iter().collect())
}

pub(super) fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Makes renames inside `folder` survive a power cut.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(Error::io(folder, "flush the folder to disk"))
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::io(path, "read the tensors"))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Writes and flushes one file; returns its SHA-256 in hex.
pub(super) fn write_tensors(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
) -> Result<String> {
    write(path, &aligned(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))), metadata)
}

/// Wide types first, then by name: every tensor starts at a multiple of its element size.
fn aligned<'a>(tensors: impl Iterator<Item = (&'a str, &'a Tensor)>) -> Vec<(&'a str, &'a Tensor)> {
    let mut order: Vec<_> = tensors.collect();
    order.sort_by_key(|(name, t)| (std::cmp::Reverse(t.kind().elt_size_in_bytes()), *name));
    order
}

fn write(path: &Path, tensors: &[(&str, &Tensor)], metadata: &BTreeMap<String, String>) -> Result<String> {
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert(
            "__metadata__".into(),
            metadata.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect::<serde_json::Map<_, _>>().into(),
        );
    }
    let mut start = 0;
    for (name, tensor) in tensors {
        let dtype = dtype(name, tensor.kind())?;
        let end = start + tensor.numel() * tensor.kind().elt_size_in_bytes();
        let info = serde_json::json!({ "dtype": dtype, "shape": tensor.size(), "data_offsets": [start, end] });
        header.insert((*name).to_owned(), info);
        start = end;
    }
    let mut header = serde_json::Value::from(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');

    let failed = || Error::io(path, "write the tensors");
    let mut hash = Sha256::new();
    let mut file = BufWriter::new(File::create(path).map_err(failed())?);
    let mut put = |bytes: &[u8]| {
        hash.update(bytes);
        file.write_all(bytes).map_err(failed())
    };
    put(&(header.len() as u64).to_le_bytes())?;
    put(&header)?;
    for (_, tensor) in tensors {
        raw::with_bytes(tensor, &mut put)?;
    }
    let file = file.into_inner().map_err(|e| failed()(e.into_error()))?;
    file.sync_all().map_err(Error::io(path, "flush the tensors to disk"))?;
    Ok(hex(&hash.finalize()))
}

/// Tensors from the bytes of the file at `path`.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    check_length(path, bytes)?;
    let file = SafeTensors::deserialize(bytes).map_err(|e| damaged(path, &e.to_string()))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        let kind = kind(view.dtype()).ok_or_else(|| {
            damaged(path, &format!("tensor `{name}` has the number type {:?}, which is not supported", view.dtype()))
        })?;
        let shape: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
        let tensor = match view.data().len() {
            0 => Tensor::f_zeros(&shape, (kind, tch::Device::Cpu))?,
            _ => Tensor::f_from_data_size(view.data(), &shape, kind)?,
        };
        if let Some(what) = not_finite(&tensor)? {
            return Err(Error::Checkpoint {
                path: path.to_owned(),
                message: format!("tensor `{name}` of shape {shape:?} has {what}"),
                hint: Some("the training that wrote it had diverged; use an earlier checkpoint".into()),
            });
        }
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

/// How many elements are NaN or infinite, in words, or nothing.
fn not_finite(tensor: &Tensor) -> Result<Option<String>> {
    let plain = raw::is_plain::<f32>(tensor) && raw::slice::<f32>(tensor).iter().all(|x| x.is_finite());
    if plain || !tensor.is_floating_point() {
        return Ok(None);
    }
    let bad = tensor.f_isfinite()?.f_logical_not()?.f_sum(Kind::Int64)?.f_int64_value(&[])?;
    Ok((bad > 0).then(|| format!("{bad} of {} values that are NaN or infinite", tensor.numel())))
}

/// Compares the file's length with what its header says.
fn check_length(path: &Path, bytes: &[u8]) -> Result<()> {
    let got = bytes.len();
    let Some(first) = bytes.first_chunk::<8>() else {
        return Err(damaged(path, &format!("it is truncated: {got} bytes, not even the length of its header")));
    };
    let header = u64::from_le_bytes(*first);
    // The format's own limit; text files taken for tensors end here.
    if !(2..=100_000_000).contains(&header) {
        return Err(damaged(path, "it does not start like a safetensors file"));
    }
    let data = 8 + header as usize;
    if data > got {
        return Err(damaged(path, &format!("it is truncated inside its header: {got} bytes, wanted at least {data}")));
    }
    let infos: HashMap<String, serde_json::Value> = serde_json::from_slice(&bytes[8..data])
        .map_err(|e| damaged(path, &format!("its header is not the JSON of a safetensors file ({e})")))?;
    let end = infos.values().filter_map(|info| info.get("data_offsets")?.get(1)?.as_u64()).max().unwrap_or(0);
    let want = end.saturating_add(data as u64);
    match (got as u64).cmp(&want) {
        std::cmp::Ordering::Less => Err(damaged(path, &format!("it is truncated: {got} bytes, wanted {want}"))),
        std::cmp::Ordering::Greater => {
            Err(damaged(path, &format!("it is longer than its header says: {got} bytes, wanted {want}")))
        }
        std::cmp::Ordering::Equal => Ok(()),
    }
}

fn damaged(path: &Path, what: &str) -> Error {
    Error::Checkpoint {
        path: path.to_owned(),
        message: format!("not a usable tensor file: {what}"),
        hint: Some("copy it again from where it came, or use an earlier checkpoint".into()),
    }
}

fn dtype(name: &str, kind: Kind) -> Result<Dtype> {
    Ok(match kind {
        Kind::Double => Dtype::F64,
        Kind::Float => Dtype::F32,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Int64 => Dtype::I64,
        Kind::Int => Dtype::I32,
        Kind::Int16 => Dtype::I16,
        Kind::Int8 => Dtype::I8,
        Kind::Uint8 => Dtype::U8,
        Kind::Bool => Dtype::BOOL,
        other => return Err(Error::invalid(format!("tensor `{name}` of type {other:?} cannot be saved"))),
    })
}

fn kind(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_names_the_file_and_says_what_to_do() {
        let tensors = BTreeMap::from([("w".to_owned(), Tensor::from_slice(&[1f32, 2.0]))]);
        let error = write_tensors(Path::new("/dev/full"), &tensors, &BTreeMap::new()).unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if path == Path::new("/dev/full")), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("disk is full")), "{error}");
    }
}

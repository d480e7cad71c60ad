//! Writing a weight file tensor by tensor.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

use anyo_core::{Error, Result, torch::raw};
use serde_json::{Map, Value, json};
use tch::{Kind, Tensor};

/// Writes `tensors` in this order to `path`: beside it first, then renamed, so that `path` is never half a file.
///
/// # Errors
/// When a tensor has a type other than f32, bf16 or f16, or the file cannot be written; an older one is intact then.
pub fn save_tensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = path.with_file_name(format!(".tmp_{name}"));
    let written = write(&temporary, tensors)
        .and_then(|()| fs::rename(&temporary, path).map_err(Error::io(path, "rename the finished weights")));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let mut header = Map::new();
    // transformers 4 asks which framework wrote the file.
    let _ = header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut start = 0;
    for (name, tensor) in tensors {
        let dtype = match tensor.kind() {
            Kind::Float => "F32",
            Kind::BFloat16 => "BF16",
            Kind::Half => "F16",
            other => return Err(Error::invalid(format!("tensor `{name}` of type {other:?} cannot be saved"))),
        };
        let end = start + tensor.numel() * tensor.kind().elt_size_in_bytes();
        let info = json!({ "dtype": dtype, "shape": tensor.size(), "data_offsets": [start, end] });
        let _ = header.insert(name.clone(), info);
        start = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');

    let failed = || Error::io(path, "write the weights");
    let mut file = BufWriter::new(File::create(path).map_err(failed())?);
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed())?;
    file.write_all(&header).map_err(failed())?;
    for (_, tensor) in tensors {
        raw::with_bytes(tensor, |bytes| file.write_all(bytes).map_err(failed()))?;
    }
    let file = file.into_inner().map_err(|e| failed()(e.into_error()))?;
    file.sync_all().map_err(Error::io(path, "flush the weights to disk"))
}

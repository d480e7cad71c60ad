//! `item_embeddings.safetensors`: one tensor `[N, D]`, row = item.

use std::{collections::BTreeMap, fs, path::Path};

use safetensors::{Dtype, SafeTensors};
use tch::{Device, Kind, Tensor};

use super::{bad, manifest::EmbeddingsInfo};
use crate::{
    Error, Result,
    torch::{Params, save_model},
};

/// Name of the file inside a bundle, and with its extension taken away of the tensor in it.
pub const EMBEDDINGS_FILE: &str = "item_embeddings.safetensors";
const TENSOR: &str = "item_embeddings";

/// Writes vectors `[N, D]` as f32.
pub(super) fn write_embeddings(folder: &Path, vectors: &Tensor, n_items: usize) -> Result<EmbeddingsInfo> {
    let size = vectors.size();
    let &[rows, dim] = &size[..] else {
        return Err(Error::invalid(format!("item vectors of shape {size:?}, wanted [{n_items}, width]")));
    };
    if rows != n_items as i64 || dim == 0 {
        return Err(Error::invalid(format!("item vectors of shape {size:?}, wanted [{n_items}, at least 1]")));
    }
    let plain = vectors.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    if let Some((item, place)) = not_finite(&plain)? {
        return Err(Error::invalid(format!("the vector of item {item} is not finite at place {place}")));
    }
    let mut params = Params::new(Device::Cpu);
    let _ = params.add_buffer(TENSOR, plain)?;
    save_model(&folder.join(EMBEDDINGS_FILE), &params, &BTreeMap::new())?;
    Ok(EmbeddingsInfo { n_items, dim: dim as usize })
}

/// Reads item vectors `[N, D]` as f32 from a `.safetensors` (the tensor `item_embeddings`, or the only one) or a `.pt`
/// file, and checks rows and values; with `dim` the width too.
///
/// # Errors
/// Names the file and what does not fit; of a value that is not finite the item.
pub fn read_embeddings(path: &Path, n_items: usize, dim: Option<usize>) -> Result<Tensor> {
    let vectors = match path.extension().and_then(|e| e.to_str()) {
        Some("pt" | "pth" | "bin") => super::read_pt(path)?,
        _ => read_safetensors(path)?,
    };
    let wanted = format!("wanted [{n_items} items, {}]", dim.map_or("any width".to_owned(), |d| d.to_string()));
    let size = vectors.size();
    let fits = size.len() == 2 && size[0] == n_items as i64 && size[1] > 0 && dim.is_none_or(|d| size[1] == d as i64);
    if !fits {
        return Err(bad(
            path,
            format!("the item vectors have the shape {size:?}, {wanted}"),
            "one row for each item, in the order of the items",
        ));
    }
    let vectors = vectors.f_to_kind(Kind::Float)?.f_contiguous()?;
    match not_finite(&vectors)? {
        Some((item, place)) => {
            let message = format!("the vector of item {item} is not finite at place {place}");
            Err(bad(path, message, "the teacher had diverged, or the file is damaged; make it again"))
        }
        None => Ok(vectors),
    }
}

fn read_safetensors(path: &Path) -> Result<Tensor> {
    let again = "copy it again from where it was made";
    let bytes = fs::read(path).map_err(Error::io(path, "read the item vectors"))?;
    let file =
        SafeTensors::deserialize(&bytes).map_err(|e| bad(path, format!("is no whole safetensors file: {e}"), again))?;
    let names = file.names();
    let view = match (file.tensor(TENSOR), &names[..]) {
        (Ok(view), _) => view,
        (Err(_), [one]) => file.tensor(one).map_err(|e| bad(path, e.to_string(), again))?,
        _ => {
            let message = format!("holds the tensors {names:?}, wanted `{TENSOR}`");
            return Err(bad(path, message, "rename the tensor, or leave only one"));
        }
    };
    let kind = match view.dtype() {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        other => return Err(bad(path, format!("the tensor is of type {other:?}, wanted floats"), again)),
    };
    let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
    if view.data().is_empty() {
        return Err(bad(path, format!("the tensor has the shape {shape:?} and no values"), again));
    }
    Ok(Tensor::f_from_data_size(view.data(), &shape, kind)?)
}

/// Item and place of the first value that is not finite in `[N, D]`.
fn not_finite(vectors: &Tensor) -> Result<Option<(i64, i64)>> {
    let bad = vectors.f_isfinite()?.f_logical_not()?;
    if bad.f_any()?.f_int64_value(&[])? == 0 {
        return Ok(None);
    }
    let first = bad.f_nonzero()?;
    Ok(Some((first.f_int64_value(&[0, 0])?, first.f_int64_value(&[0, 1])?)))
}

//! Writing a weight file.

use std::path::Path;

use anyo_core::{Result, torch};
use tch::Tensor;

/// Writes `tensors` in this order to `path`: beside it first, then renamed, so that `path` is never half a file.
///
/// # Errors
/// When a tensor has a number type without a name in safetensors, or the file cannot be written; an older one is intact
/// then.
pub fn save_tensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    // transformers 4 asks which framework wrote the file.
    torch::save_tensors(path, &tensors, &[("format".into(), "pt".into())].into())
}

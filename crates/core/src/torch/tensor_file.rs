use std::{collections::BTreeMap, path::Path}; use tch::Tensor; use crate::Result; use super::Params;
pub fn save_model(path: &Path, params: &Params, metadata: &BTreeMap<String, String>) -> Result<()> { unimplemented!() }
pub fn load_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>> { unimplemented!() }
pub fn load_metadata(path: &Path) -> Result<BTreeMap<String, String>> { unimplemented!() }

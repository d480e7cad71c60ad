//! Weights in safetensors files: one `model.safetensors`, or shards that `model.safetensors.index.json` lists.
//!
//! Files are memory-mapped and tensors are made one at a time. Values that need no conversion are read straight into the
//! tensor; the pages of others are given back once they are converted, so that the peak stays near the size of the model
//! itself. Everything a file says is checked before any memory is reserved for it.

pub(crate) mod convert;
mod header;
mod loose;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    ops::Range,
    path::{Component, Path, PathBuf},
};

use anyo_core::{Error, Result};
use memmap2::Mmap;
use tch::{Device, Kind, Tensor};

pub use header::{TensorInfo, parse_header};
pub use write::save_tensors;

/// The file of an unsharded model.
pub const MODEL_FILE: &str = "model.safetensors";
/// The list of the shards of a large one.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

const COPY_AGAIN: &str = "copy or download the file again";

pub(crate) fn damaged(path: &Path, message: impl Into<String>) -> Error {
    Error::Checkpoint { path: path.to_owned(), message: message.into(), hint: Some(COPY_AGAIN.into()) }
}

/// A mapped file and where its data starts.
#[derive(Debug)]
struct Mapped {
    path: PathBuf,
    bytes: Mmap,
    file: File,
    data: usize,
}

/// The tensors of a folder or file, by name; nothing is read before [`WeightFiles::load`].
#[derive(Debug)]
pub struct WeightFiles {
    at: PathBuf,
    files: Vec<Mapped>,
    tensors: BTreeMap<String, (usize, TensorInfo)>,
}

impl WeightFiles {
    /// Opens the weights of a model's folder and checks every header.
    ///
    /// # Errors
    /// When there is no weight file, a shard is missing, the index names a file outside the folder or a tensor that the
    /// shard does not have, or a file is no whole safetensors file.
    pub fn open(folder: &Path) -> Result<Self> {
        let (index, single) = (folder.join(INDEX_FILE), folder.join(MODEL_FILE));
        if index.is_file() {
            return Self::open_shards(folder, &index);
        }
        if single.is_file() {
            return Self::open_file(&single);
        }
        let old = folder.join("pytorch_model.bin").exists() || folder.join("pytorch_model.bin.index.json").exists();
        let hint = if old {
            "there is a pytorch_model.bin, which can run code when it is read; convert it with transformers' \
             save_pretrained(safe_serialization=True)"
        } else {
            "give the folder of a model in Hugging Face format, downloaded with its *.safetensors"
        };
        Err(Error::Checkpoint {
            path: folder.to_owned(),
            message: format!("no weights: neither {MODEL_FILE} nor {INDEX_FILE}"),
            hint: Some(hint.into()),
        })
    }

    /// Opens one safetensors file.
    ///
    /// # Errors
    /// When it cannot be read or is not a whole safetensors file.
    pub fn open_file(path: &Path) -> Result<Self> {
        let mut this = Self { at: path.to_owned(), files: Vec::new(), tensors: BTreeMap::new() };
        this.add(path)?;
        Ok(this)
    }

    fn open_shards(folder: &Path, index: &Path) -> Result<Self> {
        let listed = read_index(index)?;
        let shards: BTreeSet<&String> = listed.values().collect();
        let missing: Vec<_> = shards.iter().filter(|name| !folder.join(name).is_file()).map(|n| n.as_str()).collect();
        if !missing.is_empty() {
            return Err(Error::Checkpoint {
                path: folder.to_owned(),
                message: format!(
                    "{} of {} weight files that {INDEX_FILE} lists are missing: {}",
                    missing.len(),
                    shards.len(),
                    missing.join(", ")
                ),
                hint: Some("download them, or the whole folder again".into()),
            });
        }
        let mut this = Self { at: folder.to_owned(), files: Vec::new(), tensors: BTreeMap::new() };
        for shard in shards {
            this.add(&folder.join(shard))?;
        }
        for (name, shard) in &listed {
            let found = this.tensors.get(name).map(|(file, _)| &this.files[*file].path);
            if found.is_none_or(|path| path.file_name() != Some(shard.as_ref())) {
                let message = format!("{shard} has no tensor `{name}`, which {INDEX_FILE} says it has");
                return Err(damaged(folder, message));
            }
        }
        Ok(this)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let file = File::open(path).map_err(Error::io(path, "open the weights"))?;
        let length = file.metadata().map_err(Error::io(path, "read the size of the weights"))?.len();
        if length < 8 {
            return Err(damaged(path, format!("truncated: {length} bytes, not even the length of its header")));
        }
        // SAFETY: read only; as with every mapping, another program that shortens the file meanwhile ends this one.
        let bytes = unsafe { Mmap::map(&file) }.map_err(Error::io(path, "map the weights"))?;
        let (data, infos) = parse_header(path, &bytes)?;
        let at = self.files.len();
        for (name, info) in infos {
            if let Some((other, _)) = self.tensors.insert(name.clone(), (at, info)) {
                let message = format!("tensor `{name}` is also in {}", self.files[other].path.display());
                return Err(damaged(path, message));
            }
        }
        self.files.push(Mapped { path: path.to_owned(), bytes, file, data });
        Ok(())
    }

    /// Names and what is known of each, sorted by name.
    pub fn infos(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.tensors.iter().map(|(name, (_, info))| (name.as_str(), info))
    }

    /// What is known of the tensor called `name`.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|(_, info)| info)
    }

    /// Compares names and shapes with those that a model wants; `ignored` decides which further tensors are no error.
    ///
    /// # Errors
    /// One message lists every missing, unexpected and misshapen tensor, ten of them in full.
    pub fn check(&self, wanted: &[(String, Vec<i64>)], ignored: impl Fn(&str) -> bool) -> Result<()> {
        let mut lines = Vec::new();
        for (name, shape) in wanted {
            match self.info(name) {
                None => lines.push(format!("missing tensor `{name}`, shape {shape:?}")),
                Some(info) if info.shape != *shape => lines.push(format!(
                    "tensor `{name}` in {} has shape {:?}, wanted {shape:?}",
                    self.file_name(name),
                    info.shape
                )),
                Some(_) => {}
            }
        }
        let known: BTreeSet<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
        for (name, info) in self.infos().filter(|(name, _)| !known.contains(name) && !ignored(name)) {
            lines.push(format!("unexpected tensor `{name}` in {}, shape {:?}", self.file_name(name), info.shape));
        }
        if lines.is_empty() {
            return Ok(());
        }
        let more = lines.len().saturating_sub(10);
        lines.truncate(10);
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        Err(Error::Checkpoint {
            path: self.at.clone(),
            message: format!("the weights do not fit config.json:\n  {}", lines.join("\n  ")),
            hint: Some("config.json and the weights must come from the same model".into()),
        })
    }

    fn file_name(&self, name: &str) -> String {
        let path = self.tensors.get(name).map(|(file, _)| self.files[*file].path.as_path());
        path.and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Reads one tensor of a floating type as `kind` to `device`.
    ///
    /// # Errors
    /// When there is no such tensor, its shape is another, its type is no floating one, or it holds NaN or infinity; a
    /// value too large for `kind` counts as infinite.
    pub fn load(&self, name: &str, shape: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        let Some((file, info)) = self.tensors.get(name) else {
            return Err(Error::Checkpoint {
                path: self.at.clone(),
                message: format!("missing tensor `{name}`, shape {shape:?}"),
                hint: None,
            });
        };
        let file = &self.files[*file];
        if info.shape != shape {
            let message = format!("tensor `{name}` has shape {:?}, wanted {shape:?}", info.shape);
            return Err(Error::Checkpoint { path: file.path.clone(), message, hint: None });
        }
        let range = file.data + info.start..file.data + info.end;
        let release = |part: Range<usize>| {
            #[cfg(unix)]
            {
                let advice = memmap2::UncheckedAdvice::DontNeed;
                // SAFETY: a private read-only file mapping: pages that are dropped are read again from the file.
                // A refusal costs memory only.
                let _ = unsafe { file.bytes.unchecked_advise_range(advice, range.start + part.start, part.len()) };
            }
        };
        let source =
            convert::Source { bytes: &file.bytes[range.clone()], file: Some((&file.file, range.start as u64)) };
        convert::tensor(&file.path, name, &source, info, (kind, device), &release)
    }
}

/// The map from tensor to shard; every shard is a plain name inside the folder.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(path).map_err(Error::io(path, "read the list of weight files"))?;
    parse_index(path, &text)
}

/// Parses the text of an index file; `path` is for messages.
///
/// # Errors
/// When it is not JSON with a `weight_map` from tensor names to plain file names.
pub fn parse_index(path: &Path, text: &str) -> Result<BTreeMap<String, String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index: Index =
        serde_json::from_str(text).map_err(|e| damaged(path, format!("not an index of weight files: {e}")))?;
    if index.weight_map.is_empty() {
        return Err(damaged(path, "the index lists no tensor"));
    }
    for (name, file) in &index.weight_map {
        let mut parts = Path::new(file).components();
        let plain =
            matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == file.as_str());
        if !plain || file.contains(['\\', '\0']) {
            let message = format!("tensor `{name}` is said to be in `{file}`, which is not a file inside this folder");
            return Err(damaged(path, message));
        }
    }
    Ok(index.weight_map)
}

#[cfg(test)]
mod tests;

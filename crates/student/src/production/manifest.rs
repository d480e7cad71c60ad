//! `manifest.json` of an exported student: what the files hold and how the programs are called.

use std::{collections::BTreeMap, fs, path::Path};

use anyo_core::{Error, Result, bundle::FileInfo};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{BIAS_FILE, FILES, ITEMS_FILE, bad};
use crate::config::StudentConfig;

/// Name of the manifest inside the folder.
pub const MANIFEST_FILE: &str = "manifest.json";
/// `kind` of such a manifest: a teacher bundle has a file of the same name.
pub const KIND: &str = "anyo-student";
/// Version of the format that this code writes and reads.
pub const SCHEMA_VERSION: u32 = 1;
/// A manifest is a page of text; anything larger is something else.
const LARGEST: u64 = 16 << 20;

/// The content of `manifest.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentManifest {
    /// [`KIND`].
    pub kind: String,
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The network.
    pub model: ModelInfo,
    /// On which data it was trained.
    pub dataset: DatasetInfo,
    /// What `forward` of both programs takes.
    pub input: InputInfo,
    /// What `forward` of `student.pt` gives.
    pub output: OutputInfo,
    /// What the flat arrays hold.
    pub items: ItemsInfo,
    /// Shape of every tensor of `student.safetensors`, by name.
    pub weights: BTreeMap<String, Vec<i64>>,
    /// Version of libtorch that wrote the programs.
    pub libtorch: String,
    /// Version of anyo that wrote the folder.
    pub anyo: String,
    /// Size and SHA-256 of every other file.
    pub files: BTreeMap<String, FileInfo>,
}

/// The network of an exported student.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelInfo {
    /// `student.name`.
    pub name: String,
    /// The whole `student` part of the configuration.
    pub config: StudentConfig,
    /// Numbers that were trained.
    pub n_parameters: usize,
    /// SHA-256 of the run's weights file, where it came from one.
    #[serde(deserialize_with = "Option::deserialize")]
    pub trained_weights_sha256: Option<String>,
}

/// The data of an exported student.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetInfo {
    /// `Dataset::name`.
    pub name: String,
    /// `Dataset::hash`.
    pub hash: String,
    /// `Dataset::items_hash`.
    pub items_hash: String,
    /// Items of the catalogue; their numbers are 0 to that.
    pub n_items: usize,
}

/// The arguments of `forward`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputInfo {
    /// Names of the arguments, in order.
    pub arguments: Vec<String>,
    /// Shapes of the arguments; a letter stands for any size from 1.
    pub shapes: Vec<Vec<String>>,
    /// Number type of both.
    pub dtype: String,
    /// Which end of a row is padded.
    pub padding: String,
    /// What to write at empty places.
    pub pad_id: i64,
    /// Newest items of a row that the network reads.
    pub max_len: usize,
    /// Which sizes are free, and what happens at the edges.
    pub generic: Vec<String>,
}

/// The result of `forward`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputInfo {
    /// Of `student.pt`.
    pub scores: Vec<String>,
    /// Of `encoder.pt`.
    pub state: Vec<String>,
    /// Number type of both.
    pub dtype: String,
    /// What the scores contain for every item that the row holds; null: nothing.
    #[serde(deserialize_with = "Option::deserialize")]
    pub added_to_seen: Option<f32>,
}

/// The flat arrays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemsInfo {
    /// `[n_items, d]`.
    pub shape: [usize; 2],
    /// Number type.
    pub dtype: String,
    /// Order of the bytes of a number.
    pub byte_order: String,
    /// Order of the numbers.
    pub layout: String,
    /// Whether there is a bias file.
    pub bias: bool,
    /// How scores come of state and arrays.
    pub scores: String,
}

impl StudentManifest {
    /// Reads the manifest in `folder`.
    ///
    /// # Errors
    /// No export there, another version, a key that is missing or unknown, numbers that contradict one another.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST_FILE);
        let size = fs::metadata(&path).map_err(Error::io(&path, "read the manifest"))?.len();
        if size > LARGEST {
            return Err(bad(&path, format!("has {size} bytes, a manifest has a few thousand")));
        }
        let bytes = fs::read(&path).map_err(Error::io(&path, "read the manifest"))?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|e| bad(&path, format!("is not whole JSON: {e}")))?;
        let text = |value: Option<&Value>| value.map_or("none".to_owned(), Value::to_string);
        if value.get("kind").and_then(Value::as_str) != Some(KIND) {
            return Err(Error::Data {
                message: format!("is no exported student: kind: wanted \"{KIND}\", got {}", text(value.get("kind"))),
                path,
                line: None,
                hint: Some("name a folder that export-student made, or a run folder".into()),
            });
        }
        if value.get("schema_version").and_then(Value::as_u64) != Some(u64::from(SCHEMA_VERSION)) {
            let got = text(value.get("schema_version"));
            return Err(bad(&path, format!("schema_version: wanted {SCHEMA_VERSION}, got {got}")));
        }
        let manifest: Self = serde_json::from_value(value).map_err(|e| bad(&path, e.to_string()))?;
        manifest.consistent().map_err(|message| bad(&path, message))?;
        Ok(manifest)
    }

    fn consistent(&self) -> Result<(), String> {
        let [n_items, d] = self.items.shape;
        if n_items != self.dataset.n_items || n_items == 0 || d == 0 {
            return Err(format!("items.shape [{n_items}, {d}]: the data set has {} items", self.dataset.n_items));
        }
        for name in FILES {
            let there = self.files.contains_key(name);
            let wanted = name != BIAS_FILE || self.items.bias;
            if there != wanted {
                let is = if there { "must not" } else { "must" };
                return Err(format!("files: `{name}` {is} be there (items.bias is {})", self.items.bias));
            }
        }
        if let Some(other) = self.files.keys().find(|name| !FILES.contains(&name.as_str())) {
            return Err(format!("files: `{other}` is no file of an exported student"));
        }
        for (name, numbers) in [(ITEMS_FILE, n_items.checked_mul(d)), (BIAS_FILE, Some(n_items))] {
            let want = numbers.and_then(|n| n.checked_mul(4));
            let got = self.files.get(name).map(|info| info.bytes);
            if got.is_some_and(|got| want != Some(got as usize)) {
                return Err(format!(
                    "files: {name} has {got:?} bytes, items.shape {:?} needs {want:?}",
                    self.items.shape
                ));
            }
        }
        Ok(())
    }

    /// Compares size and checksum of every file in `folder`.
    ///
    /// # Errors
    /// Naming the first file that is missing, truncated, longer or changed.
    pub fn check_files(&self, folder: &Path) -> Result<()> {
        for (name, want) in &self.files {
            let path = folder.join(name);
            let bytes = fs::metadata(&path).map_err(Error::io(&path, "read the exported student"))?.len();
            if bytes != want.bytes {
                return Err(bad(&path, format!("has {bytes} bytes, the manifest says {}", want.bytes)));
            }
            let got = FileInfo::of(&path)?;
            if got.sha256 != want.sha256 {
                let message = format!("its sha256 is {:.12}…, the manifest says {:.12}…", got.sha256, want.sha256);
                return Err(bad(&path, message));
            }
        }
        Ok(())
    }
}

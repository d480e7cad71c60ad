//! `manifest.json`: what a bundle is, of which data, made how, and the checksums of its files.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    path::Path,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::bad;
use crate::{Error, Result, data::Dataset};

/// Name of the manifest inside a bundle.
pub const MANIFEST_FILE: &str = "manifest.json";
/// Version of the format that this code writes and reads.
pub const SCHEMA_VERSION: u32 = 1;
/// A manifest is a page of text; anything larger is something else.
const LARGEST: u64 = 16 << 20;

/// Which rows of a data set the row numbers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Position {
    /// Targets of `Dataset::train`: the only ones that may teach.
    Train,
    /// Targets of `Dataset::valid`.
    Valid,
    /// Targets of `Dataset::test`.
    Test,
}

impl Position {
    /// As written in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
            Self::Test => "test",
        }
    }

    /// Those rows of a data set.
    pub fn rows(self, dataset: &Dataset) -> &crate::data::Rows {
        match self {
            Self::Train => &dataset.train,
            Self::Valid => &dataset.valid,
            Self::Test => &dataset.test,
        }
    }
}

/// The data set that the numbers belong to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetIdentity {
    /// [`Dataset::name`].
    pub name: String,
    /// [`Dataset::hash`].
    pub hash: String,
    /// [`Dataset::items_hash`].
    pub items_hash: String,
    /// N.
    pub n_items: usize,
    /// All targets at the position, labelled or not.
    pub n_rows: usize,
}

impl DatasetIdentity {
    /// That of a data set at a position.
    pub fn of(dataset: &Dataset, position: Position) -> Self {
        Self {
            name: dataset.name.clone(),
            hash: dataset.hash.clone(),
            items_hash: dataset.items_hash.clone(),
            n_items: dataset.n_items(),
            n_rows: position.rows(dataset).n_targets(),
        }
    }
}

/// Direction and range of the confidence numbers; there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Small is good, 0 or more.
    Distance,
}

/// What the confidence numbers are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confidence {
    /// Always `distance`.
    pub unit: Unit,
    /// In words: `best score - score`, `-log softmax of the scores`, `L2 distance of text embeddings`, `place in the list`.
    pub meaning: String,
}

impl Confidence {
    /// Distances with this meaning.
    pub fn distance(meaning: impl Into<String>) -> Self {
        Self { unit: Unit::Distance, meaning: meaning.into() }
    }
}

/// Who made the lists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Teacher {
    /// Such as `ilora`, `sasrec`, `imported`.
    pub name: String,
    /// Anything that says how it was made.
    pub config: Value,
}

/// Everything that is known of a bundle before its rows are made. Two exports with equal specs make the same bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Whose rows and items.
    pub dataset: DatasetIdentity,
    /// For which targets of each user the lists are.
    pub position: Position,
    /// K.
    pub top_n: usize,
    /// Whether items of the history were left out of the lists (the target never is on that account).
    pub exclude_history: bool,
    /// Whether a list may hold its row's target.
    pub target_may_appear: bool,
    /// What the distances are.
    pub confidence: Confidence,
    /// Who made the lists.
    pub teacher: Teacher,
    /// How the rows were chosen, in any form; null: every row has a list.
    pub selection: Value,
}

/// The part of the manifest on the lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListsInfo {
    /// Rows with a list.
    pub rows: usize,
    /// Of so many.
    pub of: usize,
    /// K.
    pub top_n: usize,
    /// See [`Spec::exclude_history`].
    pub exclude_history: bool,
    /// See [`Spec::target_may_appear`].
    pub target_may_appear: bool,
}

/// The part of the manifest on the item vectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingsInfo {
    /// N.
    pub n_items: usize,
    /// D.
    pub dim: usize,
}

/// Size and checksum of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileInfo {
    /// Length.
    pub bytes: u64,
    /// Of the content, lower-case hex.
    pub sha256: String,
}

impl FileInfo {
    /// Reads a file for its size and checksum.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::io(path, "read the bundle"))?;
        let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
        loop {
            let n = file.read(&mut buffer).map_err(Error::io(path, "read the bundle"))?;
            if n == 0 {
                let sha256 = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
                return Ok(Self { bytes, sha256 });
            }
            hash.update(&buffer[..n]);
            bytes += n as u64;
        }
    }
}

/// The content of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Whose rows and items.
    pub dataset: DatasetIdentity,
    /// For which targets of each user the lists are.
    pub position: Position,
    /// What the lists are.
    pub lists: ListsInfo,
    /// What the distances are.
    pub confidence: Confidence,
    /// The item vectors; null where the teacher has none.
    #[serde(deserialize_with = "Option::deserialize")]
    pub embeddings: Option<EmbeddingsInfo>,
    /// Who made the lists.
    pub teacher: Teacher,
    /// How the rows were chosen; null: every row has a list.
    pub selection: Value,
    /// Every other file of the folder.
    pub files: BTreeMap<String, FileInfo>,
}

impl Manifest {
    /// The spec that a bundle was made from.
    pub fn spec(&self) -> Spec {
        Spec {
            dataset: self.dataset.clone(),
            position: self.position,
            top_n: self.lists.top_n,
            exclude_history: self.lists.exclude_history,
            target_may_appear: self.lists.target_may_appear,
            confidence: self.confidence.clone(),
            teacher: self.teacher.clone(),
            selection: self.selection.clone(),
        }
    }

    /// Reads the manifest of the bundle in `folder`.
    ///
    /// # Errors
    /// No bundle there, another version, a key that is missing or unknown, numbers that contradict one another.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST_FILE);
        let again = "export the bundle again, or take another";
        if !path.is_file() {
            let what = if folder.is_dir() { "there is no manifest.json in it" } else { "there is no such folder" };
            let hint =
                "name the folder of a teacher bundle; export-bundle and import-bundle make them below a run folder";
            return Err(bad(folder, format!("is no teacher bundle: {what}"), hint));
        }
        let size = fs::metadata(&path).map_err(Error::io(&path, "read the manifest"))?.len();
        if size > LARGEST {
            return Err(bad(&path, format!("has {size} bytes, a manifest has a few thousand"), again));
        }
        let bytes = fs::read(&path).map_err(Error::io(&path, "read the manifest"))?;
        let value: Value =
            serde_json::from_slice(&bytes).map_err(|e| bad(&path, format!("is not whole JSON: {e}"), again))?;
        match value.get("schema_version").and_then(Value::as_u64) {
            Some(version) if version == u64::from(SCHEMA_VERSION) => {}
            got => {
                let got = got.map_or("none".to_owned(), |v| v.to_string());
                let message = format!("schema_version: wanted {SCHEMA_VERSION}, got {got}");
                return Err(bad(&path, message, "read it with the version that wrote it, or export it again"));
            }
        }
        let manifest: Self = serde_path_to_error::deserialize(value).map_err(|e| bad(&path, e.to_string(), again))?;
        manifest.consistent().map_err(|message| bad(&path, message, again))?;
        Ok(manifest)
    }

    fn consistent(&self) -> Result<(), String> {
        let (lists, data) = (&self.lists, &self.dataset);
        if lists.of != data.n_rows || lists.rows > lists.of {
            return Err(format!("lists.rows {} of {}: the data set has {} rows", lists.rows, lists.of, data.n_rows));
        }
        if lists.top_n == 0 || lists.top_n > data.n_items {
            return Err(format!("lists.top_n: wanted 1 to {} (the items), got {}", data.n_items, lists.top_n));
        }
        if self.selection.is_null() && lists.rows != lists.of {
            return Err(format!(
                "selection is null, which says that every row has a list, but {} of {} have",
                lists.rows, lists.of
            ));
        }
        if let Some(found) = self.embeddings.as_ref().filter(|e| e.n_items != data.n_items || e.dim == 0) {
            let got = format!("[{}, {}]", found.n_items, found.dim);
            return Err(format!("embeddings: wanted [{} items, at least 1], got {got}", data.n_items));
        }
        let wanted = [Some(super::RANKINGS_FILE), self.embeddings.as_ref().map(|_| super::EMBEDDINGS_FILE)];
        for name in wanted.into_iter().flatten() {
            if !self.files.contains_key(name) {
                return Err(format!("files: there is no checksum of {name}"));
            }
        }
        match self.files.keys().find(|name| !wanted.contains(&Some(name.as_str()))) {
            Some(other) => Err(format!("files: `{other}` is no file of a bundle")),
            None => Ok(()),
        }
    }

    /// Compares with a data set at hand.
    ///
    /// # Errors
    /// Other items, other rows, another number of rows; names both hashes.
    pub fn check_dataset(&self, folder: &Path, dataset: &Dataset) -> Result<()> {
        let (then, now) = (&self.dataset, DatasetIdentity::of(dataset, self.position));
        let differs = |what: &str, then: &str, now: &str| {
            format!("{what}: the bundle was made for {then:.12}…, the data set at hand has {now:.12}…")
        };
        let message = if then.items_hash != now.items_hash {
            differs("other items", &then.items_hash, &now.items_hash)
        } else if then.hash != now.hash {
            differs("same items, but other rows", &then.hash, &now.hash)
        } else if (then.n_items, then.n_rows) != (now.n_items, now.n_rows) {
            let [a, b] = [then, &now].map(|d| format!("{} items and {} rows", d.n_items, d.n_rows));
            format!("the hashes agree, but the bundle says {a}, the data set has {b}")
        } else {
            return Ok(());
        };
        let hint = if then.name == now.name {
            format!("both are dataset={}, but its files, filters or split differ; export the bundle again", now.name)
        } else {
            format!("the bundle belongs to dataset={}, the data set at hand is dataset={}", then.name, now.name)
        };
        Err(bad(&folder.join(MANIFEST_FILE), message, &hint))
    }

    /// Compares a file with its size and checksum.
    ///
    /// # Errors
    /// A file that is missing, truncated, longer, or changed.
    pub(super) fn check_file(&self, folder: &Path, name: &str) -> Result<()> {
        let path = folder.join(name);
        let Some(want) = self.files.get(name) else {
            return Err(bad(&path, "is not in the manifest", "export the bundle again"));
        };
        let again = "copy the bundle again from where it was made, or export it again";
        let bytes = fs::metadata(&path).map_err(Error::io(&path, "read the bundle"))?.len();
        if bytes != want.bytes {
            let what = if bytes < want.bytes { "is truncated" } else { "is longer than it was" };
            return Err(bad(&path, format!("{what}: {bytes} bytes, the manifest says {}", want.bytes), again));
        }
        let got = FileInfo::of(&path)?;
        if got.sha256 != want.sha256 {
            let message =
                format!("was changed: its sha256 is {:.12}…, the manifest says {:.12}…", got.sha256, want.sha256);
            return Err(bad(&path, message, again));
        }
        Ok(())
    }
}

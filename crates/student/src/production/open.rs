//! Reading an exported folder back.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyo_core::{Batch, Error, Recommender, Result, config::Check, data::Item, torch::load_tensors};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use super::{IDS_FILE, MANIFEST_FILE, StudentManifest, WEIGHTS_FILE, bad};
use crate::student::Student;

/// One line of `item_ids.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ItemLine {
    pub(super) id: String,
    pub(super) title: String,
}

/// An exported student, checked and ready to score; it needs nothing but its folder.
pub struct ExportedStudent {
    /// Its folder.
    pub folder: PathBuf,
    /// What it is.
    pub manifest: StudentManifest,
    /// The items by number; their `text` is empty.
    pub items: Vec<Item>,
    student: Student,
}

/// Whether `folder` has a manifest and is no run folder: a student's, or some other manifest.
pub fn is_exported(folder: &Path) -> bool {
    folder.join(MANIFEST_FILE).is_file() && !folder.join("config.yaml").is_file()
}

impl ExportedStudent {
    /// Reads the folder and compares every checksum.
    ///
    /// # Errors
    /// When it is no exported student, or a file is missing, changed, or does not fit the manifest.
    pub fn open(folder: &Path, device: Device) -> Result<Self> {
        let manifest = StudentManifest::read(folder)?;
        manifest.check_files(folder)?;
        let (manifest_path, ids_path, n_items) =
            (folder.join(MANIFEST_FILE), folder.join(IDS_FILE), manifest.dataset.n_items);
        let bytes = fs::read(&ids_path).map_err(Error::io(&ids_path, "read the item ids"))?;
        let lines: Vec<ItemLine> =
            serde_json::from_slice(&bytes).map_err(|e| bad(&ids_path, format!("is not a list of items: {e}")))?;
        if lines.len() != n_items {
            return Err(bad(&ids_path, format!("has {} items, the manifest says {n_items}", lines.len())));
        }
        if let Some(problem) = manifest.model.config.problems().into_iter().next() {
            return Err(bad(&manifest_path, format!("model.config.{}: {}", problem.key, problem.message)));
        }
        let weights = folder.join(WEIGHTS_FILE);
        let tensors: BTreeMap<String, Tensor> = load_tensors(&weights)?;
        let shapes: BTreeMap<String, Vec<i64>> = tensors.iter().map(|(name, t)| (name.clone(), t.size())).collect();
        if shapes != manifest.weights {
            return Err(bad(&weights, "names or shapes of its tensors are not those of the manifest"));
        }
        let student = Student::new(&manifest.model.config, n_items, device, 0)?;
        student.load(&tensors).map_err(|e| bad(&weights, e.to_string()))?;
        let item = |line: ItemLine| Item { id: line.id, title: line.title, text: String::new() };
        let items = lines.into_iter().map(item).collect();
        Ok(Self { folder: folder.to_owned(), manifest, items, student })
    }
}

impl Recommender for ExportedStudent {
    fn score(&self, batch: &Batch<'_>) -> Result<Tensor> {
        self.student.score(batch)
    }
}

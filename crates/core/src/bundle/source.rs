//! The bundle that a run learns from: found by what the user wrote, checked, and remembered, so that a resumed run goes on
//! with the same one.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Bundle, FileInfo, MANIFEST_FILE, Manifest, Position, Wanted};
use crate::{
    Error, Result,
    data::Dataset,
    run::{Run, latest_run_where},
};

/// Folder of the bundle inside a run folder.
pub const BUNDLE_FOLDER: &str = "bundle";

/// Who teaches a run.
#[derive(Debug, Clone, Copy)]
pub struct BundleSource<'a> {
    /// The key of the configuration that names it, for messages.
    pub key: &'a str,
    /// What it says: `latest`, a run folder, or a bundle's own folder.
    pub from: &'a Path,
    /// What it is to the run: name of its record in `run.yaml` and of the file `NAME.json` in the run folder.
    pub role: &'a str,
}

impl BundleSource<'_> {
    /// The folder of the bundle; `latest` is that of the newest run under `result/` which holds one with lists for the
    /// training rows of this data.
    ///
    /// # Errors
    /// When there is none; of a folder without one it says what was looked for.
    pub fn find(&self, dataset: &Dataset) -> Result<PathBuf> {
        let Self { key, from, .. } = self;
        if *from == Path::new("latest") {
            let fits = |run: &Path| {
                Manifest::read(&run.join(BUNDLE_FOLDER))
                    .is_ok_and(|m| m.position == Position::Train && m.dataset.hash == dataset.hash)
            };
            return latest_run_where(&fits).map(|run| run.join(BUNDLE_FOLDER)).ok_or_else(|| Error::Invalid {
                message: format!(
                    "{key}=latest: no run under result/ has a bundle for the training rows of {} (hash {:.12}…)",
                    dataset.name, dataset.hash
                ),
                hint: Some(
                    "make one with run-teacher, or with export-bundle of a student's run; or give a path".into(),
                ),
            });
        }
        let inside = from.join(BUNDLE_FOLDER);
        for folder in [*from, &inside] {
            if folder.join(MANIFEST_FILE).is_file() {
                return Ok(folder.to_owned());
            }
        }
        let message = match from.is_dir() {
            true => format!("{key}: {} holds no finished bundle ({MANIFEST_FILE})", from.display()),
            false => format!("{key}: there is no folder {}", from.display()),
        };
        let hint = "name a run of run-teacher, export-bundle or import-bundle, or a bundle's folder; or write latest";
        Err(Error::Invalid { message, hint: Some(hint.into()) })
    }

    /// Opens and checks what is wanted of the bundle, and writes down which one it is. A resumed run opens the one it began
    /// with, even where a newer one has appeared.
    ///
    /// # Errors
    /// As [`BundleSource::find`] and [`Bundle::open_for_training`]; a resumed run whose bundle is not what it was.
    pub fn open(&self, dataset: &Dataset, wanted: Wanted, run: &mut Run) -> Result<Bundle> {
        let file = format!("{}.json", self.role);
        let before = if run.resumed() { self.earlier(&run.path().join(&file))? } else { None };
        let folder = match &before {
            Some((folder, _)) => folder.clone(),
            None => self.find(dataset)?,
        };
        let sha256 = match folder.join(MANIFEST_FILE).is_file() {
            true => FileInfo::of(&folder.join(MANIFEST_FILE))?.sha256,
            false => String::new(),
        };
        if let Some((_, then)) = before.filter(|(_, then)| *then != sha256) {
            return Err(Error::Checkpoint {
                path: folder,
                message: format!(
                    "the bundle is not the one that this run began with (manifest {then:.12}…, now {sha256:.12}…)"
                ),
                hint: Some("put that bundle back, or start anew with --from".into()),
            });
        }
        let bundle = Bundle::open_for_training(&folder, dataset, wanted)?;
        let manifest = bundle.manifest();
        let absolute = std::path::absolute(&folder).unwrap_or(folder);
        let told = json!({
            "bundle": absolute,
            "manifest_sha256": sha256,
            "name": manifest.teacher.name,
            "rows": manifest.lists.rows,
            "of": manifest.lists.of,
            "top_n": manifest.lists.top_n,
            "rankings": wanted.rankings,
            "embeddings": wanted.embeddings,
        });
        run.write_json(&file, &told)?;
        run.record(self.role, told)?;
        run.info(&format!("{} {}: {}", self.role, manifest.teacher.name, absolute.display()));
        Ok(bundle)
    }

    /// Bundle and manifest's sum of the run that is continued.
    fn earlier(&self, path: &Path) -> Result<Option<(PathBuf, String)>> {
        if !path.is_file() {
            return Ok(None);
        }
        let text = std::fs::read(path).map_err(Error::io(path, "read which bundle taught"))?;
        let value: Value = serde_json::from_slice(&text).unwrap_or_default();
        match (value["bundle"].as_str(), value["manifest_sha256"].as_str()) {
            (Some(folder), Some(sha256)) => Ok(Some((folder.into(), sha256.to_owned()))),
            _ => Err(Error::Checkpoint {
                path: path.to_owned(),
                message: "does not say which bundle taught".into(),
                hint: Some("start anew with --from".into()),
            }),
        }
    }
}

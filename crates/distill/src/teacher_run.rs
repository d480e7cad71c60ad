//! Which bundle teaches: `teacher_run=latest`, a run folder, or a bundle's own folder.

use std::path::{Path, PathBuf};

use anyo_core::{
    Error, Result,
    bundle::{MANIFEST_FILE, Manifest, Position},
    data::Dataset,
    run::latest_run_where,
};

/// Folder of the bundle inside a run folder.
const BUNDLE_FOLDER: &str = "bundle";

/// The folder of the bundle that `teacher_run` names; `latest` is that of the newest run under `result/` which holds one
/// with lists for the training rows of this data.
///
/// # Errors
/// When there is none; of a folder without one it says what was looked for.
pub fn find_bundle(teacher_run: &Path, dataset: &Dataset) -> Result<PathBuf> {
    if teacher_run == Path::new("latest") {
        let fits = |run: &Path| {
            Manifest::read(&run.join(BUNDLE_FOLDER))
                .is_ok_and(|m| m.position == Position::Train && m.dataset.hash == dataset.hash)
        };
        return latest_run_where(&fits).map(|run| run.join(BUNDLE_FOLDER)).ok_or_else(|| Error::Invalid {
            message: format!(
                "teacher_run=latest: no run under result/ has a bundle for the training rows of {} (hash {:.12}…)",
                dataset.name, dataset.hash
            ),
            hint: Some("make one with run-teacher, or with export-bundle of a student's run; or give a path".into()),
        });
    }
    let inside = teacher_run.join(BUNDLE_FOLDER);
    for folder in [teacher_run, &inside] {
        if folder.join(MANIFEST_FILE).is_file() {
            return Ok(folder.to_owned());
        }
    }
    let message = match teacher_run.is_dir() {
        true => format!("teacher_run: {} holds no finished bundle ({MANIFEST_FILE})", teacher_run.display()),
        false => format!("teacher_run: there is no folder {}", teacher_run.display()),
    };
    let hint = "name a run of run-teacher, export-bundle or import-bundle, or a bundle's folder; or write latest";
    Err(Error::Invalid { message, hint: Some(hint.into()) })
}

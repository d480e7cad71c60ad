//! `latest`, or a path, to a run folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::record;
use crate::{Error, Result};

/// The run folder that `run` names: a path, or `latest` for the newest run of `app` under `result/`.
///
/// # Errors
/// [`Error::Invalid`] naming what is there instead: no folder, no `config.yaml`, a sweep folder, a run of another app.
pub fn resolve_run(run: impl AsRef<Path>, app: &str) -> Result<PathBuf> {
    resolve_in(Path::new("result"), run.as_ref(), app)
}

pub(crate) fn resolve_in(results: &Path, run: &Path, app: &str) -> Result<PathBuf> {
    if run == Path::new("latest") {
        return latest(results, app).ok_or_else(|| {
            fail(format!("latest: there is no run of {app} under {}/", results.display()), format!("make one with {app}, or give a path"))
        });
    }
    let shown = run.display();
    if !run.is_dir() {
        let hint = match latest(results, app) {
            Some(path) => format!("the newest run of {app} is {}", path.display()),
            None => format!("make one with {app}"),
        };
        return Err(fail(format!("{shown}: there is no such run folder"), hint));
    }
    if run.join("sweep.yaml").is_file() {
        return Err(fail(format!("{shown} is a sweep, not a run"), format!("name one of its jobs, such as {shown}/0")));
    }
    if !run.join("config.yaml").is_file() {
        return Err(fail(format!("{shown} is no run folder: it holds no config.yaml"), "name a folder result/result_…".into()));
    }
    let made_by = record::read(&run.join("run.yaml")).and_then(|r| Some(r.get("app")?.as_str()?.to_owned()));
    match made_by {
        Some(other) if other != app => {
            Err(fail(format!("{shown} is a run of {other}, not of {app}"), format!("name a run of {app}, or `latest`")))
        }
        _ => Ok(run.to_owned()),
    }
}

fn fail(message: String, hint: String) -> Error {
    Error::Invalid { message, hint: Some(hint) }
}

/// The run whose record has the latest start, jobs of sweeps included.
fn latest(results: &Path, app: &str) -> Option<PathBuf> {
    let runs = folders(results).into_iter().flat_map(|dir| {
        let jobs = if dir.join("sweep.yaml").is_file() { folders(&dir) } else { Vec::new() };
        std::iter::once(dir).chain(jobs)
    });
    runs.filter_map(|dir| {
        let record = record::read(&dir.join("run.yaml"))?;
        let is_app = record.get("app")?.as_str()? == app;
        let started = record.get("started")?.as_str()?.to_owned();
        (is_app && dir.join("config.yaml").is_file()).then_some((started, dir))
    })
    .max()
    .map(|(_, dir)| dir)
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

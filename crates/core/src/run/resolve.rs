//! `latest`, or a path, to a run folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use chrono::{DateTime, FixedOffset};

use super::record;
use crate::{Error, Result};

/// The run folder that `run` names: a path, or `latest` for the newest run of `app` under `result/`.
///
/// # Errors
/// [`Error::Invalid`] naming what is there instead: no folder, no `config.yaml`, a sweep folder, a run of another app.
pub fn resolve_run(run: impl AsRef<Path>, app: &str) -> Result<PathBuf> {
    resolve_in(Path::new("result"), run.as_ref(), app)
}

/// As [`resolve_run`] for whatever one of several apps made: `latest` is the newest run of any of them.
///
/// # Errors
/// As [`resolve_run`].
pub fn resolve_run_of(run: impl AsRef<Path>, apps: &[&str]) -> Result<PathBuf> {
    let (results, run) = (Path::new("result"), run.as_ref());
    let is_one = |app: &str| apps.contains(&app);
    if run == Path::new("latest") {
        if let Some(path) = newest(results, &is_one) {
            return Ok(path);
        }
    } else if let Some(app) = app_of(run).filter(|app| is_one(app)) {
        return resolve_in(results, run, &app);
    }
    resolve_in(results, run, apps.first().copied().unwrap_or_default())
}

/// The newest run folder under `result/`, jobs of sweeps included, that `fits`.
pub fn latest_run_where(fits: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    let mut runs = started(Path::new("result"));
    runs.sort_by_key(|(started, _)| std::cmp::Reverse(*started));
    runs.into_iter().map(|(_, dir)| dir).find(|dir| fits(dir))
}

fn resolve_in(results: &Path, run: &Path, app: &str) -> Result<PathBuf> {
    if run == Path::new("latest") {
        return latest(results, app).ok_or_else(|| {
            fail(
                format!("latest: there is no run of {app} under {}/", results.display()),
                format!("make one with {app}, or give a path"),
            )
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
        return Err(fail(
            format!("{shown} is no run folder: it holds no config.yaml"),
            "name a folder result/result_…".into(),
        ));
    }
    match app_of(run) {
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
    newest(results, &|other| other == app)
}

fn newest(results: &Path, is_one: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let mut runs = started(results);
    runs.retain(|(_, dir)| app_of(dir).is_some_and(|app| is_one(&app)));
    runs.into_iter().max().map(|(_, dir)| dir)
}

fn app_of(run: &Path) -> Option<String> {
    Some(record::read(&run.join("run.yaml"))?.get("app")?.as_str()?.to_owned())
}

/// Every run folder with its start.
fn started(results: &Path) -> Vec<(DateTime<FixedOffset>, PathBuf)> {
    let runs = folders(results).into_iter().flat_map(|dir| {
        let jobs = if dir.join("sweep.yaml").is_file() { folders(&dir) } else { Vec::new() };
        std::iter::once(dir).chain(jobs)
    });
    runs.filter_map(|dir| {
        let record = record::read(&dir.join("run.yaml"))?;
        let started = DateTime::parse_from_rfc3339(record.get("started")?.as_str()?).ok()?;
        dir.join("config.yaml").is_file().then_some((started, dir))
    })
    .collect()
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(dir: &Path, app: &str, started: &str) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("config.yaml"), "seed: 1\n").unwrap();
        fs::write(dir.join("run.yaml"), format!("app: {app}\nstarted: {started}\n")).unwrap();
    }

    #[test]
    fn latest_is_the_newest_of_the_app_also_inside_sweeps() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert!(
            resolve_in(dir.path(), Path::new("latest"), "run-x").unwrap_err().to_string().contains("no run of run-x")
        );
        run(&at("result_1"), "run-x", "2026-01-01T00:00:00+00:00");
        run(&at("result_2"), "run-x", "2026-01-02T00:00:00+00:00");
        run(&at("result_3"), "run-y", "2026-01-03T00:00:00+00:00");
        assert_eq!(resolve_in(dir.path(), Path::new("latest"), "run-x").unwrap(), at("result_2"));
        run(&at("sweep/0"), "run-x", "2026-01-04T00:00:00+00:00");
        fs::write(at("sweep/sweep.yaml"), "").unwrap();
        assert_eq!(resolve_in(dir.path(), Path::new("latest"), "run-x").unwrap(), at("sweep/0"));
        assert_eq!(resolve_in(dir.path(), &at("result_1"), "run-x").unwrap(), at("result_1"));
    }

    #[test]
    fn a_wrong_run_says_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        run(&at("a"), "run-y", "2026-01-01T00:00:00+00:00");
        fs::create_dir_all(at("empty")).unwrap();
        fs::create_dir_all(at("sweep")).unwrap();
        fs::write(at("sweep/sweep.yaml"), "").unwrap();
        for (name, wanted) in [
            ("none", "there is no such run folder"),
            ("empty", "is no run folder: it holds no config.yaml"),
            ("sweep", "is a sweep, not a run"),
            ("a", "is a run of run-y, not of run-x"),
        ] {
            let error = resolve_in(dir.path(), &at(name), "run-x").unwrap_err();
            assert!(error.to_string().contains(wanted), "{error}");
            assert!(error.hint().is_some());
        }
    }
}

//! `run.yaml`: how the run was made. Rewritten atomically whenever something is learnt.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Map, Value, json};

use crate::{Result, config::yaml};

/// The content of `run.yaml`.
pub(crate) struct Record {
    path: PathBuf,
    values: Map<String, Value>,
}

impl Record {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, values: Map::new() }
    }

    /// Reads an existing file; what cannot be read is started anew, since it is a record and not an input.
    pub(crate) fn open(path: PathBuf) -> Self {
        Self { values: read(&path).unwrap_or_default(), path }
    }

    pub(crate) fn set(&mut self, key: &str, value: Value) {
        self.values.insert(key.to_owned(), value);
    }

    /// Appends to a list.
    pub(crate) fn push(&mut self, key: &str, value: Value) {
        match self.values.entry(key).or_insert_with(|| json!([])) {
            Value::Array(items) => items.push(value),
            other => *other = json!([value]),
        }
    }

    pub(crate) fn write(&self) -> Result<()> {
        super::write_atomic(&self.path, yaml::write(&self.values)?.as_bytes())
    }
}

/// The content of a `run.yaml` (or another YAML file of a run folder whose top level is a map), or `None`.
pub fn read(path: &Path) -> Option<Map<String, Value>> {
    yaml::read_as(path)
}

/// Commit and dirty flag of the repository that holds `dir`; `null` outside one.
pub(crate) fn git(dir: &Path) -> Value {
    let git = |arguments: &[&str]| -> Option<String> {
        let output =
            Command::new("git").arg("-C").arg(dir).args(arguments).env("GIT_OPTIONAL_LOCKS", "0").output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    match git(&["rev-parse", "HEAD"]) {
        Some(commit) => {
            let dirty = git(&["status", "--porcelain", "--untracked-files=no"]).map(|text| !text.is_empty());
            json!({ "commit": commit, "dirty": dirty })
        }
        None => Value::Null,
    }
}

/// Compiler, versions, processors.
pub(crate) fn host() -> Value {
    json!({
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "cpus": std::thread::available_parallelism().map_or(1, usize::from),
    })
}

/// The compiler as the build script names it, else the oldest one that can build this.
pub(crate) fn toolchain() -> String {
    match option_env!("ANYO_RUSTC") {
        Some(version) => version.to_owned(),
        None => format!("rustc {} or later", env!("CARGO_PKG_RUST_VERSION")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_tells_commit_and_dirty() {
        let dir = tempfile::tempdir().unwrap();
        let run = |arguments: &[&str]| {
            let identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"];
            Command::new("git")
                .arg("-C")
                .arg(dir.path())
                .args(identity)
                .args(arguments)
                .output()
                .is_ok_and(|o| o.status.success())
        };
        if !run(&["init", "-q"]) {
            eprintln!("skipped: git is not installed");
            return;
        }
        std::fs::write(dir.path().join("a"), "1").unwrap();
        assert!(run(&["add", "a"]) && run(&["commit", "-q", "-m", "x"]));
        let clean = git(dir.path());
        assert_eq!(clean["commit"].as_str().unwrap().len(), 40);
        assert_eq!(clean["dirty"], json!(false));
        std::fs::write(dir.path().join("a"), "2").unwrap();
        assert_eq!(git(dir.path())["dirty"], json!(true));
        assert_eq!(git(Path::new("/")), Value::Null);
    }
}

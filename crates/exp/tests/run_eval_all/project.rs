//! A scratch folder in which the binaries are started as a person starts them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

/// A small toy: 120 users, 60 items.
pub(crate) const DATA: &[&str] =
    &["dataset.toy.n_users=120", "dataset.toy.n_items=60", "threads=1", "data.cache=cache"];
/// A small student.
pub(crate) const STUDENT: &[&str] =
    &["student.d_model=16", "student.max_len=20", "train.epochs=2", "train.batch_size=16", "eval.bootstrap=200"];
/// Few resamples, no clock.
pub(crate) const QUICK: &[&str] = &["resamples=500", "latency_users=5", "threads=1"];

#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn new(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let said = Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
        for word in ["panicked", "internal error", "NaN"] {
            assert!(!said.err.contains(word) && !said.out.contains(word), "{word} reached the user: {}", said.err);
        }
        said
    }

    pub(crate) fn done(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.err, self.out);
        self
    }

    /// One error with all of `parts`, and a hint.
    pub(crate) fn failed(self, parts: &[&str]) {
        assert!(self.code == Some(1) || self.code == Some(2), "{:?}: {}\n{}", self.code, self.err, self.out);
        let error = &self.err[self.err.find("error: ").unwrap_or_else(|| panic!("no error line: {}", self.err))..];
        assert_eq!(error.matches("error: ").count(), 1, "one message: {error}");
        for part in parts {
            assert!(error.contains(part), "`{part}` in: {error}");
        }
    }
}

pub(crate) struct Project {
    dir: tempfile::TempDir,
}

impl Project {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn at(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    pub(crate) fn read(&self, relative: &str) -> String {
        fs::read_to_string(self.at(relative)).unwrap_or_else(|e| panic!("{relative}: {e}"))
    }

    pub(crate) fn json(&self, relative: &str) -> Value {
        serde_json::from_str(&self.read(relative)).unwrap()
    }

    pub(crate) fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(words).current_dir(self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf");
        command.env("ANYO_CONF", conf).env("OMP_WAIT_POLICY", "passive");
        command
    }

    /// A finished run of run-student-baseline in `dir`.
    pub(crate) fn student(&self, dir: &str, words: &[&str]) {
        let place = format!("run.dir={dir}");
        let words = [DATA, STUDENT, &[place.as_str()], words].concat();
        let output = self.command(env!("CARGO_BIN_EXE_run-student-baseline"), &words).output().unwrap();
        Said::new(output).done();
    }

    pub(crate) fn compare(&self, words: &[&str]) -> Said {
        Said::new(self.command(env!("CARGO_BIN_EXE_run-eval-all"), words).output().unwrap())
    }

    pub(crate) fn start(&self, words: &[&str]) -> Child {
        self.command(env!("CARGO_BIN_EXE_run-eval-all"), words).spawn().unwrap()
    }
}

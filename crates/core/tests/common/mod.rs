//! Starting the `demo` example as a real process in a folder of its own.
#![allow(dead_code, clippy::unwrap_used, reason = "helpers of tests, of which each test file uses a part")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// A scratch project with the demo's configuration.
pub(crate) struct Demo {
    dir: tempfile::TempDir,
}

/// What a process said and how it ended.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

const PRIMARY: &str = "# The demo's settings.
defaults:
  - optim: adam
  - _self_
seed: 1        # any number
steps: 3
sleep_ms: 0
end: done      # done | error | panic | abort
run: {dir: \"result/result_${now}\"}
";

impl Demo {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("conf/optim");
        fs::create_dir_all(&conf).unwrap();
        fs::write(dir.path().join("conf/demo.yaml"), PRIMARY).unwrap();
        fs::write(conf.join("adam.yaml"), "lr: 0.5\n").unwrap();
        fs::write(conf.join("sgd.yaml"), "lr: 0.25\n").unwrap();
        Self { dir }
    }

    pub(crate) fn at(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    pub(crate) fn read(&self, relative: &str) -> String {
        fs::read_to_string(self.at(relative)).unwrap_or_else(|e| panic!("{relative}: {e}"))
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(words)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.env_remove("ANYO_CONF").env("RUST_BACKTRACE", "0");
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Said {
        said(self.command(words).output().unwrap())
    }

    /// The folders below `result/`, sorted.
    pub(crate) fn results(&self) -> Vec<String> {
        names(&self.at("result"))
    }

    /// The only run folder, relative to the project.
    pub(crate) fn only(&self) -> String {
        let results = self.results();
        assert_eq!(results.len(), 1, "{results:?}");
        format!("result/{}", results[0])
    }
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

pub(crate) fn said(output: Output) -> Said {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// The example lies beside the test's own folder; `cargo test` and nextest build it.
pub(crate) fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("examples/demo");
    assert!(path.is_file(), "{} is missing: cargo build -p anyo-core --example demo", path.display());
    path
}

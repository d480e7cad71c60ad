//! A scratch folder in which the binary is started as a person starts it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

/// A small toy and a small model: a run takes about a second.
pub(crate) const SMALL: &[&str] = &[
    "dataset.toy.n_users=120",
    "dataset.toy.n_items=60",
    "student.d_model=16",
    "student.max_len=20",
    "train.epochs=3",
    "train.batch_size=16",
    "eval.bootstrap=20",
    "threads=1",
];

/// What a process said and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    fn new(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let said = Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
        for word in ["panicked", "internal error", "RUST_BACKTRACE", "stack backtrace"] {
            assert!(!said.err.contains(word) && !said.out.contains(word), "{word} reached the user: {}", said.err);
        }
        said
    }

    pub(crate) fn done(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.err, self.out);
        self
    }

    /// The one error: exit code, and all of `parts` in the lines from `error:` on.
    pub(crate) fn failed(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.err, self.out);
        let at = self.err.find("error: ").unwrap_or_else(|| panic!("no error line: {}", self.err));
        let error = &self.err[at..];
        assert_eq!(error.matches("error: ").count(), 1, "one message: {error}");
        for part in parts {
            assert!(error.contains(part), "`{part}` in: {error}");
        }
        self
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
        String::from_utf8(self.bytes(relative)).unwrap()
    }

    pub(crate) fn bytes(&self, relative: &str) -> Vec<u8> {
        fs::read(self.at(relative)).unwrap_or_else(|e| panic!("{relative}: {e}"))
    }

    pub(crate) fn json(&self, relative: &str) -> Value {
        serde_json::from_str(&self.read(relative)).unwrap()
    }

    pub(crate) fn write(&self, relative: &str, text: &str) {
        let path = self.at(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The command with the shipped configuration, in the scratch folder.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_run-student-baseline"));
        command.args(words);
        self.settle(command)
    }

    /// The command inside a shell that first does `before`.
    pub(crate) fn shell(&self, before: &str, words: &[&str]) -> Said {
        let mut command = Command::new("bash");
        let line = format!("{before}; exec {} \"$@\"", env!("CARGO_BIN_EXE_run-student-baseline"));
        command.arg("-c").arg(line).arg("sh").args(words);
        Said::new(self.settle(command).output().unwrap())
    }

    /// Any command of ours, in the scratch folder.
    pub(crate) fn settle(&self, mut command: Command) -> Command {
        command.current_dir(self.dir.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("ANYO_CONF", conf()).env("OMP_WAIT_POLICY", "passive");
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Said {
        Said::new(self.command(words).output().unwrap())
    }

    /// [`Project::run`] with [`SMALL`] before the words.
    pub(crate) fn small(&self, words: &[&str]) -> Said {
        self.run(&[SMALL, words].concat())
    }

    pub(crate) fn start(&self, words: &[&str]) -> Child {
        self.command(words).spawn().unwrap()
    }

    /// Every file of a folder, relative to it, sorted.
    pub(crate) fn files(&self, relative: &str) -> Vec<String> {
        let root = self.at(relative);
        let mut found = Vec::new();
        let mut open = vec![root.clone()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    found.push(path.strip_prefix(&root).unwrap().display().to_string());
                }
            }
        }
        found.sort();
        found
    }

    /// The steps of the checkpoints of a run, ascending.
    pub(crate) fn checkpoints(&self, run: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.at(&format!("{run}/checkpoints")))
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

pub(crate) fn conf() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf")
}

/// Real data beside the repository, or a printed reason to skip.
pub(crate) fn shared_data() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if path.is_dir() {
        return Some(path.canonicalize().unwrap());
    }
    eprintln!("skipped: {} is not there", path.display());
    None
}

/// Waits until `what` holds; fails when the process ends before.
pub(crate) fn wait_for(child: &mut Child, what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be disturbed");
        assert!(start.elapsed() < Duration::from_secs(120), "waited too long");
        sleep(Duration::from_millis(5));
    }
}

pub(crate) fn signal(child: &Child, signal: i32) {
    // SAFETY: the process was started by this test and has not been waited for.
    unsafe { libc::kill(child.id() as libc::pid_t, signal) };
}

pub(crate) fn said(child: Child) -> Said {
    Said::new(child.wait_with_output().unwrap())
}

//! A run: its folder, its logs, its metrics, its progress and whether it should stop.

mod folder;
mod record;
mod resolve;

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::record::Record;
pub(crate) use self::{
    folder::create_exactly,
    record::{git, host, toolchain},
};
pub use self::{
    folder::{create, write_atomic},
    record::read as read_record,
    resolve::{latest_run_where, resolve_run, resolve_run_of},
};
use crate::{
    Error, Result,
    log::{Console, Metrics, Progress},
    signal,
};

/// The `run:` part of every configuration: where a run writes, not what it computes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The run folder; made with `-2`, `-3` behind it when it exists.
    pub dir: PathBuf,
}

/// One run of a binary; `cli::run` makes it and hands it to the body.
pub struct Run {
    path: PathBuf,
    resumed: bool,
    console: Console,
    metrics: Metrics,
    record: Record,
    stop: Arc<AtomicBool>,
    started: Instant,
    /// Held as long as the run lives: a second process must not write into the same folder.
    _lock: Option<File>,
}

impl Run {
    /// A run in a folder that exists already. `resumed` keeps the record.
    pub(crate) fn open(path: PathBuf, resumed: bool) -> Result<Self> {
        let log = path.join("run.log");
        let file = OpenOptions::new().create(true).append(true).open(&log).map_err(Error::io(&log, "open the log"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Invalid {
                    message: format!("{}: another process is writing into this run", path.display()),
                    hint: Some("wait for it or stop it first".into()),
                });
            }
            // Some network file systems cannot lock; then there is no such protection.
            Err(TryLockError::Error(_)) => {}
        }
        let console = Console::default();
        let writer = file.try_clone().map_err(Error::io(&log, "open the log"))?;
        console.log_to(writer);
        let record = path.join("run.yaml");
        Ok(Self {
            metrics: Metrics::new(&path),
            record: if resumed { Record::open(record) } else { Record::new(record) },
            path,
            resumed,
            console,
            stop: signal::stop_flag(),
            started: Instant::now(),
            _lock: Some(file),
        })
    }

    /// A run in a new folder (`path`, or `path-2` …) without a configuration: for tests and small tools.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be made.
    pub fn scratch(path: &Path) -> Result<Self> {
        Self::open(create(path)?, false)
    }

    /// The run folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this run continues an earlier one (`--resume`).
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// A line on stderr and in `run.log`.
    pub fn info(&self, text: &str) {
        self.console.say("info", text);
    }

    /// A warning on stderr and in `run.log`.
    pub fn warn(&self, text: &str) {
        self.console.say("warning", text);
    }

    /// A result on stdout and in `run.log`.
    pub fn print(&self, text: &str) {
        self.console.print(text);
    }

    /// Scalars at a step, into `metrics.jsonl` and TensorBoard; names such as `train/loss`. A value that is not finite is
    /// `null` in the former.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file; a full disk says so.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        self.metrics.scalars(step, values)
    }

    /// Takes out of `metrics.jsonl` and TensorBoard what lies after `step`, before a resumed run writes it again.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn truncate_metrics(&mut self, step: u64) -> Result<()> {
        self.metrics.truncate(step)
    }

    /// A progress bar over `len` items (`unit`: "rows", "users"); a plain line now and then where stderr is no terminal.
    pub fn progress(&self, len: u64, unit: &'static str) -> Progress {
        Progress::new(self.console.clone(), len, unit)
    }

    /// Notes a fact in `run.yaml`, at once: device and why, libtorch, data hashes.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn record(&mut self, key: &str, value: Value) -> Result<()> {
        self.record.set(key, value);
        self.record.write()
    }

    pub(crate) fn record_later(&mut self, key: &str, value: Value) {
        self.record.set(key, value);
    }

    pub(crate) fn record_push(&mut self, key: &str, value: Value) {
        self.record.push(key, value);
    }

    /// Writes a JSON file into the run folder (`metrics/test.json`), beside and renamed.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file, [`Error::Invalid`] for a value that JSON cannot hold.
    pub fn write_json<T: Serialize + ?Sized>(&self, relative: &str, value: &T) -> Result<()> {
        let path = self.path.join(relative);
        let mut text = serde_json::to_string_pretty(value)
            .map_err(|e| Error::invalid(format!("{}: cannot be written as JSON: {e}", path.display())))?;
        text.push('\n');
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::io(parent, "make the folder"))?;
        }
        write_atomic(&path, text.as_bytes())
    }

    /// Whether SIGINT or SIGTERM asks to finish the step, save and return [`Error::Interrupted`]. A second signal ends
    /// the process at once.
    pub fn stop_requested(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The flag behind [`Run::stop_requested`], for a library that watches it while it works.
    pub fn stop_flag(&self) -> &AtomicBool {
        &self.stop
    }

    pub(crate) fn console(&self) -> &Console {
        &self.console
    }

    /// Seconds since this process started the run.
    pub fn elapsed(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Notes how the run ended; a record that cannot be written does not hide the end itself.
    pub(crate) fn close(&mut self, status: &str, error: Option<&str>) {
        self.record.set("status", json!(status));
        self.record.set("seconds", json!((self.elapsed() * 1000.0).round() / 1000.0));
        self.record.set("error", json!(error));
        if let Err(e) = self.record.write() {
            self.console.log("warning", &e.to_string());
        }
    }
}

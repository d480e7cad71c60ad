//! The terminal and `run.log`: people's lines go to stderr through indicatif, so that a bar is never torn; results to stdout.

use std::{
    fmt::Display,
    fs::File,
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
};

use indicatif::{MultiProgress, ProgressBar};

use crate::Error;

/// Shared by a run and its progress bars.
#[derive(Clone, Default)]
pub(crate) struct Console(Arc<Inner>);

#[derive(Default)]
struct Inner {
    bars: MultiProgress,
    log: Mutex<Option<File>>,
}

impl Console {
    /// Lines also go to this file from now on.
    pub(crate) fn log_to(&self, file: File) {
        *self.0.log.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    }

    /// A line on stderr and in the log; `level` is `info`, `note`, `warning` or `error`.
    pub(crate) fn say(&self, level: &str, text: &str) {
        self.log(level, text);
        let prefix = if level == "info" { String::new() } else { format!("{level}: ") };
        // A closed stderr must not end a run.
        self.0.bars.suspend(|| drop(writeln!(io::stderr(), "{prefix}{text}")));
    }

    /// A line in the log only. A log that cannot be written (full disk) must not end a run: the metrics will say so.
    pub(crate) fn log(&self, level: &str, text: &str) {
        let now = chrono::Local::now().format("%Y-%m-%d %H:%M:%S");
        let mut log = self.0.log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = log.as_mut() {
            let _ = file.write_all(format!("{now} {level:<7} {text}\n").as_bytes());
        }
    }

    /// A result on stdout.
    pub(crate) fn print(&self, text: &str) {
        self.log("result", text);
        self.0.bars.suspend(|| out(&format!("{text}\n")));
    }

    /// A line on stderr that is not worth keeping.
    pub(crate) fn passing(&self, text: &str) {
        let _ = writeln!(io::stderr(), "{text}");
    }

    pub(crate) fn add(&self, bar: ProgressBar) -> ProgressBar {
        self.0.bars.add(bar)
    }

    /// Bars are drawn only for a person who watches.
    pub(crate) fn is_live() -> bool {
        io::stderr().is_terminal() && std::env::var_os("CI").is_none()
    }
}

/// Text on stdout; a reader that has gone away (`| head`) is no error.
pub(crate) fn out(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// `error: …` and `  hint: …`, for a configuration report once for each problem.
pub(crate) fn error_lines(error: &Error) -> String {
    let line = |message: &dyn Display, hint: Option<&str>| {
        format!("error: {message}\n") + &hint.map_or(String::new(), |hint| format!("  hint: {hint}\n"))
    };
    match error {
        Error::Config(report) => report.problems.iter().map(|p| line(p, p.hint.as_deref())).collect(),
        other => line(other, other.hint().as_deref()),
    }
}

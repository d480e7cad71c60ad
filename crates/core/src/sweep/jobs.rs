//! One job of a sweep: a child process of the same binary.

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{
    child,
    cli::{Job, Session},
};

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Status {
    Done,
    Failed(String),
    Interrupted,
    NotRun,
}

impl Status {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed(_) => "failed",
            Self::Interrupted => "interrupted",
            Self::NotRun => "not run",
        }
    }
}

/// A job's end and how long it took.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) status: Status,
    pub(crate) seconds: f64,
}

/// Runs one job in `dir` and waits for it; a stop is passed on once, so that the job can save its work.
pub(crate) fn run(
    session: &Session<'_>,
    base: Option<&Path>,
    words: &[String],
    dir: &Path,
    stop: &AtomicBool,
) -> Status {
    let ended = command(session, base, words, dir).and_then(|command| child::run(command, stop));
    let status = match ended {
        Ok(status) => status,
        Err(e) => return note(dir, format!("the job could not be started: {e}")),
    };
    if status.success() {
        return Status::Done;
    }
    let told = Job::read(dir).filter(|job| job.status != "running");
    match (told, status.code(), status.signal()) {
        (_, Some(130), _) => Status::Interrupted,
        (Some(Job { error: Some(error), .. }), ..) => Status::Failed(error),
        (_, _, Some(_)) if stop.load(Ordering::Relaxed) => Status::Interrupted,
        (_, _, Some(9)) => note(dir, "killed by signal 9 (kill -9, or the system ran out of memory)".into()),
        (_, _, Some(signal)) => note(dir, format!("ended by signal {signal}")),
        (_, code, None) => note(dir, format!("ended with exit code {}", code.unwrap_or(-1))),
    }
}

/// What the job could not write itself goes into its log too.
fn note(dir: &Path, message: String) -> Status {
    let _ = std::fs::create_dir(dir);
    if let Ok(mut log) = OpenOptions::new().create(true).append(true).open(dir.join("run.log")) {
        let now = chrono::Local::now().format("%Y-%m-%d %H:%M:%S");
        let _ = writeln!(log, "{now} error   {message}");
    }
    Status::Failed(message)
}

fn command(session: &Session<'_>, base: Option<&Path>, words: &[String], dir: &Path) -> std::io::Result<Command> {
    let flags = &session.flags;
    let mut command = child::this_program()?;
    command.args(session.app.subcommand);
    command.arg("--job-dir").arg(dir).arg("--job-now").arg(flags.now.to_rfc3339());
    if let Some(name) = &flags.config_name {
        command.arg("--config-name").arg(name);
    }
    if let Some(dir) = &flags.config_dir {
        command.arg("--config-dir").arg(dir);
    }
    if let Some(base) = base {
        command.arg("--from").arg(base);
    }
    command.arg("--").args(words);
    Ok(command)
}

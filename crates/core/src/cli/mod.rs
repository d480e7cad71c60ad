//! The command line of every binary: flags, `--cfg`, `--help`, single runs, sweeps, exit codes.
//!
//! ```no_run
//! # use anyo_core::{cli, config::{Check, Problem}, run::RunConfig};
//! # #[derive(serde::Serialize, serde::Deserialize)] struct Config { run: RunConfig }
//! # impl Check for Config { fn problems(&self) -> Vec<Problem> { vec![] } }
//! fn main() -> std::process::ExitCode {
//!     let app = cli::App {
//!         name: "run-student-baseline", // also the primary file: conf/run-student-baseline.yaml
//!         about: "Trains a student alone and evaluates it.",
//!         examples: &["run-student-baseline dataset=movielens-100k", "run-student-baseline -m seed=1,2,3"],
//!         resumable: &["train.epochs"],
//!         subcommand: None,
//!     };
//!     cli::run::<Config>(&app, |config, run| {
//!         run.info("started");
//!         Ok(())
//!     })
//! }
//! ```

mod flags;
mod guard;
mod inspect;
mod single;

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::{Serialize, de::DeserializeOwned};

pub(crate) use self::{flags::Flags, single::Job};
use crate::{
    Error, Result,
    config::{Base, Check, Composed, Context, Problem, Request, SearchPath, compose, typed, value::Value},
    log::error_lines,
    run::{Run, resolve_run},
    sweep,
};

/// A binary as its users see it.
#[derive(Debug, Clone, Copy)]
pub struct App {
    /// Name of the binary and of its primary file under `conf/`.
    pub name: &'static str,
    /// One sentence for `--help`.
    pub about: &'static str,
    /// Command lines for `--help`; a `key=value` in them is also what the message about a missing value suggests.
    pub examples: &'static [&'static str],
    /// Keys that `--resume` may change, with all below them: `train.epochs`.
    pub resumable: &'static [&'static str],
    /// The word after the binary's name that chose this app, where one binary has several.
    pub subcommand: Option<&'static str>,
}

/// Reads the command line and the configuration, makes the run folder and calls `body`; or sweeps, prints, explains.
///
/// Exit codes: 0 done, 1 the run failed, 2 bad command or configuration (nothing was started), 130 interrupted.
pub fn run<C>(app: &App, body: impl FnOnce(C, &mut Run) -> Result<()>) -> ExitCode
where
    C: Serialize + DeserializeOwned + Check,
{
    enter(app, |session| start(session, body))
}

/// As [`run`] with the words of the command line, the binary's name first, as the caller has them: for a binary that
/// also takes a plain word and turns it into an override.
pub fn run_words<C>(app: &App, argv: Vec<OsString>, body: impl FnOnce(C, &mut Run) -> Result<()>) -> ExitCode
where
    C: Serialize + DeserializeOwned + Check,
{
    enter_with(app, argv, |session| start(session, body))
}

/// As [`run`] for a program that answers on stdout and keeps nothing: no run folder, no sweep.
///
/// Exit codes: 0 done, 1 it failed, 2 bad command or configuration, 130 interrupted.
pub fn tool<C>(app: &App, body: impl FnOnce(C) -> Result<()>) -> ExitCode
where
    C: Serialize + DeserializeOwned + Check,
{
    enter(app, |session| {
        let flags = &session.flags;
        let unused =
            [("--multirun", flags.multirun), ("--from", flags.from.is_some()), ("--resume", flags.resume.is_some())];
        if let Some((flag, _)) = unused.iter().find(|(_, given)| *given) {
            tell(&Error::Invalid {
                message: format!("{flag}: {} keeps no runs", app.name),
                hint: Some("leave the flag out".into()),
            });
            return 2;
        }
        told((|| {
            let search = session.search()?;
            if session.look::<C>(&search)? {
                return Ok(0);
            }
            let (_, config) = session.load::<C>(&search, &flags.words, None, None)?;
            body(config).map(|()| 0)
        })())
    })
}

/// Reads the flags of this process and hands them on; a panic becomes one line.
fn enter(app: &App, body: impl FnOnce(&Session<'_>) -> u8) -> ExitCode {
    enter_with(app, env::args_os().collect(), body)
}

fn enter_with(app: &App, argv: Vec<OsString>, body: impl FnOnce(&Session<'_>) -> u8) -> ExitCode {
    guard::install();
    let mut words = argv.clone();
    if app.subcommand.is_some() && words.len() > 1 {
        words.remove(1);
    }
    let code = match flags::parse(app, &words) {
        Ok(flags::Parsed::Go(flags)) => {
            let session =
                Session { app, flags: *flags, argv: argv.iter().map(|w| w.to_string_lossy().into_owned()).collect() };
            guard::catch(|| body(&session)).unwrap_or_else(|panic| guard::tell(&panic, None))
        }
        Ok(flags::Parsed::Help) => {
            inspect::help(app, &flags::Flags::lenient(&words));
            0
        }
        Ok(flags::Parsed::Version) => {
            crate::log::out(&format!("{} {}\n", app.name, env!("CARGO_PKG_VERSION")));
            0
        }
        Err(message) => {
            let _ = std::io::Write::write_all(&mut std::io::stderr(), message.as_bytes());
            2
        }
    };
    ExitCode::from(code)
}

/// One call of the binary.
pub(crate) struct Session<'a> {
    pub(crate) app: &'a App,
    pub(crate) flags: Flags,
    /// The command line as received.
    pub(crate) argv: Vec<String>,
}

fn start<C>(session: &Session<'_>, body: impl FnOnce(C, &mut Run) -> Result<()>) -> u8
where
    C: Serialize + DeserializeOwned + Check,
{
    told((|| {
        let search = session.search()?;
        if session.look::<C>(&search)? {
            return Ok(0);
        }
        if session.flags.multirun {
            sweep::run::<C>(session, &search)
        } else {
            single::run::<C>(session, &search, body)
        }
    })())
}

/// The exit code; an error is told.
fn told(outcome: Result<u8>) -> u8 {
    outcome.unwrap_or_else(|error| {
        tell(&error);
        // A run that was named wrongly is a bad command.
        if matches!(error, Error::Invalid { .. }) { 2 } else { error.exit_code() }
    })
}

/// The error on stderr, with its hints.
pub(crate) fn tell(error: &Error) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), error_lines(error).as_bytes());
}

impl Session<'_> {
    /// Answers `--info` and `--cfg`; whether there was such a flag.
    fn look<C: Serialize + DeserializeOwned + Check>(&self, search: &SearchPath) -> Result<bool> {
        let flags = &self.flags;
        if let Some(what) = flags.info.as_deref().or(flags.cfg.as_deref().filter(|c| *c == "defaults")) {
            return inspect::info(self, search, what).map(|()| true);
        }
        match flags.cfg.as_deref() {
            Some(what) => inspect::cfg::<C>(self, search, what).map(|()| true),
            None => Ok(false),
        }
    }

    pub(crate) fn primary(&self) -> &str {
        self.flags.config_name.as_deref().unwrap_or(self.app.name)
    }

    pub(crate) fn search(&self) -> Result<SearchPath> {
        let cwd = env::current_dir().map_err(Error::io(".", "find the working directory"))?;
        Ok(SearchPath::find(self.primary(), self.flags.config_dir.as_deref(), &cwd)?)
    }

    /// The run of `--from` or `--resume`.
    pub(crate) fn base(&self) -> Result<Option<PathBuf>> {
        let given = self.flags.from.as_ref().or(self.flags.resume.as_ref());
        given.map(|run| resolve_run(run, self.app.name)).transpose()
    }

    /// Composes the configuration of these words and reads it as `C`; with problems, all of them.
    pub(crate) fn load<C: DeserializeOwned + Check>(
        &self,
        search: &SearchPath,
        words: &[String],
        base: Option<&Path>,
        run_dir: Option<&Path>,
    ) -> Result<(Composed, C)> {
        let composed = self.compose(search, words, base, run_dir)?;
        let config = typed::<C>(&composed)?;
        Ok((composed, config))
    }

    pub(crate) fn compose(
        &self,
        search: &SearchPath,
        words: &[String],
        base: Option<&Path>,
        run_dir: Option<&Path>,
    ) -> Result<Composed> {
        let resume = self.flags.resume.is_some();
        let base = base.map(|run| Base { run, resume: resume.then_some(self.app.resumable) });
        let forced =
            run_dir.map(|dir| ("run.dir".to_owned(), Value::text(dir.to_string_lossy()), "the run folder".to_owned()));
        let request = Request {
            app: self.app.name,
            examples: self.app.examples,
            primary: self.primary(),
            search,
            words,
            base,
            forced: forced.into_iter().collect(),
            context: Context { now: self.flags.now, env: &|name| env::var(name).ok() },
        };
        Ok(compose(&request)?)
    }
}

/// Where a configuration says that the run writes.
pub(crate) fn run_dir(composed: &Composed) -> Result<PathBuf> {
    match composed.tree.at("run.dir").and_then(Value::as_str).filter(|dir| !dir.is_empty()) {
        Some(dir) => Ok(PathBuf::from(dir)),
        None => {
            let hint = "the primary file holds `run: {dir: \"result/result_${now}\"}`".to_owned();
            Err(Problem { hint: Some(hint), ..Problem::new("run.dir", "the run folder must be given as text") }.into())
        }
    }
}

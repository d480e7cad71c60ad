//! One run: the folder, its three files, the body, the end.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{Session, guard, run_dir, tell};
use crate::{
    Error, Result,
    config::{Check, Composed, SearchPath, to_yaml, yaml},
    run::{self, Run, write_atomic},
};

/// What a job of a sweep tells its parent, in `run.yaml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) status: String,
    pub(crate) error: Option<String>,
}

/// Loads, makes or reopens the folder, runs the body; returns the exit code.
pub(crate) fn run<C>(
    session: &Session<'_>,
    search: &SearchPath,
    body: impl FnOnce(C, &mut Run) -> Result<()>,
) -> Result<u8>
where
    C: Serialize + DeserializeOwned + Check,
{
    let flags = &session.flags;
    let base = session.base()?;
    let base = base.as_deref();
    let (composed, config) = session.load::<C>(search, &flags.words, base, flags.job_dir.as_deref())?;
    let (mut run, config) = match base.filter(|_| flags.resume.is_some()) {
        Some(path) => (reopen(session, &composed, &config, path)?, config),
        None => make(session, search, composed.clone(), config, base)?,
    };
    for note in &composed.notes {
        run.console().say("note", note);
    }
    let verb = if run.resumed() { "continuing in" } else { "results go to" };
    run.info(&format!("{verb} {}", run.path().display()));
    let outcome = guard::catch(|| body(config, &mut run));
    Ok(finish(session, &mut run, outcome))
}

fn make<C>(
    session: &Session<'_>,
    search: &SearchPath,
    composed: Composed,
    config: C,
    base: Option<&Path>,
) -> Result<(Run, C)>
where
    C: Serialize + DeserializeOwned + Check,
{
    let flags = &session.flags;
    let wanted = run_dir(&composed)?;
    let path = match &flags.job_dir {
        Some(dir) => run::create_exactly(dir)?,
        None => run::create(&wanted)?,
    };
    let files = || -> Result<(Run, C)> {
        // The configuration names the folder that was made, not the one that was wanted.
        let config =
            if path == wanted { config } else { session.load::<C>(search, &flags.words, base, Some(&path))?.1 };
        write_atomic(&path.join("config.yaml"), to_yaml(&config)?.as_bytes())?;
        write_atomic(&path.join("overrides.yaml"), yaml::write(&flags.words)?.as_bytes())?;
        let mut run = Run::open(path.clone(), false)?;
        describe(session, search, &composed, base, &mut run)?;
        Ok((run, config))
    };
    files().inspect_err(|_| discard(&path))
}

/// A folder that never became a run (disk full) is taken away again; only files of ours lie in it.
fn discard(path: &Path) {
    for name in ["config.yaml", "overrides.yaml", "run.yaml", "run.log"] {
        let _ = fs::remove_file(path.join(name));
    }
    let _ = fs::remove_dir(path);
}

fn describe(
    session: &Session<'_>,
    search: &SearchPath,
    composed: &Composed,
    base: Option<&Path>,
    run: &mut Run,
) -> Result<()> {
    let choices: serde_json::Map<String, serde_json::Value> =
        composed.composition.choices.iter().map(|(group, option)| (group.clone(), json!(option))).collect();
    let mut sources: Vec<String> = composed.composition.layers.iter().map(|layer| layer.name.clone()).collect();
    if let Some(base) = base {
        sources.insert(0, base.join("config.yaml").display().to_string());
        run.record_later("from", json!(base));
    }
    let cwd = std::env::current_dir().unwrap_or_default();
    let code = search
        .dirs()
        .last()
        .and_then(|(dir, _)| Some(cwd.join(dir).parent()?.to_owned()))
        .unwrap_or_else(|| cwd.clone());
    run.record_later("app", json!(session.app.name));
    run.record_later("version", json!(env!("CARGO_PKG_VERSION")));
    run.record_later("status", json!("running"));
    // Not the time in `${now}`, which all jobs of a sweep share: `latest` sorts by this.
    run.record_later("started", json!(right_now()));
    run.record_later("argv", json!(session.argv));
    run.record_later("cwd", json!(cwd));
    run.record_later("choices", choices.into());
    run.record_later("sources", json!(sources));
    if let Some(seed) = composed.tree.at("seed") {
        run.record_later("seed", json!(seed.to_string().parse::<u64>().ok()));
    }
    run.record_later("git", run::git(&code));
    run.record_later("toolchain", json!(run::toolchain()));
    run.record_later("host", run::host());
    run.record("pid", json!(std::process::id()))
}

fn reopen<C: Serialize>(session: &Session<'_>, composed: &Composed, config: &C, path: &Path) -> Result<Run> {
    let mut run = Run::open(path.to_owned(), true)?;
    if !session.flags.words.is_empty() {
        // The lock is held: now the changed configuration becomes the run's own.
        write_atomic(&path.join("config.yaml"), to_yaml(config)?.as_bytes())?;
    }
    let words: Vec<&str> = composed.overrides.iter().map(|w| w.word.as_str()).collect();
    let resumed = json!({ "at": right_now(), "argv": session.argv, "overrides": words });
    run.record_push("resumed", resumed);
    run.record_later("status", json!("running"));
    run.record("pid", json!(std::process::id()))?;
    Ok(run)
}

/// Notes the end in the record, tells the user, gives the exit code.
fn finish(session: &Session<'_>, run: &mut Run, outcome: std::result::Result<Result<()>, guard::Panic>) -> u8 {
    let again = format!("{} --resume {}", session.app.name, run.path().display());
    match outcome {
        Ok(result) => match result {
            Ok(()) => {
                run.close("done", None);
                0
            }
            Err(error @ Error::Interrupted { .. }) => {
                run.console().log("error", &error.to_string());
                run.close("interrupted", Some(&error.to_string()));
                tell(&error);
                eprint_hint(&format!("to continue write {again}"));
                error.exit_code()
            }
            Err(error) => {
                let text = crate::log::error_lines(&error);
                run.console().log("error", text.trim_start_matches("error: ").trim_end());
                run.close("failed", Some(&one_line(&error.to_string())));
                tell(&error);
                // Configuration problems found by the body came after the start: the run failed.
                error.exit_code().min(if matches!(error, Error::Config(_)) { 1 } else { u8::MAX })
            }
        },
        Err(panic) => {
            run.console().log("error", &panic.details);
            run.close("failed", Some(&format!("internal error: {}", panic.message)));
            guard::tell(&panic, Some(&run.path().join("run.log")))
        }
    }
}

fn right_now() -> String {
    chrono::Local::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, false)
}

fn one_line(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join("; ")
}

fn eprint_hint(text: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("  hint: {text}\n").as_bytes());
}

impl Job {
    /// How the run in `path` ended, as far as it could say.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let record = run::read_record(&PathBuf::from(path).join("run.yaml"))?;
        let text = |key: &str| record.get(key).and_then(|v| v.as_str()).map(str::to_owned);
        Some(Self { status: text("status")?, error: text("error") })
    }
}

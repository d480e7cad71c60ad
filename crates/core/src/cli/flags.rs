//! Flags. They may stand anywhere among the overrides; a `--key=value` is answered with `key=value`.

use std::{ffi::OsString, path::PathBuf};

use chrono::{DateTime, Local};
use clap::{Arg, ArgAction, ArgMatches, Command, builder::PossibleValuesParser, error::ErrorKind};

use super::App;
use crate::config::did_you_mean;

/// The flags with their values, and the overrides.
#[derive(Debug, Clone)]
pub(crate) struct Flags {
    pub(crate) words: Vec<String>,
    pub(crate) multirun: bool,
    pub(crate) cfg: Option<String>,
    pub(crate) origin: bool,
    pub(crate) package: Option<String>,
    pub(crate) info: Option<String>,
    pub(crate) config_name: Option<String>,
    pub(crate) config_dir: Option<PathBuf>,
    pub(crate) from: Option<PathBuf>,
    pub(crate) resume: Option<PathBuf>,
    /// The folder of this job, when a sweep started this process.
    pub(crate) job_dir: Option<PathBuf>,
    /// The start of the run; a sweep hands its own to all jobs.
    pub(crate) now: DateTime<Local>,
}

pub(crate) enum Parsed {
    Go(Box<Flags>),
    Help,
    Version,
}

/// Reads the command line; the error is the complete text for stderr.
pub(crate) fn parse(app: &App, words: &[OsString]) -> Result<Parsed, String> {
    let command = command(app);
    dashed(&command, words)?;
    let matches = command.try_get_matches_from(words).map_err(|e| {
        let text = e.render().to_string();
        // clap closes with a usage block that repeats the obvious.
        let first = text.split("\n\n").next().unwrap_or(&text).trim_end();
        let hint = match e.kind() {
            ErrorKind::ArgumentConflict | ErrorKind::InvalidValue | ErrorKind::MissingRequiredArgument => "",
            _ => "\n  hint: --help lists the flags",
        };
        format!("{first}{hint}\n")
    })?;
    if matches.get_flag("help") {
        return Ok(Parsed::Help);
    }
    if matches.get_flag("version") {
        return Ok(Parsed::Version);
    }
    Ok(Parsed::Go(Box::new(Flags::of(&matches))))
}

impl Flags {
    fn of(matches: &ArgMatches) -> Self {
        let text = |id: &str| matches.get_one::<String>(id).cloned();
        let path = |id: &str| matches.get_one::<PathBuf>(id).cloned();
        let now = text("job-now").and_then(|t| DateTime::parse_from_rfc3339(&t).ok());
        Self {
            words: matches.get_many::<String>("overrides").into_iter().flatten().cloned().collect(),
            multirun: matches.get_flag("multirun"),
            cfg: text("cfg"),
            origin: matches.get_flag("origin"),
            package: text("package"),
            info: text("info"),
            config_name: text("config-name").map(|name| name.strip_suffix(".yaml").map_or(name.clone(), str::to_owned)),
            config_dir: path("config-dir"),
            from: path("from"),
            resume: path("resume"),
            job_dir: path("job-dir"),
            now: now.map_or_else(Local::now, |t| t.with_timezone(&Local)),
        }
    }

    /// The flags that decide which files `--help` shows, whatever else is on the line.
    pub(crate) fn lenient(words: &[OsString]) -> (Option<String>, Option<PathBuf>) {
        let value = |flag: &str| {
            let words: Vec<String> = words.iter().map(|w| w.to_string_lossy().into_owned()).collect();
            let joined = words.iter().find_map(|w| w.strip_prefix(&format!("{flag}=")).map(str::to_owned));
            joined.or_else(|| words.iter().position(|w| w == flag).and_then(|i| words.get(i + 1).cloned()))
        };
        (value("--config-name"), value("--config-dir").map(PathBuf::from))
    }
}

/// The flags that users see, with what they do.
pub(crate) const FLAGS: &[(&str, &str)] = &[
    ("-m, --multirun", "one job for each combination of a=1,2 b=choice(x,y) c=range(0,1,0.25) dataset=glob(*)"),
    ("--from RUN", "repeat a run with changes; RUN is a run folder or `latest`"),
    ("--resume RUN", "continue a run in its folder"),
    (
        "--cfg job|defaults|run",
        "print the configuration, the files it is made of, or where the run writes; start nothing",
    ),
    ("--origin", "with --cfg job: the file or override of each value"),
    ("--package KEY", "with --cfg job: only the values below KEY"),
    ("--info defaults|searchpath", "print the files in the order of merging, or the folders searched"),
    ("--config-name NAME", "another primary file"),
    ("--config-dir DIR", "a folder searched before conf/"),
    ("--help, --version", "this text; the version"),
];

fn command(app: &App) -> Command {
    let flag = |id: &'static str| Arg::new(id).long(id).action(ArgAction::SetTrue);
    let value = |id: &'static str, name: &'static str| Arg::new(id).long(id).value_name(name);
    let path = |id, name| value(id, name).value_parser(clap::value_parser!(PathBuf));
    Command::new(app.name)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args_override_self(true)
        .arg(Arg::new("overrides").action(ArgAction::Append).num_args(0..).allow_hyphen_values(false))
        .arg(flag("multirun").short('m').conflicts_with("resume"))
        .arg(flag("origin").requires("cfg"))
        .arg(value("package", "KEY").requires("cfg"))
        .arg(
            value("cfg", "WHAT")
                .value_parser(PossibleValuesParser::new(["job", "defaults", "run"]))
                .conflicts_with("multirun"),
        )
        .arg(value("info", "WHAT").value_parser(PossibleValuesParser::new(["defaults", "searchpath"])))
        .arg(value("config-name", "NAME"))
        .arg(path("config-dir", "DIR"))
        .arg(path("from", "RUN").conflicts_with("resume"))
        .arg(path("resume", "RUN"))
        .arg(path("job-dir", "DIR").hide(true))
        .arg(value("job-now", "TIME").hide(true))
        .arg(flag("help").short('h'))
        .arg(flag("version").short('V'))
}

/// A word such as `--seed=3` or `--seed 3`, which means an override.
fn dashed(command: &Command, words: &[OsString]) -> Result<(), String> {
    let known: Vec<&str> = command.get_arguments().filter(|a| !a.is_hide_set()).filter_map(|a| a.get_long()).collect();
    let hidden: Vec<&str> = command.get_arguments().filter(|a| a.is_hide_set()).filter_map(|a| a.get_long()).collect();
    let takes_value = |name: &str| !matches!(name, "multirun" | "origin" | "help" | "version");
    let mut words = words.iter().skip(1).map(|w| w.to_string_lossy()).peekable();
    while let Some(word) = words.next() {
        if word == "--" {
            break;
        }
        let Some(rest) = word.strip_prefix("--") else { continue };
        let (name, value) = rest.split_once('=').map_or((rest, None), |(n, v)| (n, Some(v)));
        if known.contains(&name) || hidden.contains(&name) {
            if value.is_none() && takes_value(name) {
                words.next();
            }
            continue;
        }
        let value = value
            .map(str::to_owned)
            .or_else(|| words.peek().filter(|w| !w.starts_with('-') && !w.contains('=')).map(|w| w.to_string()));
        let write = format!("write {name}={}", value.as_deref().unwrap_or("VALUE"));
        let hint = match did_you_mean(name, known.iter().copied()) {
            Some(near) => format!(
                "{} or, for a value of the configuration, {write}",
                near.replace('`', "").replace("did you mean ", "did you mean --")
            ),
            None => write,
        };
        return Err(format!("error: there is no flag `--{name}`\n  hint: {hint}\n"));
    }
    Ok(())
}

//! Configuration: commented YAML under `conf/`, overrides on the command line, typed structs, one report of all problems.
//!
//! The contract with examples is `docs/specification/05_configuration.md`. Steps: [`load::compose`] (words and files to
//! one resolved tree, [`value::Value`]) and [`typed::typed`] (tree to struct). figment merges the files and remembers the
//! origin of each value; serde_yaml is used in [`yaml`] only.

use std::{fmt, path::Path};

use serde::{Serialize, de::DeserializeOwned};

mod apply;
mod compose;
mod decode;
mod defaults;
mod extract;
mod interpolate;
mod layers;
pub mod lexer;
pub mod load;
pub mod overrides;
mod range;
mod ranges;
pub mod search;
mod suggest;
pub mod tagged;
mod typed;
pub mod value;
pub mod yaml;

#[cfg(test)]
mod contract_tests;
#[cfg(test)]
mod lexer_tests;
#[cfg(test)]
mod typed_tests;

pub use self::{
    compose::{Composition, FileLayer},
    interpolate::Context,
    load::{Base, Composed, Request, compose},
    ranges::Ranges,
    search::SearchPath,
    suggest::did_you_mean,
    typed::typed,
    value::Value,
};

use crate::{Error, Result};

/// Every problem of a configuration, reported together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The problems in the order found.
    pub problems: Vec<Problem>,
}

/// One problem: a key and what is wrong with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Dotted key such as `student.optim.lr`; may be empty.
    pub key: String,
    /// What is wrong: wanted and got.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem without a hint.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into(), hint: None }
    }

    /// The same problem seen from one level up: `optim` + `lr` gives `optim.lr`.
    #[must_use]
    pub fn under(self, key: &str) -> Self {
        let key = if self.key.is_empty() { key.to_owned() } else { value::join(key, &self.key) };
        Self { key, ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.key, self.message) }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl From<Problem> for Report {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl From<Report> for Error {
    fn from(report: Report) -> Self {
        Self::Config(report)
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Config(problem.into())
    }
}

/// A configuration that knows its ranges.
pub trait Check {
    /// Every value out of range, with keys relative to `self`.
    fn problems(&self) -> Vec<Problem>;
}

/// The complete configuration as it is saved: resolved YAML in the order of the struct.
///
/// # Errors
/// [`Error::Invalid`] for what YAML cannot hold.
pub fn to_yaml<C: Serialize>(config: &C) -> Result<String> {
    yaml::write(config)
}

/// The configuration of a finished or running run, from its `config.yaml`; nothing is interpolated.
///
/// # Errors
/// [`Error::Config`] naming the file and every problem in it.
pub fn load_saved<C: DeserializeOwned>(run: &Path) -> Result<C> {
    let path = run.join("config.yaml");
    let name = path.display().to_string();
    let tree = yaml::read(&path, &name)?;
    extract::strict(&tree).map_err(|message| Problem::new("", format!("{name}: {message}")).into())
}

/// As [`load_saved`] for a reader that knows nothing of `keys`: they are left out, where they are there.
///
/// # Errors
/// As [`load_saved`].
pub fn load_saved_without<C: DeserializeOwned>(run: &Path, keys: &[&str]) -> Result<C> {
    let path = run.join("config.yaml");
    let name = path.display().to_string();
    let mut tree = yaml::read(&path, &name)?;
    keys.iter().for_each(|key| drop(tree.remove(key)));
    extract::strict(&tree).map_err(|message| Problem::new("", format!("{name}: {message}")).into())
}

/// The groups below these folders with their options, sorted; nested groups read `student/optim`.
pub fn list_groups(search: &SearchPath) -> Vec<(String, Vec<String>)> {
    search.groups()
}

/// Composes the primary file of an app alone and then with every option of every group in its defaults list, and checks
/// that what is saved reloads to the same text. `given` are overrides for the `???` keys, used where their key is one.
/// For the test that no shipped file is stale. Returns how many compositions were made.
///
/// # Errors
/// [`Error::Config`] with every problem of every composition, each with the override that leads to it.
pub fn compose_all<C>(search: &SearchPath, primary: &str, given: &[&str]) -> Result<usize>
where
    C: Serialize + DeserializeOwned + Check,
{
    let mut problems = Vec::new();
    let mut count = 0;
    let compose_words = |words: &[String]| {
        let context = Context { now: chrono::Local::now(), env: &|name| std::env::var(name).ok() };
        let request =
            Request { app: primary, examples: &[], primary, search, words, base: None, forced: Vec::new(), context };
        compose(&request)
    };
    let mut check = |extra: Option<String>| -> Option<Composed> {
        let mut words: Vec<String> = extra.into_iter().collect();
        count += 1;
        let mut result = compose_words(&words);
        if let Ok(composed) = &result {
            let is_missing =
                |word: &&&str| word.split_once('=').is_some_and(|(key, _)| composed.missing.iter().any(|m| m == key));
            let wanted: Vec<String> = given.iter().filter(is_missing).map(|word| (*word).to_owned()).collect();
            if !wanted.is_empty() {
                words.extend(wanted);
                result = compose_words(&words);
            }
        }
        let result = result.and_then(|composed| typed::<C>(&composed).map(|config| (composed, config)));
        let mut fail =
            |message: String| problems.push(Problem::new("", format!("{primary} {}: {message}", words.join(" "))));
        match result {
            Ok((composed, config)) => {
                if let Err(message) = reloads(&config) {
                    fail(message);
                }
                Some(composed)
            }
            Err(report) => {
                report.problems.iter().for_each(|p| fail(p.to_string()));
                None
            }
        }
    };
    if let Some(first) = check(None) {
        let targets: Vec<String> = first.composition.choices.iter().map(|(target, _)| target.clone()).collect();
        // A group that also stands at another place (`student@baselines.x`) is composed at its own: the other may take only
        // some of its options.
        let own =
            |target: &&String| !target.contains('@') || !targets.iter().any(|t| target.starts_with(&format!("{t}@")));
        for target in targets.iter().filter(own) {
            let group = target.split('@').next().unwrap_or(target).to_owned();
            for option in search.options(&group) {
                check(Some(format!("{target}={option}")));
            }
        }
        let experiments = search.options("experiment");
        for option in experiments {
            let file =
                search.file(&format!("experiment/{option}")).and_then(|(path, _)| std::fs::read_to_string(path).ok());
            // An experiment says for which binary it is: `# app: run-distill`.
            if file.is_some_and(|text| text.lines().any(|l| l.trim() == format!("# app: {primary}"))) {
                check(Some(format!("+experiment={option}")));
            }
        }
    }
    if problems.is_empty() { Ok(count) } else { Err(Report { problems }.into()) }
}

/// Whether the saved form of a configuration reads back to itself.
///
/// # Errors
/// What differs.
pub fn reloads<C: Serialize + DeserializeOwned>(config: &C) -> Result<(), String> {
    let text = to_yaml(config).map_err(|e| e.to_string())?;
    let tree = yaml::parse(&text, "config.yaml").map_err(|p| p.to_string())?;
    let again: C = extract::strict(&tree).map_err(|m| format!("the saved configuration does not read back: {m}"))?;
    let second = to_yaml(&again).map_err(|e| e.to_string())?;
    if second == text {
        Ok(())
    } else {
        Err(format!("the saved configuration changes when read back:\n{text}\n---\n{second}"))
    }
}

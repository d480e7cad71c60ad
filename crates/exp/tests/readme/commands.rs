//! Commands in the ```bash blocks of a page, and what each asks for.

use std::{fs, process::Command};

use super::{root, source_of};

/// Programs that are not ours; nothing is checked.
const FOREIGN: &[&str] = &["tensorboard"];
pub(crate) const PYTHON: &[&str] = &["python", "python3"];

/// A command as written, with where it stands.
pub(crate) struct Line {
    pub(crate) place: String,
    pub(crate) text: String,
}

/// The commands in the ```bash blocks of `file`; a `\` at the end of a line continues it.
pub(crate) fn commands(file: &str) -> Vec<Line> {
    let text = fs::read_to_string(root().join(file)).unwrap();
    let (mut found, mut inside, mut joined) = (Vec::new(), false, String::new());
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            inside = !inside && line.trim() == "```bash";
            continue;
        }
        if !inside {
            continue;
        }
        if let Some(start) = line.strip_suffix('\\') {
            joined += start;
            continue;
        }
        joined += line;
        let text = std::mem::take(&mut joined);
        if !text.trim().is_empty() && !text.trim_start().starts_with('#') {
            found.push(Line { place: format!("{file}:{}", number + 1), text });
        }
    }
    found
}

/// The words of a command as bash splits them, quotes and comments taken away.
pub(crate) fn words(line: &str) -> Vec<String> {
    let script = format!("set -f; printf '%s\\0' {line}");
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "bash cannot read `{line}`: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_terminator('\0').map(str::to_owned).collect()
}

/// What a command asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Form {
    /// One of our binaries with its arguments.
    Binary(String, Vec<String>),
    /// A file of this repository that is started or read; with its arguments.
    Script(String, Vec<String>),
    Foreign,
}

pub(crate) fn form(words: &[String]) -> Result<Form, String> {
    let strs: Vec<&str> = words.iter().map(String::as_str).collect();
    let owned = |words: &[&str]| words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>();
    match strs.as_slice() {
        ["cargo", "run", "--release", "--bin", name] => Ok(Form::Binary((*name).to_owned(), Vec::new())),
        ["cargo", "run", "--release", "--bin", name, "--", args @ ..] => {
            Ok(Form::Binary((*name).to_owned(), owned(args)))
        }
        ["source", script] => Ok(Form::Script((*script).to_owned(), Vec::new())),
        [python, script, args @ ..] if PYTHON.contains(python) => Ok(Form::Script((*script).to_owned(), owned(args))),
        [program, ..] if FOREIGN.contains(program) => Ok(Form::Foreign),
        [script, args @ ..] if script.ends_with(".sh") || script.starts_with(".ci/") => {
            Ok(Form::Script((*script).to_owned(), owned(args)))
        }
        [name, args @ ..] if source_of(name).is_file() => Ok(Form::Binary((*name).to_owned(), owned(args))),
        _ => {
            Err("neither a binary (cargo run --release --bin NAME -- …), nor a script of ours, nor a known program"
                .into())
        }
    }
}

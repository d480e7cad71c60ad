//! The grammar of one override word: `key=value`, `+key=value`, `++key=value`, `~key`, `group@package=option`.

use std::fmt;

use super::{
    Problem,
    lexer::{self, Parsed},
};

/// What an override does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `key=value`: change what exists.
    Set,
    /// `+key=value`: add.
    Add,
    /// `++key=value`: set or add.
    Force,
    /// `~key`, `~key=value`: take out.
    Delete,
}

/// One parsed word.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    /// What it does.
    pub op: Op,
    /// Dotted key, or group with `/`.
    pub key: String,
    /// The part after `@`.
    pub package: Option<String>,
    /// The part after the first `=`; only `~` may go without.
    pub value: Option<Parsed>,
    /// The value as typed.
    pub text: String,
    /// The whole word as received.
    pub word: String,
    /// 1-based place among the overrides.
    pub number: usize,
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "override {}: `{}`", self.number, self.word)
    }
}

impl Override {
    /// `group`, `group@package` or `key`, without the value: what two words share when one key is given twice.
    pub fn target(&self) -> String {
        match &self.package {
            Some(package) => format!("{}@{package}", self.key),
            None => self.key.clone(),
        }
    }

    /// Whether the value asks for more than one job.
    pub fn is_sweep(&self) -> bool {
        matches!(self.value, Some(Parsed::Sweep(_) | Parsed::Glob(_)))
    }

    fn problem(&self, message: impl fmt::Display, hint: Option<String>) -> Problem {
        Problem { key: String::new(), message: format!("{message} ({self})"), hint }
    }
}

/// Reads a word; `number` counts from 1.
///
/// # Errors
/// A problem with the word as received and a caret below the column where it stops making sense.
pub fn parse(word: &str, number: usize) -> Result<Override, Problem> {
    let (op, rest) = match word {
        w if w.starts_with("++") => (Op::Force, &w[2..]),
        w if w.starts_with('+') => (Op::Add, &w[1..]),
        w if w.starts_with('~') => (Op::Delete, &w[1..]),
        w => (Op::Set, w),
    };
    let (left, text) = rest.split_once('=').map_or((rest, None), |(l, t)| (l, Some(t)));
    let (key, package) = left.split_once('@').map_or((left, None), |(k, p)| (k, Some(p.to_owned())));
    let mut parsed = Override {
        op,
        key: key.to_owned(),
        package,
        value: None,
        text: text.unwrap_or_default().to_owned(),
        word: word.to_owned(),
        number,
    };
    if let Some(problem) = foreign(&parsed) {
        return Err(problem);
    }
    if text.is_none() && op != Op::Delete {
        let hint = format!("write {}=VALUE", if left.is_empty() { "KEY" } else { left });
        return Err(Problem {
            hint: Some(hint),
            ..Problem::new("", format!("`{word}` is not an override: there is no `=` (override {number})"))
        });
    }
    if let Some(message) =
        bad_key(key).or_else(|| parsed.package.as_deref().filter(|p| !p.is_empty()).and_then(bad_key))
    {
        return Err(parsed.problem(message, Some("a key is names with dots between, such as train.epochs".into())));
    }
    if let Some(text) = text {
        let value = lexer::parse(text).map_err(|e| {
            let column = word.chars().count() - text.chars().count() + e.column;
            let message = format!("override {number}: {}\n    {word}\n    {}^", e.message, " ".repeat(column));
            Problem { key: String::new(), message, hint: e.hint }
        })?;
        parsed.value = Some(value);
    }
    Ok(parsed)
}

fn bad_key(key: &str) -> Option<String> {
    if key.is_empty() {
        return Some("the key is missing".into());
    }
    if key.split(['.', '/']).any(str::is_empty) {
        return Some(format!("the key `{key}` has an empty part"));
    }
    let bad = key.chars().find(|c| c.is_whitespace() || "()[]{},'\"\\".contains(*c))?;
    Some(format!("the key `{key}` holds `{bad}`"))
}

/// Hydra's own keys, and its features that this tool leaves out: one sentence each.
fn foreign(word: &Override) -> Option<Problem> {
    let value = &word.text;
    if word.key == "_target_" || word.key.ends_with("._target_") {
        return Some(word.problem("`_target_` is not offered here; closed choices are groups", None));
    }
    if value.starts_with("pkg://") || word.key == "hydra/searchpath" {
        return Some(word.problem("`pkg://` is not offered here", Some("add a folder with --config-dir PATH".into())));
    }
    let rest = word.key.strip_prefix("hydra")?;
    if let Some(kind) = rest.strip_prefix('/') {
        let message = format!("the plug-in group `hydra/{kind}` is not offered here");
        return Some(word.problem(message, Some("sweeps run one child process after the other with -m".into())));
    }
    let hint = match rest.strip_prefix('.')? {
        "run.dir" | "sweep.dir" => format!("write run.dir={value}"),
        "sweep.subdir" => "remove it: the jobs of a sweep are numbered folders below run.dir".into(),
        "output_subdir" => "remove it: config.yaml, overrides.yaml and run.yaml lie in the run folder itself".into(),
        "job.chdir" => "remove it: the working directory never changes".into(),
        "mode" => "write -m to sweep".into(),
        "job.name" => "remove it: the run folder is named by run.dir".into(),
        "searchpath" => "write --config-dir PATH".into(),
        "verbose" => "remove it: everything is in run.log".into(),
        _ => "remove it; --help lists the flags and keys".into(),
    };
    Some(Problem { hint: Some(hint), ..Problem::new("", format!("there are no `hydra.*` keys here ({word})")) })
}

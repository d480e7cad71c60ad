//! The lines of the report and how they are written.

use std::fmt;

/// How a thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Good to know; anyo works without it.
    Note,
    /// Something will fail until it is mended.
    Problem,
}

impl Level {
    /// The word in the report and in the JSON form.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Problem => "problem",
        }
    }
}

/// One line: what was looked at, how it stands, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// How it stands.
    pub level: Level,
    /// What was looked at, one word or two.
    pub topic: String,
    /// What was found.
    pub message: String,
    /// What to do; every problem has one.
    pub hint: Option<String>,
}

/// All lines, in the order of the checks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The lines.
    pub lines: Vec<Line>,
}

impl Report {
    pub(super) fn ok(&mut self, topic: &str, message: impl Into<String>) {
        self.push(Level::Ok, topic, message.into(), None);
    }

    pub(super) fn note(&mut self, topic: &str, message: impl Into<String>, hint: Option<&str>) {
        self.push(Level::Note, topic, message.into(), hint.map(str::to_owned));
    }

    pub(super) fn problem(&mut self, topic: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Level::Problem, topic, message.into(), Some(hint.into()));
    }

    fn push(&mut self, level: Level, topic: &str, message: String, hint: Option<String>) {
        self.lines.push(Line { level, topic: topic.to_owned(), message, hint });
    }

    /// How many problems there are.
    pub fn n_problems(&self) -> usize {
        self.lines.iter().filter(|line| line.level == Level::Problem).count()
    }

    /// One JSON object: `ok`, `problems` (their number) and `lines` of `level`, `topic`, `message`, `hint`.
    pub fn json(&self) -> String {
        let line = |line: &Line| {
            serde_json::json!({
                "level": line.level.word(),
                "topic": line.topic,
                "message": line.message,
                "hint": line.hint,
            })
        };
        let lines: Vec<_> = self.lines.iter().map(line).collect();
        let whole = serde_json::json!({ "ok": self.n_problems() == 0, "problems": self.n_problems(), "lines": lines });
        format!("{whole:#}")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{:<8} {:<12} {}", line.level.word(), line.topic, line.message)?;
            if let Some(hint) = &line.hint {
                writeln!(f, "{:<21} -> {hint}", "")?;
            }
        }
        match self.n_problems() {
            0 => writeln!(f, "nothing is wrong"),
            1 => writeln!(f, "1 problem"),
            n => writeln!(f, "{n} problems"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_to_do_in_both_forms() {
        let mut report = Report::default();
        report.ok("cpu", "2 threads");
        report.problem("disk", "10 MB free", "free some space");
        let wanted = "ok       cpu          2 threads\n\
                      problem  disk         10 MB free\n\
                      \x20                     -> free some space\n1 problem\n";
        assert_eq!(report.to_string(), wanted);
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["problems"], 1);
        assert_eq!(json["lines"][0]["hint"], serde_json::Value::Null);
        assert_eq!(json["lines"][1]["hint"], "free some space");
    }
}

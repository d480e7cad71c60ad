//! Configuration: the contract of `docs/specification/00_overview.md`.

use std::fmt;

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
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{}: {}", problem.key, problem.message)?;
        }
        Ok(())
    }
}

/// A configuration that knows its ranges.
pub trait Check {
    /// Every value out of range, with keys relative to `self`.
    fn problems(&self) -> Vec<Problem>;
}

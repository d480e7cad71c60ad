//! `run-eval-all` as a real process on small toy runs: the report, the stages, mistakes.
#![allow(clippy::unwrap_used, reason = "tests: helpers outside of #[test] functions too")]

mod bad_input;
mod project;
mod report;
mod stages;

//! `run-student-baseline` as real processes in a folder of their own: results, interruptions, mistakes.
#![allow(clippy::unwrap_used, reason = "tests: helpers outside of #[test] functions too")]

mod bad_input;
mod interrupted;
mod project;
mod results;
mod sweeps;

//! The training loop on small made-up data: what it learns, what it repeats bit for bit, what it refuses.
#![allow(clippy::unwrap_used, reason = "tests: helpers outside of #[test] functions too")]

#[path = "../support/mod.rs"]
mod support;

mod learning;
mod made_up;
mod resume;

//! Trains a small sequential recommender alone and evaluates it beside popularity.

use std::process::ExitCode;

fn main() -> ExitCode {
    anyo_core::memory::keep_freed_memory();
    anyo_exp::apps::student_baseline(std::env::args_os().collect())
}

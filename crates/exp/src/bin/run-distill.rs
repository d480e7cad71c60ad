//! Trains a student with a teacher bundle beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    anyo_core::memory::keep_freed_memory();
    anyo_exp::apps::distill(std::env::args_os().collect())
}

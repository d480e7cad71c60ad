//! Trains an LLM teacher, evaluates it and exports what it knows.

use std::process::ExitCode;

fn main() -> ExitCode {
    anyo_core::memory::keep_freed_memory();
    anyo_exp::apps::teacher(std::env::args_os().collect())
}

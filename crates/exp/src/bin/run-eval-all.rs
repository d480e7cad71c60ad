//! Compares teacher, baselines, plain and distilled students, and writes the report.

use std::process::ExitCode;

fn main() -> ExitCode {
    anyo_core::memory::keep_freed_memory();
    anyo_exp::apps::eval_all(std::env::args_os().collect())
}

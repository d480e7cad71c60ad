//! Writes what a trained student ranks for every training row as a teacher bundle.

use std::process::ExitCode;

fn main() -> ExitCode {
    anyo_core::memory::keep_freed_memory();
    anyo_exp::bundles::export_main(std::env::args_os())
}

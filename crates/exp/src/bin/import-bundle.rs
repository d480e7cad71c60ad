//! Makes a teacher bundle of lists from outside.

use std::process::ExitCode;

fn main() -> ExitCode {
    anyo_core::memory::keep_freed_memory();
    anyo_exp::bundles::import_main(std::env::args_os())
}

//! Prints what a trained student recommends after a list of items.

use std::process::ExitCode;

fn main() -> ExitCode {
    anyo_exp::recommend::main(std::env::args_os())
}

//! `anyo-doctor [--json]`: what this machine has and lacks for anyo; exit code 0 when nothing is wrong, 1 otherwise.

use std::process::ExitCode;

fn main() -> ExitCode {
    anyo_exp::doctor::main(std::env::args_os(), Some(anyo_exp::compose::check_conf))
}

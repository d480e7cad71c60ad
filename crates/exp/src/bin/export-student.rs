//! Writes a trained student as a folder for production: safetensors, TorchScript, flat item matrix.

use std::process::ExitCode;

fn main() -> ExitCode {
    anyo_core::memory::keep_freed_memory();
    anyo_exp::export_student::main(std::env::args_os())
}

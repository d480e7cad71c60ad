//! Language models in Hugging Face format: generate, chat, score, plan, pretrain, convert, quantize-report.

use std::process::ExitCode;

fn main() -> ExitCode {
    anyo_core::memory::keep_freed_memory();
    anyo_exp::run_lm::main(std::env::args_os())
}

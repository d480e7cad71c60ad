//! Trains a student with a teacher bundle beside it.

use std::process::ExitCode;

use anyo_core::cli;
use anyo_distill::{DistillRunConfig, run_distill};

fn main() -> ExitCode {
    anyo_core::memory::keep_freed_memory();
    let app = cli::App {
        name: "run-distill",
        about: "Distils a teacher bundle into a student (DLLM2Rec and beyond) and ranks the test rows with it.",
        examples: &[
            "run-distill",
            "run-distill dataset=movielens-100k student=gru4rec teacher_run=result/result_20260101_120000",
            "run-distill -m distill=dllm2rec,listwise,rd seed=1,2,3",
        ],
        resumable: &["train.epochs", "train.patience", "train.checkpoint", "train.log_every", "threads", "data"],
        subcommand: None,
    };
    cli::run::<DistillRunConfig>(&app, |config, run| run_distill(&config, run))
}

//! Trains a small sequential recommender alone and evaluates it beside popularity.

use std::process::ExitCode;

use anyo_core::cli;
use anyo_student::{BaselineRunConfig, run_student_baseline};

fn main() -> ExitCode {
    anyo_core::memory::keep_freed_memory();
    let app = cli::App {
        name: "run-student-baseline",
        about: "Trains a student (SASRec, GRU4Rec, Caser, …) alone and ranks the test rows with it, beside popularity.",
        examples: &[
            "run-student-baseline",
            "run-student-baseline dataset=movielens-100k",
            "run-student-baseline -m dataset=movielens-100k student=sasrec,gru4rec seed=1,2,3",
        ],
        resumable: &["train.epochs", "train.patience", "train.checkpoint", "train.log_every", "threads", "data"],
        subcommand: None,
    };
    cli::run::<BaselineRunConfig>(&app, |config, run| run_student_baseline(&config, run))
}

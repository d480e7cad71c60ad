//! Trains an LLM teacher, evaluates it and exports what it knows.

use std::process::ExitCode;

use anyo_core::cli;
use anyo_teacher::{TeacherRunConfig, run_teacher};

fn main() -> ExitCode {
    anyo_core::memory::keep_freed_memory();
    let app = cli::App {
        name: "run-teacher",
        about: "Trains an LLM teacher (iLoRA), ranks the test rows with it and exports a teacher bundle.",
        examples: &[
            "run-teacher",
            "run-teacher dataset=movielens-100k teacher/prompt=movies",
            "run-teacher -m teacher=ilora,lora seed=1,2,3",
        ],
        resumable: &[
            "teacher.train.patience",
            "teacher.train.checkpoint",
            "teacher.train.log_every",
            "threads",
            "data",
            "rankers",
            "choice",
            "export",
        ],
        subcommand: None,
    };
    cli::run::<TeacherRunConfig>(&app, |config, run| run_teacher(&config, run))
}

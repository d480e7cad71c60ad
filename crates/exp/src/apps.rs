//! The applications that a comparison runs as its stages: each `main`, by the name of its binary.
//!
//! `cargo run --bin run-eval-all` builds that binary alone, so its stages are the same executable with `--app NAME`.

use std::{ffi::OsString, process::ExitCode};

use anyo_core::cli;
use anyo_distill::{DistillRunConfig, run_distill};
use anyo_student::{BaselineRunConfig, run_student_baseline};
use anyo_teacher::{TeacherRunConfig, run_teacher};

use crate::eval_all::{EvalAllConfig, run_eval_all};

/// A `main` that takes the words of the command line, the binary's name first.
pub type Main = fn(Vec<OsString>) -> ExitCode;

/// Every application that can be a stage.
pub const APPS: &[(&str, Main)] =
    &[("run-student-baseline", student_baseline), ("run-teacher", teacher), ("run-distill", distill)];

/// `run-student-baseline`.
pub fn student_baseline(argv: Vec<OsString>) -> ExitCode {
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
    cli::run_words::<BaselineRunConfig>(&app, argv, |config, run| run_student_baseline(&config, run))
}

/// `run-teacher`.
pub fn teacher(argv: Vec<OsString>) -> ExitCode {
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
    cli::run_words::<TeacherRunConfig>(&app, argv, |config, run| run_teacher(&config, run))
}

/// `run-distill`.
pub fn distill(argv: Vec<OsString>) -> ExitCode {
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
    cli::run_words::<DistillRunConfig>(&app, argv, |config, run| run_distill(&config, run))
}

/// `run-eval-all`, or with `--app NAME` first the application of that name.
pub fn eval_all(argv: Vec<OsString>) -> ExitCode {
    if argv.get(1).is_some_and(|word| word == "--app") {
        let name = argv.get(2).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some((_, main)) = APPS.iter().find(|(app, _)| *app == name) else {
            let names: Vec<&str> = APPS.iter().map(|(app, _)| *app).collect();
            let _ = std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("error: --app: there is no `{name}` in this build, only {}\n", names.join(", ")).as_bytes(),
            );
            return ExitCode::from(2);
        };
        return main(argv.into_iter().skip(2).collect());
    }
    let app = cli::App {
        name: "run-eval-all",
        about: "Puts teacher, baselines, plain and distilled students side by side and says which differences are real.",
        examples: &[
            "run-eval-all dataset=movielens-100k",
            "run-eval-all 'runs=[result/result_a, result/result_b]'",
            "run-eval-all --resume latest",
        ],
        // the runs themselves are found again by what they were told
        resumable: &[
            "runs",
            "named",
            "seeds",
            "stages",
            "reference",
            "metrics",
            "headline",
            "rare_max",
            "popularity_buckets",
            "resamples",
            "confidence",
            "seed",
            "latency_users",
            "device",
            "threads",
            "data",
        ],
        subcommand: None,
    };
    cli::run_words::<EvalAllConfig>(&app, argv, |config, run| run_eval_all(&config, run))
}

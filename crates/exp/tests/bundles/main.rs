//! `export-bundle` and `import-bundle` as real processes in a folder of their own.
#![allow(clippy::unwrap_used, reason = "tests: helpers outside of #[test] functions too")]

mod exported;
mod imported;
mod killed;
#[path = "../run_student_baseline/project.rs"]
#[allow(dead_code, reason = "shared with another test, which uses all of it")]
mod project;

use std::process::{Child, Command};

use project::{Project, SMALL, Said, said};

const EXPORT: &str = env!("CARGO_BIN_EXE_export-bundle");
const IMPORT: &str = env!("CARGO_BIN_EXE_import-bundle");

fn start(project: &Project, program: &str, words: &[&str]) -> Child {
    let mut command = Command::new(program);
    command.args(words);
    project.settle(command).spawn().unwrap()
}

fn run(project: &Project, program: &str, words: &[&str]) -> Said {
    said(start(project, program, words))
}

/// A project with a small trained student in `result/student`.
fn with_student(words: &[&str]) -> Project {
    let project = Project::new();
    // a cache of its own, wherever the run is opened from
    let cache = format!("data.cache={}", project.at("cache").display());
    project.run(&[SMALL, &["run.dir=result/student", "train.epochs=1", &cache], words].concat()).done();
    project
}

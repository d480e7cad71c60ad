//! `anyo-doctor`: one line per thing that anyo needs, each `ok`, `note` or `problem`, and what to do about it.
//!
//! It cannot speak when libtorch is missing, because the program itself is linked to it: then the build stops with a
//! line that names `env_shell/setup_libtorch.sh`, and at run time the loader names the library that it lacks.

mod cpu;
mod data;
mod folders;
mod report;
mod tools;
mod torch;

use std::{
    ffi::OsString,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;

pub use report::{Level, Line, Report};

/// Composes every primary file of a `conf/` folder: its name, and the error message where it cannot be composed.
pub type ComposeAll = fn(conf: &Path) -> Vec<(String, Result<(), String>)>;

/// Says what this machine has and lacks for anyo: libtorch, GPU, CPU, memory, disk, folders, data sets, tools.
#[derive(Debug, Clone, Parser)]
#[command(name = "anyo-doctor", version)]
pub struct Options {
    /// Print one JSON object instead of lines.
    #[arg(long)]
    pub json: bool,
    /// Folder of the data sets, as in data.root=PATH.
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
    /// Folder of the runs.
    #[arg(long, value_name = "DIR", default_value = "result")]
    pub result: PathBuf,
    /// Folder of the configuration; without it `conf/` here or above, then beside the sources.
    #[arg(long, value_name = "DIR")]
    pub conf: Option<PathBuf>,
}

/// The whole program: reads the flags, examines, prints to stdout. 0 nothing wrong, 1 a problem, 2 a wrong flag.
pub fn main(arguments: impl IntoIterator<Item = OsString>, compose: Option<ComposeAll>) -> ExitCode {
    let options = match Options::try_parse_from(arguments) {
        Ok(options) => options,
        Err(error) => {
            // clap prints help to stdout with code 0 and mistakes to stderr with code 2; a closed pipe is no matter
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let report = examine(&options, compose);
    let text = if options.json { report.json() } else { report.to_string() };
    // a reader such as `head` may have gone
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
    ExitCode::from(u8::from(report.n_problems() > 0))
}

/// Every check, in the order of the report.
pub fn examine(options: &Options, compose: Option<ComposeAll>) -> Report {
    let mut report = Report::default();
    torch::check(&mut report);
    cpu::check(&mut report);
    folders::check(&mut report, &options.data, &options.result);
    match data::conf_folder(options.conf.as_deref()) {
        Some(conf) => data::check(&mut report, &conf, &options.data, compose),
        None => report.problem(
            "conf",
            match &options.conf {
                Some(folder) => format!("{} is not a folder", folder.display()),
                None => "no conf/ folder here or above".to_owned(),
            },
            "start it in the project's folder, or give --conf DIR",
        ),
    }
    tools::check(&mut report);
    report
}

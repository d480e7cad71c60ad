//! `recommend ITEM…`: the top K of a finished run, with titles.

use std::{ffi::OsString, io::Write as _, path::PathBuf, process::ExitCode};

use anyo_core::{Error, Result, run::resolve_run_of, torch::DeviceChoice};
use anyo_student::{Loaded, STUDENT_APPS, is_exported};
use clap::Parser;

/// Recommends items after those given, with a finished run of run-student-baseline or run-distill, or a
/// folder of export-student.
#[derive(Debug, Parser)]
#[command(name = "recommend", after_help = "Example: recommend \"Toy Story\" \"Star Wars\" -k 5 --run latest")]
struct Args {
    /// Items seen, oldest first: ids of the data set, titles, or a part of a title that fits one item only
    #[arg(required = true)]
    items: Vec<String>,
    /// A run folder, `latest`, or a folder that export-student made
    #[arg(long, default_value = "latest")]
    run: PathBuf,
    /// How many to print
    #[arg(short, long, default_value_t = 10)]
    k: usize,
    /// Let the given items be recommended again
    #[arg(long)]
    keep_history: bool,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
}

/// Runs it; exit code 0, 1 for a failure, 2 for a bad command line.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match text(&args) {
        Ok(text) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let hint = error.hint().map_or(String::new(), |hint| format!("\n  hint: {hint}"));
            let _ = writeln!(std::io::stderr(), "error: {error}{hint}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn text(args: &Args) -> Result<String> {
    let device: DeviceChoice =
        args.device.parse().map_err(|message: String| Error::invalid(format!("--device: {message}")))?;
    let run = if is_exported(&args.run) { args.run.clone() } else { resolve_run_of(&args.run, STUDENT_APPS)? };
    let loaded = Loaded::open(&run, device, &mut |_| ())?;
    let history = args.items.iter().map(|item| loaded.find_item(item)).collect::<Result<Vec<u32>>>()?;
    let found = loaded.recommend(&history, args.k, args.keep_history)?;
    let mut text = format!("{} ({}), after:\n", run.display(), loaded.student.name());
    for &item in &history {
        text += &format!("       {}\n", loaded.items[item as usize].title);
    }
    text += &format!("the top {}:\n", found.len());
    for (place, item) in found.iter().enumerate() {
        text += &format!("{:>4}.  {}  (id {}, score {:.3})\n", place + 1, item.title, item.id, item.score);
    }
    Ok(text)
}

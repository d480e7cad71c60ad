//! Our sides of the comparisons in `benches/peers`: one JSON line for the work that the arguments name.

pub mod distill;
pub mod lm;
pub mod student;
pub mod teacher;

use std::{io::Write as _, process::ExitCode};

use anyhow::Context as _;
use anyo_core::config::{self, Check, Context, Request, SearchPath};
use anyo_student::{Progress, Watch};
use serde::de::DeserializeOwned;

/// The `main` of a benchmark: prints what `line` returns for the arguments, or its error with exit code 2.
pub fn main(line: fn(&[String]) -> anyhow::Result<String>) -> ExitCode {
    anyo_core::memory::keep_freed_memory();
    let args: Vec<String> = std::env::args().skip(1).collect();
    match line(&args) {
        Ok(line) => {
            let _ = writeln!(std::io::stdout(), "{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// The configuration of `primary` with these overrides.
fn compose<C: DeserializeOwned + Check>(primary: &str, words: &[String]) -> anyhow::Result<C> {
    let cwd = std::env::current_dir().context("cannot find the working directory")?;
    let search = SearchPath::find(primary, None, &cwd).map_err(|problem| anyhow::anyhow!("{problem}"))?;
    let context = Context { now: chrono::Local::now(), env: &|name| std::env::var(name).ok() };
    let request = Request {
        app: primary,
        examples: &[],
        primary,
        search: &search,
        words,
        base: None,
        forced: Vec::new(),
        context,
    };
    let config = config::compose(&request).and_then(|composed| config::typed(&composed));
    config.map_err(|report| anyhow::anyhow!("{report}"))
}

/// Tells nobody anything; stops after the first progress where that is wanted.
#[derive(Default)]
struct Quiet {
    stop: bool,
    stop_after_one: bool,
}

impl Watch for Quiet {
    fn scalars(&mut self, _: u64, _: &[(&str, f64)]) -> anyo_core::Result<()> {
        Ok(())
    }

    fn note(&mut self, _: &str) {}

    fn progress(&mut self, _: &Progress<'_>) {
        self.stop = self.stop_after_one;
    }

    fn rewind(&mut self, _: u64) -> anyo_core::Result<()> {
        Ok(())
    }

    fn stop_requested(&self) -> bool {
        self.stop
    }
}

//! The smallest application of this workspace, and the one that `tests/` drives as real processes.
//!
//! Its primary file is written by the tests: `steps`, `sleep_ms`, `end` (how the body ends), `seed`, `optim`, `run`.

use std::{process::ExitCode, thread::sleep, time::Duration};

use anyo_core::{
    Error, Result, cli,
    config::{Check, Problem},
    run::{Run, RunConfig},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    seed: u64,
    steps: u64,
    sleep_ms: u64,
    end: End,
    optim: Optim,
    run: RunConfig,
}

/// How the body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum End {
    Done,
    Error,
    Panic,
    Abort,
}

/// A group.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Optim {
    lr: f64,
}

impl Check for Config {
    fn problems(&self) -> Vec<Problem> {
        let too_small = self.optim.lr <= 0.0;
        too_small
            .then(|| Problem::new("optim.lr", format!("must be above 0, got {}", self.optim.lr)))
            .into_iter()
            .collect()
    }
}

fn body(config: Config, run: &mut Run) -> Result<()> {
    let last = std::fs::read_to_string(run.path().join("last_step")).ok().and_then(|text| text.parse::<u64>().ok());
    let first = last.map_or(0, |step| step + 1);
    if run.resumed() {
        run.truncate_metrics(first.saturating_sub(1))?;
    }
    let progress = run.progress(config.steps, "steps");
    progress.skip(first);
    for step in first..config.steps {
        if run.stop_requested() {
            return Err(Error::Interrupted { detail: format!("saved at step {step}") });
        }
        let loss = 1.0 / (step + 1) as f64;
        run.scalars(step, &[("train/loss", loss)])?;
        anyo_core::run::write_atomic(&run.path().join("last_step"), step.to_string().as_bytes())?;
        progress.loss(loss);
        progress.inc(1);
        sleep(Duration::from_millis(config.sleep_ms));
    }
    drop(progress);
    run.record("device", json!("cpu"))?;
    match config.end {
        End::Done => {}
        End::Error => {
            return Err(Error::Run {
                message: "non-finite loss at step 40".into(),
                hint: Some("try a smaller optim.lr".into()),
            });
        }
        End::Panic => panic!("index 9 out of range"),
        End::Abort => std::process::abort(),
    }
    let ndcg = config.optim.lr * config.seed as f64;
    run.write_json(
        "metrics/test.json",
        &json!({ "ndcg@10": ndcg, "ndcg@10_ci": [ndcg - 0.1, ndcg + 0.1], "protocol": "full" }),
    )?;
    run.print(&format!("ndcg@10 {ndcg}"));
    Ok(())
}

fn main() -> ExitCode {
    let app = cli::App {
        name: "demo",
        about: "Counts steps.",
        examples: &["demo seed=7", "demo -m seed=1,2"],
        resumable: &["steps", "end"],
        subcommand: None,
    };
    cli::run::<Config>(&app, body)
}

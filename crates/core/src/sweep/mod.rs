//! Sweeps (`-m`): every combination as a child process of the same binary, one after the other.

mod jobs;
mod product;
mod summary;

use std::{fs, path::Path, time::Instant};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    Result,
    cli::{Session, run_dir},
    config::{Check, Problem, Report, SearchPath, load::parse_words, yaml},
    log::{Console, out},
    run::{self, write_atomic},
    signal,
};

use self::{
    jobs::{Outcome, Status},
    product::Plan,
};

/// Composes all jobs, then runs them; returns the exit code.
pub(crate) fn run<C>(session: &Session<'_>, search: &SearchPath) -> Result<u8>
where
    C: Serialize + DeserializeOwned + Check,
{
    let base = session.base()?;
    let words = parse_words(&session.flags.words)?;
    let plan = product::plan(&words, search)?;
    let dir = compose_all::<C>(session, search, &plan, base.as_deref())?;
    let dir = run::create(&dir)?;
    let console = Console::default();
    let log = dir.join("sweep.log");
    let file = fs::File::create(&log).map_err(crate::Error::io(&log, "make the log"))?;
    console.log_to(file);
    write_plan(session, &plan, &dir)?;
    let stop = signal::stop_flag();
    console.say("info", &format!("sweep: {} jobs, results go to {}", plan.jobs.len(), dir.display()));
    let mut outcomes: Vec<Outcome> = Vec::new();
    for (n, job) in plan.jobs.iter().enumerate() {
        let outcome = if signal::stopped() {
            Outcome { status: Status::NotRun, seconds: 0.0 }
        } else {
            console.say("info", &format!("#{n} : {}", job.words.join(" ")));
            let started = Instant::now();
            let status = jobs::run(session, base.as_deref(), &job.words, &dir.join(n.to_string()), &stop);
            if let Status::Failed(message) = &status {
                console.say("error", &format!("#{n} failed: {message}   {n}/run.log"));
            }
            Outcome { status, seconds: started.elapsed().as_secs_f64() }
        };
        outcomes.push(outcome);
        summary::write_csv(&dir, &plan, &outcomes)?;
    }
    close(&console, &plan, &outcomes, &dir);
    if let Some(table) = summary::over_seeds(&dir, &plan, &outcomes) {
        out(&table);
    }
    let failed = outcomes.iter().any(|o| matches!(o.status, Status::Failed(_)));
    Ok(match (signal::stopped(), failed) {
        (true, _) => 130,
        (false, true) => 1,
        (false, false) => 0,
    })
}

/// C15: a bad key stops everything before job 0. A problem that all jobs share is told once.
fn compose_all<C>(
    session: &Session<'_>,
    search: &SearchPath,
    plan: &Plan,
    base: Option<&Path>,
) -> Result<std::path::PathBuf>
where
    C: Serialize + DeserializeOwned + Check,
{
    let mut problems: Vec<(Problem, Vec<usize>)> = Vec::new();
    let mut dir: Option<std::path::PathBuf> = None;
    for (n, job) in plan.jobs.iter().enumerate() {
        let found = match session.load::<C>(search, &job.words, base, None) {
            Ok((composed, _)) => {
                let own = run_dir(&composed)?;
                let first = dir.get_or_insert_with(|| own.clone());
                if *first == own {
                    continue;
                }
                let hint = "the jobs are numbered folders below one run.dir".to_owned();
                let message = format!("differs between the jobs: {} and {}", first.display(), own.display());
                vec![Problem { hint: Some(hint), ..Problem::new("run.dir", message) }]
            }
            Err(crate::Error::Config(report)) => report.problems,
            Err(other) => return Err(other),
        };
        for problem in found {
            match problems.iter_mut().find(|(p, _)| *p == problem) {
                Some((_, jobs)) => jobs.push(n),
                None => problems.push((problem, vec![n])),
            }
        }
    }
    let problems: Vec<Problem> = problems
        .into_iter()
        .map(|(problem, jobs)| {
            if jobs.len() == plan.jobs.len() {
                return problem;
            }
            let which = format!("job #{} ({})", jobs[0], plan.swept_words(jobs[0]));
            let more = if jobs.len() > 1 { format!(" and {} more", jobs.len() - 1) } else { String::new() };
            Problem { message: format!("{problem} [{which}{more}]"), key: String::new(), hint: problem.hint }
        })
        .collect();
    match dir {
        Some(dir) if problems.is_empty() => Ok(dir),
        _ => Err(Report { problems }.into()),
    }
}

fn write_plan(session: &Session<'_>, plan: &Plan, dir: &Path) -> Result<()> {
    let cwd = std::env::current_dir().unwrap_or_default();
    let jobs: Vec<_> =
        plan.jobs.iter().enumerate().map(|(n, job)| json!({ "job": n, "overrides": job.words })).collect();
    let record = json!({
        "app": session.app.name,
        "command": session.argv,
        "started": session.flags.now.to_rfc3339(),
        "cwd": cwd,
        "git": run::git(&cwd),
        "toolchain": run::toolchain(),
        "swept": plan.swept,
        "jobs": jobs,
    });
    write_atomic(&dir.join("sweep.yaml"), yaml::write(&record)?.as_bytes())
}

/// D6: all failures once more, at the end where they are seen.
fn close(console: &Console, plan: &Plan, outcomes: &[Outcome], dir: &Path) {
    let total = outcomes.len();
    let failed: Vec<(usize, &str)> = outcomes
        .iter()
        .enumerate()
        .filter_map(|(n, o)| match &o.status {
            Status::Failed(message) => Some((n, message.as_str())),
            Status::Interrupted => Some((n, "interrupted")),
            _ => None,
        })
        .collect();
    let left = outcomes.iter().filter(|o| matches!(o.status, Status::NotRun)).count();
    let shown = dir.display();
    let mut text = match (failed.len(), left) {
        (0, 0) => format!("sweep: {total} jobs done, results in {shown}"),
        (f, 0) => format!("sweep: {f} of {total} jobs failed, results in {shown}"),
        (f, left) => {
            format!("sweep: interrupted; {f} of {total} jobs failed or stopped, {left} not run, results in {shown}")
        }
    };
    let words: Vec<String> = failed.iter().map(|(n, _)| plan.swept_words(*n)).collect();
    let width = words.iter().map(|w| w.chars().count()).max().unwrap_or(0);
    let long = failed.iter().map(|(_, m)| m.chars().count()).max().unwrap_or(0).min(60);
    for ((n, message), words) in failed.iter().zip(&words) {
        text += &format!("\n  #{n}  {words:width$}   {message:long$}   {n}/run.log");
    }
    console.say("info", &text);
}

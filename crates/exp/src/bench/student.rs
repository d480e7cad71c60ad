//! `bench-student WORK`: our side of `benches/peers/student.sh`, one JSON line per call.
//!
//! Each work is the same as the peer's of that name: MovieLens-1M, leave-one-out, dropout 0.2. Attention weights have no
//! dropout, as in the peer's tuned form, so that libtorch's fused attention is used.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use anyo_core::{
    data::{self, Dataset, Rows},
    eval::rank_rows,
    memory::peak_rss_bytes,
    torch::device,
};
use anyo_student::{BaselineRunConfig, Student, fit};
use serde_json::{Value, json};

use super::Quiet;

/// The works and their overrides.
const WORKS: [(&str, &[&str]); 5] = [
    ("train_bce_200", &["student.max_len=200"]),
    ("train_bce_50", &["student.d_model=64", "train.batch_size=256"]),
    ("train_ce_200", &["student.max_len=200", "student.loss.name=ce"]),
    ("rank_200", &["student.max_len=200"]),
    ("second_start", &["student.max_len=200"]),
];

/// Runs the work that `args` names and returns the line to print.
///
/// # Errors
/// An unknown work, missing data, or whatever the work meets.
pub fn line(args: &[String]) -> Result<String> {
    let names = WORKS.map(|(name, _)| name).join(", ");
    let [work, extra @ ..] = args else { bail!("which work? one of {names}; then overrides") };
    let Some((_, overrides)) = WORKS.iter().find(|(name, _)| name == work) else {
        bail!("no work `{work}`; one of {names}")
    };
    let config = compose(overrides, extra)?;
    device::set_threads(config.threads)?;
    let mut dataset = data::load(&config.dataset, &config.data, &mut |_| ())?;
    let measured = match work.as_str() {
        "rank_200" => rank(&config, &dataset)?,
        "second_start" => first_step(&config, &dataset)?,
        _ => {
            // The peer's epoch has no validation in it.
            dataset.valid = Rows::new();
            epoch(&config, &dataset)?
        }
    };
    let mut line = json!({ "work": work, "peak_rss_mb": peak_rss_bytes() as f64 / 1e6 });
    merge(&mut line, measured);
    Ok(line.to_string())
}

fn merge(line: &mut Value, other: Value) {
    if let (Value::Object(line), Value::Object(other)) = (line, other) {
        line.extend(other);
    }
}

fn compose(overrides: &[&str], extra: &[String]) -> Result<BaselineRunConfig> {
    let fixed = ["dataset=movielens-1m", "data.root=../shared/data", "student.attention_dropout=0", "train.epochs=1"];
    let words: Vec<String> =
        fixed.iter().chain(overrides).map(|word| (*word).to_owned()).chain(extra.iter().cloned()).collect();
    super::compose("run-student-baseline", &words)
}

fn student(config: &BaselineRunConfig, dataset: &Dataset) -> Result<Student> {
    let device = config.device.choose()?.device;
    Ok(Student::new(&config.student, dataset.n_items(), device, config.seed)?)
}

fn epoch(config: &BaselineRunConfig, dataset: &Dataset) -> Result<Value> {
    let student = student(config, dataset)?;
    let fitted = fit(&config.setup(dataset), &student, &mut Quiet::default())?;
    let rows = dataset.train.len() as f64;
    Ok(json!({ "seconds": fitted.seconds, "sequences_per_s": rows / fitted.seconds }))
}

fn rank(config: &BaselineRunConfig, dataset: &Dataset) -> Result<Value> {
    let student = student(config, dataset)?;
    let started = Instant::now();
    let ranking = rank_rows(&student, &dataset.test, dataset.n_items(), &config.eval, &mut |_| Ok(()))?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(json!({ "seconds": seconds, "users_per_s": ranking.len() as f64 / seconds }))
}

/// Seconds from the start of the process, loading of the libraries included, to the end of the first training step.
fn first_step(config: &BaselineRunConfig, dataset: &Dataset) -> Result<Value> {
    let student = student(config, dataset)?;
    let ended = fit(&config.setup(dataset), &student, &mut Quiet { stop: false, stop_after_one: true });
    if !matches!(ended, Err(anyo_core::Error::Interrupted { .. })) {
        bail!("the first step did not end as it should: {ended:?}");
    }
    Ok(json!({ "seconds": process_age()? }))
}

/// Seconds since the system made this process.
fn process_age() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("this work needs Linux's /proc")?;
    // The name in parentheses may hold blanks; field 22 is the 20th after it.
    let ticks: f64 =
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19)).context("no start time")?.parse()?;
    let uptime: f64 = std::fs::read_to_string("/proc/uptime")?.split(' ').next().context("no uptime")?.parse()?;
    // SAFETY: a plain query.
    let hertz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    Ok(uptime - ticks / hertz)
}

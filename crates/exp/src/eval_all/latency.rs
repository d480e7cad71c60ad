//! How long one person waits: a trained student ranks one history at a time, on the CPU.

use std::time::Instant;

use anyo_core::{
    Batch, Error, Recommender, Result,
    data::Dataset,
    torch::{load_tensors, tensor_file::load_metadata},
};
use anyo_student::{MODEL_FILE, Student, config::StudentConfig};
use tch::{Device, Kind, Tensor};

use super::past::Past;

/// Items of the list that each ranking ends with.
const TOP: i64 = 20;
/// Rankings before the clock starts.
const WARM: usize = 10;

/// Seconds of one ranking, from the history to the list of [`TOP`] items.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p95: f64,
    pub(super) n: usize,
}

/// Times the student of `past` on the first `n` test rows.
///
/// # Errors
/// When the run's configuration and weights make no student.
pub(super) fn measure(past: &Past, dataset: &Dataset, n: usize) -> Result<Option<Latency>> {
    let n = n.min(dataset.test.len());
    let path = past.path.join(MODEL_FILE);
    if n == 0 || !path.is_file() {
        return Ok(None);
    }
    let told = past.config.get("student").cloned().unwrap_or_default();
    let config: StudentConfig = serde_json::from_value(told)
        .map_err(|e| Error::invalid(format!("{}/config.yaml: student: {e}", past.path.display())))?;
    if load_metadata(&path)?.get("items_hash").is_some_and(|hash| *hash != dataset.items_hash) {
        return Err(Error::invalid(format!("{}: trained on other items", path.display())));
    }
    let student = Student::new(&config, dataset.n_items(), Device::Cpu, past.seed)?;
    student.load(&load_tensors(&path)?)?;
    let top = TOP.min(dataset.n_items() as i64);
    let once = |row: usize| -> Result<f64> {
        let history = dataset.test.history(row);
        let started = Instant::now();
        let scores = student.score(&Batch { users: &[dataset.test.user(row)], histories: &[history] })?;
        let (_, items): (Tensor, Tensor) = scores.f_to_kind(Kind::Float)?.f_topk(top, -1, true, true)?;
        let _ = Vec::<i64>::try_from(items.view([-1]))?;
        Ok(started.elapsed().as_secs_f64())
    };
    for row in 0..WARM.min(n) {
        once(row)?;
    }
    let mut seconds = (0..n).map(once).collect::<Result<Vec<f64>>>()?;
    seconds.sort_by(f64::total_cmp);
    let at = |q: f64| seconds[((n - 1) as f64 * q).round() as usize];
    Ok(Some(Latency { p50: at(0.5), p95: at(0.95), n }))
}

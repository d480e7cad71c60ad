//! What a method cost: seconds, memory, size, labelled rows.

use std::{fs, path::Path};

use anyo_core::{data::Dataset, stats::Spread};
use serde_json::Value;

use super::{
    latency::{self, Latency},
    methods::{Kind, Method},
    past::{Past, json},
};

/// Means over the runs of a method; `None` where they do not tell.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Cost {
    pub(super) train_seconds: Option<f64>,
    pub(super) export_seconds: Option<f64>,
    pub(super) total_seconds: Option<f64>,
    pub(super) epochs: Option<f64>,
    pub(super) peak_bytes: Option<f64>,
    pub(super) parameters: Option<f64>,
    pub(super) weight_bytes: Option<f64>,
    pub(super) latency: Option<Latency>,
    /// Seconds of a row of the teacher's export.
    pub(super) export_per_row: Option<f64>,
    /// Training rows that the teacher labelled for it.
    pub(super) labelled_rows: Option<f64>,
}

/// The cost of each method; `latency_users` rankings are timed for students.
pub(super) fn costs(
    methods: &[Method],
    dataset: &Dataset,
    latency_users: usize,
    note: &mut dyn FnMut(String),
) -> Vec<Cost> {
    methods.iter().map(|method| cost(method, dataset, latency_users, note)).collect()
}

fn cost(method: &Method, dataset: &Dataset, latency_users: usize, note: &mut dyn FnMut(String)) -> Cost {
    let (true, Some(first)) = (method.is_trained(), method.runs.first()) else { return Cost::default() };
    let mean = |value: &dyn Fn(&Past) -> Option<f64>| {
        Spread::of(&method.runs.iter().filter_map(value).collect::<Vec<_>>()).map(|spread| spread.mean)
    };
    let timed = |key: &'static str| mean(&move |past: &Past| past.time(key));
    let is_teacher = method.kind == Kind::Teacher;
    let latency = if is_teacher || latency_users == 0 {
        None
    } else {
        latency::measure(first, dataset, latency_users).unwrap_or_else(|error| {
            note(format!("{}: no latency, because {error}", method.name));
            None
        })
    };
    let weights = if is_teacher { "models/teacher.safetensors" } else { anyo_student::MODEL_FILE };
    Cost {
        train_seconds: mean(&train_seconds),
        export_seconds: timed("distill_teacher_export_time"),
        total_seconds: timed("total_seconds"),
        epochs: timed("epochs"),
        peak_bytes: timed("peak_rss_bytes"),
        parameters: mean(&|past| past.record.get("n_parameters")?.as_f64()),
        weight_bytes: mean(&|past| Some(fs::metadata(past.path.join(weights)).ok()?.len() as f64)),
        latency,
        export_per_row: timed("export_rows_per_s").filter(|rate| *rate > 0.0).map(|rate| 1.0 / rate),
        labelled_rows: mean(&labelled_rows).filter(|_| method.kind == Kind::Distilled),
    }
}

/// The number whose name says that it is the time of training.
fn train_seconds(past: &Past) -> Option<f64> {
    let times = past.time.as_object()?;
    times.iter().find(|(key, _)| key.contains("train_time")).and_then(|(_, value)| value.as_f64())
}

/// As the run recorded it (`labelled_rows` of run.yaml), else as its teacher's bundle says.
fn labelled_rows(past: &Past) -> Option<f64> {
    if let Some(rows) = past.record.get("labelled_rows").and_then(Value::as_f64) {
        return Some(rows);
    }
    let teacher = past.config.get("teacher_run")?.as_str()?;
    let cwd = past.record.get("cwd").and_then(Value::as_str).unwrap_or_default();
    let teacher = Path::new(cwd).join(teacher);
    let manifest = [teacher.join("bundle/manifest.json"), teacher.join("manifest.json")];
    let manifest = manifest.iter().find(|path| path.is_file())?;
    json(manifest).ok()?["lists"]["rows"].as_f64()
}

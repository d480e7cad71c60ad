//! `metrics.jsonl`: one line for each call, written first; TensorBoard's file is made from the same numbers.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value, json};

use super::tensorboard::EventFile;
use crate::{Error, Result, run::write_atomic};

/// The scalar log of a run.
pub(crate) struct Metrics {
    path: PathBuf,
    tensorboard: PathBuf,
    file: Option<File>,
    events: Option<EventFile>,
}

impl Metrics {
    pub(crate) fn new(run: &Path) -> Self {
        Self { path: run.join("metrics.jsonl"), tensorboard: run.join("tb"), file: None, events: None }
    }

    /// Writes `{"step": …, "time": …, name: value, …}`; a value that is not finite becomes `null`.
    pub(crate) fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64());
        let mut line = Map::new();
        line.insert("step".into(), step.into());
        line.insert("time".into(), json!((time * 1000.0).round() / 1000.0));
        for (name, value) in values {
            line.insert((*name).to_owned(), json!(value));
        }
        let text = format!("{}\n", Value::Object(line));
        let failed = |e| Error::Io { path: self.path.clone(), action: "write the metrics", source: e };
        let file = match self.file.take() {
            Some(file) => file,
            None => OpenOptions::new().create(true).append(true).open(&self.path).map_err(failed)?,
        };
        let file = self.file.insert(file);
        // One call, so that a killed run leaves at most one torn line, which truncating drops.
        file.write_all(text.as_bytes()).map_err(failed)?;
        self.events(time, step, values)
    }

    fn events(&mut self, time: f64, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let events = match self.events.take() {
            Some(events) => events,
            None => EventFile::create(&self.tensorboard, time)?,
        };
        self.events.insert(events).scalars(time, step, values)
    }

    /// Forgets everything after `step`: the run continues from there.
    pub(crate) fn truncate(&mut self, step: u64) -> Result<()> {
        (self.file, self.events) = (None, None);
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Error::io(&self.path, "read the metrics")(e)),
        };
        let text = String::from_utf8_lossy(&bytes);
        let parse = |line: &str| serde_json::from_str::<Map<String, Value>>(line).ok();
        let at = |line: &Map<String, Value>| line.get("step").and_then(Value::as_u64);
        let kept: Vec<(&str, Map<String, Value>)> = text
            .lines()
            .filter_map(|line| Some((line, parse(line)?)))
            .filter(|(_, values)| at(values).is_some_and(|s| s <= step))
            .collect();
        let lines: String = kept.iter().map(|(line, _)| format!("{line}\n")).collect();
        write_atomic(&self.path, lines.as_bytes())?;
        self.rebuild_events(kept.into_iter().map(|(_, values)| values))
    }

    /// TensorBoard would show both the old and the new points of a resumed run, so its file is made anew.
    fn rebuild_events(&mut self, lines: impl Iterator<Item = Map<String, Value>>) -> Result<()> {
        if let Ok(entries) = fs::read_dir(&self.tensorboard) {
            for entry in
                entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with("events.out.tfevents."))
            {
                fs::remove_file(entry.path()).map_err(Error::io(entry.path(), "replace the TensorBoard file"))?;
            }
        }
        for line in lines {
            let number = |key: &str| line.get(key).and_then(Value::as_f64);
            let step = line.get("step").and_then(Value::as_u64).unwrap_or(0);
            let values: Vec<(&str, f64)> = line
                .iter()
                .filter(|(key, _)| !matches!(key.as_str(), "step" | "time"))
                .map(|(key, value)| (key.as_str(), value.as_f64().unwrap_or(f64::NAN)))
                .collect();
            self.events(number("time").unwrap_or(0.0), step, &values)?;
        }
        Ok(())
    }
}

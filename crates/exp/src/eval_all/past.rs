//! One finished run, as its folder tells it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyo_core::{
    Error, Result,
    data::{Column, DataConfig, DatasetConfig, parquet_columns, read_parquet},
    run::{read_record, resolve_run},
};
use serde_json::{Map, Value};

/// The applications whose runs can be compared.
pub(super) const APPS: [&str; 3] = ["run-student-baseline", "run-teacher", "run-distill"];
const PER_USER: &str = "metrics/per_user.parquet";
const OTHERS: &str = "metrics/other_ranks.parquet";

/// A finished run.
#[derive(Debug, Clone)]
pub(super) struct Past {
    pub(super) path: PathBuf,
    pub(super) app: String,
    pub(super) seed: u64,
    /// `run.yaml`.
    pub(super) record: Map<String, Value>,
    /// `config.yaml`.
    pub(super) config: Map<String, Value>,
    /// `metrics/time.json`.
    pub(super) time: Value,
    /// Split, candidates, history and tie rule of the figures.
    pub(super) protocol: String,
}

/// Ranks of the test rows: whose, of what, where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ranks {
    pub(super) users: Vec<String>,
    pub(super) targets: Vec<String>,
    pub(super) ranks: Vec<u32>,
}

/// The run folders that one word names: a folder, the jobs of a sweep folder, `latest`, `latest:APP`.
pub(super) fn folders(word: &Path) -> Result<Vec<PathBuf>> {
    let text = word.to_string_lossy();
    if text == "latest" || text.starts_with("latest:") {
        let app = text.strip_prefix("latest:").unwrap_or(APPS[0]);
        return Ok(vec![resolve_run("latest", app)?]);
    }
    if !word.join("sweep.yaml").is_file() {
        return Ok(vec![word.to_owned()]);
    }
    let entries = fs::read_dir(word).map_err(Error::io(word, "list the jobs of the sweep"))?;
    let mut jobs: Vec<(u64, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .filter(|(_, path)| path.is_dir())
        .collect();
    jobs.sort();
    Ok(jobs.into_iter().map(|(_, path)| path).collect())
}

impl Past {
    /// Opens the run in the folder `path`.
    ///
    /// # Errors
    /// No such folder, no run, a run of another application, one that did not finish, one without ranks by user.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        let fail = |message: String, hint: String| Err(Error::Invalid { message, hint: Some(hint) });
        if !path.is_dir() {
            return fail(format!("{shown}: there is no such run folder"), "name the folders of finished runs".into());
        }
        let (Some(record), Some(config)) =
            (read_record(&path.join("run.yaml")), read_record(&path.join("config.yaml")))
        else {
            return fail(
                format!("{shown} is no run folder: it holds no readable run.yaml and config.yaml"),
                format!("name folders made by {}", APPS.join(", ")),
            );
        };
        let text = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (app, status) = (text("app"), text("status"));
        if !APPS.contains(&app.as_str()) {
            return fail(format!("{shown} is a run of {app}"), format!("wanted runs of {}", APPS.join(", ")));
        }
        if status != "done" {
            return fail(
                format!("{shown} did not finish: its status is {status}"),
                format!("finish it with {app} --resume {shown}"),
            );
        }
        let Some(seed) = config.get("seed").and_then(Value::as_u64) else {
            return fail(format!("{shown}/config.yaml has no seed"), "the file was changed; run it again".into());
        };
        if !path.join(PER_USER).is_file() {
            let hint = match app == APPS[1] {
                true => "run it again with eval.per_user=true and a scoring head (teacher.head)",
                false => "run it again with eval.per_user=true",
            };
            return fail(format!("{shown} has no {PER_USER}: users cannot be paired"), hint.into());
        }
        let test = json(&path.join("metrics/test.json"))?;
        let protocol = test["protocol"].as_str().unwrap_or_default().to_owned();
        let time = json(&path.join("metrics/time.json"))?;
        Ok(Self { path: path.to_owned(), app, seed, record, config, time, protocol })
    }

    /// The hash of sources, options and split.
    pub(super) fn data_hash(&self) -> &str {
        self.record.get("data").and_then(|data| data["hash"].as_str()).unwrap_or("unknown")
    }

    /// The option taken from a group of `conf/`.
    pub(super) fn choice(&self, group: &str) -> Option<&str> {
        self.record.get("choices")?.get(group)?.as_str()
    }

    /// What the run read.
    ///
    /// # Errors
    /// When `config.yaml` does not say it.
    pub(super) fn dataset(&self) -> Result<(DatasetConfig, DataConfig)> {
        let part = |key: &str| self.config.get(key).cloned().unwrap_or_default();
        let wrong = |key: &str, why: String| {
            Error::invalid(format!("{}/config.yaml: {key} cannot be read: {why}", self.path.display()))
        };
        let dataset = serde_json::from_value(part("dataset")).map_err(|e| wrong("dataset", e.to_string()))?;
        let mut data: DataConfig = serde_json::from_value(part("data")).map_err(|e| wrong("data", e.to_string()))?;
        // relative paths count from where the run was started
        if let Some(cwd) = self.record.get("cwd").and_then(Value::as_str) {
            data.root = Path::new(cwd).join(&data.root);
            data.cache = data.cache.map(|cache| Path::new(cwd).join(cache));
        }
        Ok((dataset, data))
    }

    /// The ranks of the run's own model.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn ranks(&self) -> Result<Ranks> {
        read_ranks(&self.path.join(PER_USER), "rank")
    }

    /// The rows beside the model, in the order of the run's table: name, and ranks where the run kept them.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn others(&self) -> Result<Vec<(String, Option<Ranks>)>> {
        let path = self.path.join(OTHERS);
        if path.is_file() {
            let names = parquet_columns(&path)?;
            let names = names.iter().filter_map(|column| Some((column, column.strip_prefix("rank:")?)));
            return names.map(|(column, name)| Ok((name.to_owned(), Some(read_ranks(&path, column)?)))).collect();
        }
        let compare = json(&self.path.join("metrics/compare.json"))?;
        // the first is the model itself
        Ok(compare.as_object().into_iter().flatten().skip(1).map(|(name, _)| (name.clone(), None)).collect())
    }

    /// The figures of a row of the run's table, as `metrics/compare.json` has them.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn quoted(&self, row: &str) -> Result<Value> {
        Ok(json(&self.path.join("metrics/compare.json"))?[row].clone())
    }

    /// A number of `metrics/time.json`.
    pub(super) fn time(&self, key: &str) -> Option<f64> {
        self.time[key].as_f64()
    }
}

fn read_ranks(path: &Path, column: &str) -> Result<Ranks> {
    let mut columns = read_parquet(path, &["user", "target", column])?.into_iter();
    match (columns.next(), columns.next(), columns.next()) {
        (Some(Column::Text(users)), Some(Column::Text(targets)), Some(Column::U32(ranks))) if !ranks.contains(&0) => {
            Ok(Ranks { users, targets, ranks })
        }
        _ => Err(Error::Data {
            path: path.to_owned(),
            line: None,
            message: format!("wanted texts in `user` and `target` and ranks from 1 in `{column}`"),
            hint: Some("the file was changed; run it again".into()),
        }),
    }
}

/// A JSON file of a run.
pub(super) fn json(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).map_err(Error::io(path, "read the figures"))?;
    serde_json::from_str(&text).map_err(|e| Error::Data {
        path: path.to_owned(),
        line: Some(e.line() as u64),
        message: format!("is no JSON: {e}"),
        hint: Some("the file was changed or cut off; run it again".into()),
    })
}

//! `import-bundle`.

use std::path::PathBuf;

use anyo_core::{
    Error, Result,
    bundle::{BUNDLE_FOLDER, Position, dllm2rec, read_embeddings, table, table::TableOptions, write_imported},
    config::{Check, Problem},
    data::{self, DataConfig, DatasetConfig},
    run::{Run, RunConfig},
    torch::device,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::summary;

/// What `from` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceFormat {
    /// A folder is DLLM2Rec's, a file a table.
    Auto,
    /// A folder with DLLM2Rec's three files.
    Dllm2rec,
    /// A table.
    Table,
}

/// The whole configuration of `import-bundle`; defaults and meanings stand in `conf/import-bundle.yaml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRunConfig {
    /// The data set that the lists are for.
    pub dataset: DatasetConfig,
    /// Where its files lie.
    pub data: DataConfig,
    /// A folder with DLLM2Rec's files, or a table.
    pub from: PathBuf,
    /// What that is.
    pub format: SourceFormat,
    /// For which targets of each user the lists were made.
    pub position: Position,
    /// Name of the teacher, for the manifest.
    pub teacher: String,
    /// Vectors of the items beside a table.
    #[serde(deserialize_with = "Option::deserialize")]
    pub embeddings: Option<PathBuf>,
    /// How the table is laid out.
    pub table: TableOptions,
    /// CPU threads, 0 for all cores.
    pub threads: usize,
    /// Where the run writes.
    pub run: RunConfig,
}

impl Check for ImportRunConfig {
    fn problems(&self) -> Vec<Problem> {
        let parts =
            [("dataset", self.dataset.problems()), ("data", self.data.problems()), ("table", self.table.problems())];
        let inside = |(key, list): (&str, Vec<Problem>)| {
            list.into_iter().map(|p| Problem { key: format!("{key}.{}", p.key), ..p }).collect::<Vec<_>>()
        };
        parts.into_iter().flat_map(inside).collect()
    }
}

pub(super) fn run(config: &ImportRunConfig, run: &mut Run) -> Result<()> {
    run.info(&device::set_threads(config.threads)?);
    let dataset = data::load(&config.dataset, &config.data, &mut |note| run.info(note))?;
    run.record("data", json!({"hash": dataset.hash, "items_hash": dataset.items_hash}))?;
    let is_folder = match config.format {
        SourceFormat::Auto => config.from.is_dir(),
        format => format == SourceFormat::Dllm2rec,
    };
    let mut imported = if is_folder {
        dllm2rec::read(&config.from, &dataset, config.position, config.table.top_n)?
    } else {
        table::read(&config.from, &dataset, config.position, &config.table)?
    };
    if let Some(path) = &config.embeddings {
        if imported.embeddings.is_some() {
            let message = format!("{} brings item vectors; embeddings names others", config.from.display());
            return Err(Error::Invalid { message, hint: Some("write embeddings=null".into()) });
        }
        imported.embeddings = Some(read_embeddings(path, dataset.n_items(), None)?);
    }
    let folder = run.path().join(BUNDLE_FOLDER);
    let manifest = write_imported(&folder, &dataset, config.position, &config.teacher, imported)?;
    if config.position != Position::Train {
        let position = config.position.name();
        run.warn(&format!("these lists are for {position} rows: they can be looked at, but no training takes them"));
    }
    run.print(&summary(&manifest, &folder));
    Ok(())
}

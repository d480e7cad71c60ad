//! The teacher bundle: a folder with what a teacher knows about a data set, the only place where teacher and
//! distillation meet. The specification is `docs/specification/08_teacher_bundle.md`.
//!
//! - [`BundleWriter`]: batch by batch, resumable in the middle, the finished folder appears by one rename.
//! - [`ListMaker`]: score matrices to ranked lists with distances, for whoever exports.
//! - [`Bundle`]: reads a folder and checks everything; [`Bundle::open_for_training`] for distillation.
//! - [`dllm2rec`]: the three files of DLLM2Rec; [`table`]: any table of rows and ranked items.
//!
//! A *row* is one target: number t of [`TargetIndex`](crate::data::TargetIndex) over the training (validation, test)
//! rows of a data set. Axis letters: `R` rows of the bundle, `N` items, `K` length of a list (`top_n`), `D` width of an
//! item vector.

mod check;
mod choose;
pub mod dllm2rec;
mod embeddings;
mod gap;
mod import;
mod lists;
mod make;
mod manifest;
mod open;
mod parts;
mod pt;
mod source;
pub mod table;
#[cfg(test)]
mod tests;
mod writer;

pub use check::list_len;
pub use choose::choose_rows;
pub use embeddings::{EMBEDDINGS_FILE, read_embeddings};
pub use gap::{deviation, gap_softmax};
pub use import::{Given, Imported, ItemIds, RowIds, write_imported};
pub use lists::Lists;
pub use make::{Distance, ListMaker, ListRule};
pub use manifest::{
    Confidence, DatasetIdentity, EmbeddingsInfo, FileInfo, ListsInfo, MANIFEST_FILE, Manifest, Position,
    SCHEMA_VERSION, Spec, Teacher, Unit,
};
pub use open::{Bundle, RANKINGS_FILE, Wanted};
pub use pt::{read_pt, write_pt};
pub use source::{BUNDLE_FOLDER, BundleSource};
pub use writer::{BundleWriter, Flush, Opened};

use std::path::Path;

use crate::Error;

/// An [`Error::Data`] of a bundle's file.
fn bad(path: &Path, message: impl Into<String>, hint: &str) -> Error {
    Error::Data { path: path.to_owned(), line: None, message: message.into(), hint: Some(hint.to_owned()) }
}

//! A trained student for production: a folder that a program without this code can load.
//!
//! `student.safetensors` (weights by name), `student.pt` and `encoder.pt` (TorchScript: scores, and the state alone),
//! `items.bin` and `item_bias.bin` (flat arrays for a nearest-neighbour index), `item_ids.json`, `manifest.json`. The
//! specification is `docs/specification/10_student_export.md`.

mod check;
mod manifest;
mod networks;
mod open;
mod script;
mod window;
mod write;

pub use manifest::{
    DatasetInfo, InputInfo, ItemsInfo, KIND, MANIFEST_FILE, ModelInfo, OutputInfo, SCHEMA_VERSION, StudentManifest,
};
pub use open::{ExportedStudent, is_exported};
pub use write::{Production, Written};

/// Weights by name.
pub const WEIGHTS_FILE: &str = "student.safetensors";
/// TorchScript: `forward(item_ids, lengths)` gives scores `[B, n_items]`.
pub const SCORES_FILE: &str = "student.pt";
/// TorchScript: `forward(item_ids, lengths)` gives states `[B, d]`.
pub const ENCODER_FILE: &str = "encoder.pt";
/// f32, little endian, row-major `[n_items, d]`.
pub const ITEMS_FILE: &str = "items.bin";
/// f32, little endian, `[n_items]`; only of heads with a bias.
pub const BIAS_FILE: &str = "item_bias.bin";
/// Id and title of every item, in the order of their numbers.
pub const IDS_FILE: &str = "item_ids.json";
/// Every file but the manifest.
const FILES: [&str; 6] = [WEIGHTS_FILE, SCORES_FILE, ENCODER_FILE, ITEMS_FILE, BIAS_FILE, IDS_FILE];

/// An [`anyo_core::Error::Data`] of a file of an exported folder.
fn bad(path: &std::path::Path, message: impl Into<String>) -> anyo_core::Error {
    anyo_core::Error::Data {
        path: path.to_owned(),
        line: None,
        message: message.into(),
        hint: Some("export the student again with export-student, or copy the folder again".into()),
    }
}

//! Small sequential recommenders: models, losses, training.

pub mod baselines;
pub mod batch;
pub mod config;
pub mod dropout;
mod export;
mod extra;
mod layers;
pub mod loss;
mod network;
mod pipeline;
mod prepare;
pub mod production;
mod recommend;
mod run_watch;
mod saved_run;
pub mod seen;
mod student;
mod train;
mod train_config;

mod caser;
mod gru4rec;
mod sasrec;
mod sasrec_dllm2rec;

pub use caser::Caser;
pub use export::{ExportConfig, ExportProgress, Exported, Pass, Source, export_bundle};
pub use extra::{Added, EXTRA_PREFIX, Extra, Step, Tables};
pub use gru4rec::Gru4rec;
pub use network::Network;
pub use pipeline::{BaselineRunConfig, MODEL_FILE, Train, Trained, run_student, run_student_baseline, train_student};
pub use prepare::Prepare;
pub use production::{ExportedStudent, Production, is_exported};
pub use recommend::{Loaded, Recommendation};
pub use run_watch::RunWatch;
pub use sasrec::Sasrec;
pub use sasrec_dllm2rec::SasrecDllm2rec;
pub use saved_run::{STUDENT_APPS, load_student_run};
pub use student::{Student, baseline};
pub use train::{BEST_FILE, Fitted, Progress, Setup, Watch, fit, fit_with};
pub use train_config::{CheckpointConfig, TrainConfig};

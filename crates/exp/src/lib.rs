//! Composition root: nothing but the binaries and their integration tests.

pub mod apps;
pub mod bench;
pub mod bundles;
pub mod compose;
pub mod doctor;
pub mod eval_all;
pub mod export_student;
pub mod recommend;
pub mod run_lm;

//! Reading the configuration of any run that left a student: trained alone or distilled.

use std::path::Path;

use anyo_core::{Result, config};

use crate::pipeline::BaselineRunConfig;

/// The applications whose runs hold a student.
pub const STUDENT_APPS: &[&str] = &["run-student-baseline", "run-distill"];

/// What a distilled run's configuration says beside its student's.
const DISTILLED: &[&str] = &["teacher_run", "distill", "active"];

/// The student's part of the configuration in the run folder `run`, whichever of [`STUDENT_APPS`] made it.
///
/// # Errors
/// When the file is missing or says something else; the message lists every problem.
pub fn load_student_run(run: &Path) -> Result<BaselineRunConfig> {
    config::load_saved_without(run, DISTILLED)
}

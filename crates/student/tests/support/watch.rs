//! A watch that records and stops; shared by the tests of student, distillation and teacher.

use anyo_core::{Error, Result};
use anyo_student::{Progress, Watch};

/// Keeps all that the loop says, and asks it to stop or fails at a step.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) scalars: Vec<(u64, String, u64)>,
    pub(crate) notes: Vec<String>,
    /// Ask for a stop once so many steps are done.
    pub(crate) stop_at: Option<u64>,
    /// Die without a further word at this step, as a killed process does.
    pub(crate) die_at: Option<u64>,
    pub(crate) done: u64,
}

impl Recorder {
    pub(crate) fn values(&self, name: &str) -> Vec<f64> {
        self.scalars.iter().filter(|(_, n, _)| n == name).map(|(_, _, bits)| f64::from_bits(*bits)).collect()
    }
}

impl Watch for Recorder {
    fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        if self.die_at.is_some_and(|at| step >= at) {
            return Err(Error::invalid("killed"));
        }
        self.scalars.extend(values.iter().map(|(name, value)| (step, (*name).to_owned(), value.to_bits())));
        Ok(())
    }

    fn note(&mut self, message: &str) {
        self.notes.push(message.to_owned());
    }

    fn progress(&mut self, progress: &Progress<'_>) {
        self.done = (progress.epoch - 1) * progress.steps + progress.step;
    }

    fn rewind(&mut self, step: u64) -> Result<()> {
        self.scalars.retain(|(at, _, _)| *at <= step);
        Ok(())
    }

    fn stop_requested(&self) -> bool {
        self.stop_at.is_some_and(|at| self.done >= at)
    }
}

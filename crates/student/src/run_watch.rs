//! A training loop that reports to a run.

use anyo_core::{Result, run::Run};

use crate::train::{Progress, Watch};

/// The reports of a training loop, into a run: scalars, messages, the progress bar.
pub struct RunWatch<'a> {
    run: &'a mut Run,
    bar: Option<(u64, anyo_core::Progress)>,
}

impl<'a> RunWatch<'a> {
    /// Reports into `run`.
    pub fn new(run: &'a mut Run) -> Self {
        Self { run, bar: None }
    }
}

impl Watch for RunWatch<'_> {
    fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        self.run.scalars(step, values)
    }

    fn note(&mut self, message: &str) {
        self.bar = None;
        self.run.info(message);
    }

    fn progress(&mut self, progress: &Progress<'_>) {
        let steps = progress.steps * progress.epochs;
        let done = (progress.epoch - 1) * progress.steps + progress.step;
        let (last, bar) = self.bar.get_or_insert_with(|| {
            let bar = self.run.progress(steps, "steps");
            bar.skip(done - 1);
            (done - 1, bar)
        });
        bar.inc(done - std::mem::replace(last, done));
        bar.loss(progress.loss);
        let best = progress.best.map_or(String::new(), |(metric, value)| format!(", best valid {metric} {value:.4}"));
        bar.message(&format!("epoch {}/{}{best}", progress.epoch, progress.epochs));
    }

    fn rewind(&mut self, step: u64) -> Result<()> {
        self.run.truncate_metrics(step)
    }

    fn stop_requested(&self) -> bool {
        self.run.stop_requested()
    }
}

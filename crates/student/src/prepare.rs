//! The start that every training run shares: device, threads and data, recorded in the run.

use anyo_core::{
    Error, Result,
    config::{Problem, Report},
    data::{self, DataConfig, Dataset, DatasetConfig},
    eval::EvalConfig,
    run::Run,
    torch::{DeviceChoice, device},
};
use serde_json::json;
use tch::Device;

/// What of a run's configuration [`Prepare::run`] needs.
#[derive(Debug, Clone, Copy)]
pub struct Prepare<'a> {
    /// Which data.
    pub dataset: &'a DatasetConfig,
    /// Where it lies.
    pub data: &'a DataConfig,
    /// Where to compute.
    pub device: DeviceChoice,
    /// CPU threads, 0 for all cores.
    pub threads: usize,
    /// What must fit the catalogue.
    pub eval: &'a EvalConfig,
}

impl Prepare<'_> {
    /// Chooses, loads and records. `more` finds further problems once the data set is known.
    ///
    /// # Errors
    /// No such device, data that cannot be read, an evaluation that does not fit the catalogue, no test row.
    pub fn run(self, run: &mut Run, more: &dyn Fn(&Dataset) -> Vec<Problem>) -> Result<(Device, Dataset)> {
        let threads = device::set_threads(self.threads)?;
        let chosen = self.device.choose()?;
        run.info(&format!("device {}; {threads}", chosen.why));
        run.record("device", json!({"chosen": chosen.why, "threads": threads}))?;
        run.record("libtorch", device::describe())?;
        let dataset = data::load(self.dataset, self.data, &mut |note| run.info(note))?;
        run.info(&format!(
            "data set {}: {} users, {} items, {} training, {} validation, {} test rows; {}",
            dataset.name,
            dataset.n_users(),
            dataset.n_items(),
            dataset.train.len(),
            dataset.valid.len(),
            dataset.test.len(),
            dataset.protocol
        ));
        let provenance = &dataset.provenance;
        run.record("data", json!({"hash": dataset.hash, "items_hash": dataset.items_hash, "provenance": provenance}))?;
        let problems = self.eval.problems_for(dataset.n_items()).into_iter().map(|p| p.under("eval"));
        let problems: Vec<Problem> = problems.chain(more(&dataset)).collect();
        if !problems.is_empty() {
            return Err(Error::Config(Report { problems }));
        }
        if dataset.test.is_empty() {
            return Err(Error::Invalid {
                message: format!("data set `{}` has no test row", dataset.name),
                hint: Some("users need at least 3 interactions for leave_one_out; loosen the filters".into()),
            });
        }
        Ok((chosen.device, dataset))
    }
}

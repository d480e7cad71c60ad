//! A finished run as a teacher.

use std::path::{Path, PathBuf};

use anyo_core::{
    Error, Recommender, Result,
    bundle::Position,
    data::{self, Dataset},
    torch::DeviceChoice,
};
use tch::{Device, Tensor};

use super::{ExportConfig, Pass, trained_at_every_place};
use crate::{
    pipeline::BaselineRunConfig,
    recommend::open_student,
    saved_run::load_student_run,
    student::{Student, baseline},
};

/// A finished run with its data and its model.
pub struct Source {
    /// The run folder.
    pub run: PathBuf,
    /// Its configuration.
    pub config: BaselineRunConfig,
    /// Its data set.
    pub dataset: Dataset,
    model: Model,
}

enum Model {
    Student(Student),
    /// Without weights: lists only.
    Baseline(Box<dyn Recommender>),
}

impl Source {
    /// Opens the run in the folder `run`; its raw data is looked for in `data_root` where that is given.
    ///
    /// # Errors
    /// When configuration, data or weights are missing, damaged, or do not belong together.
    pub fn open(
        run: &Path,
        data_root: Option<&Path>,
        device: DeviceChoice,
        note: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let mut config = load_student_run(run)?;
        if let Some(root) = data_root {
            root.clone_into(&mut config.data.root);
        }
        let dataset = data::load(&config.dataset, &config.data, note)?;
        let model = match baseline(&config.student, &dataset) {
            Some(model) => Model::Baseline(model),
            None => Model::Student(open_student(run, &config, &dataset, device)?),
        };
        Ok(Self { run: run.to_owned(), config, dataset, model })
    }

    /// The network, where the run has one.
    pub fn student(&self) -> Option<&Student> {
        match &self.model {
            Model::Student(student) => Some(student),
            Model::Baseline(_) => None,
        }
    }

    /// As a recommender.
    pub fn recommender(&self) -> &dyn Recommender {
        match &self.model {
            Model::Student(student) => student,
            Model::Baseline(model) => model.as_ref(),
        }
    }

    /// Vectors of the items `[N, D]`: the scoring head's.
    pub fn item_vectors(&self) -> Option<Tensor> {
        self.student().map(|student| student.network.head().weight.detach().to_device(Device::Cpu))
    }

    pub(super) fn max_len(&self) -> usize {
        self.config.student.recipe().map_or(1, |recipe| recipe.max_len).max(1)
    }

    /// What `export.pass` means for this run.
    ///
    /// # Errors
    /// `sequence` for a student that has no state at every place.
    pub(super) fn pass(&self, options: &ExportConfig) -> Result<Pass> {
        let recipe = self.config.student.recipe();
        let every = recipe.is_some_and(|recipe| trained_at_every_place(recipe.rows));
        match options.pass {
            Pass::Auto if every && options.position == Position::Train => Ok(Pass::Sequence),
            Pass::Auto => Ok(Pass::Window),
            Pass::Sequence if !every => Err(Error::Invalid {
                message: format!(
                    "export.pass=sequence: `{}` of that run was not trained with a target at every place",
                    self.config.student.name()
                ),
                hint: Some("write export.pass=window or auto".into()),
            }),
            given => Ok(given),
        }
    }
}

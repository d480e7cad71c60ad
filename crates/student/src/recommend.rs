//! What a finished run, or a student exported from one, recommends after a list of items, as a person would try it.

use std::path::Path;

use anyo_core::{
    Batch, Error, Recommender, Result,
    data::{self, Catalogue, Dataset, Item},
    torch::{DeviceChoice, load_tensors, tensor_file::load_metadata},
};
use tch::Tensor;

use crate::{
    config::StudentConfig,
    pipeline::{BaselineRunConfig, MODEL_FILE},
    production::{ExportedStudent, is_exported},
    saved_run::load_student_run,
    student::{Student, baseline},
};

/// A finished run or an exported student, ready to recommend.
pub struct Loaded {
    /// Which recommender it is.
    pub student: StudentConfig,
    /// Name of its data set.
    pub dataset: String,
    /// The items by number.
    pub items: Vec<Item>,
    model: Box<dyn Recommender>,
}

/// One recommended item.
#[derive(Debug, Clone, PartialEq)]
pub struct Recommendation {
    /// Id in the data set's source.
    pub id: String,
    /// Title.
    pub title: String,
    /// The model's score.
    pub score: f32,
}

impl Loaded {
    /// Loads a run folder, or a folder of `export-student`, which needs no data set.
    ///
    /// # Errors
    /// When the configuration, the data or the weights are missing, damaged, or do not belong together.
    pub fn open(folder: &Path, device: DeviceChoice, note: &mut dyn FnMut(&str)) -> Result<Self> {
        if is_exported(folder) {
            let mut exported = ExportedStudent::open(folder, device.choose()?.device)?;
            return Ok(Self {
                student: exported.manifest.model.config.clone(),
                dataset: exported.manifest.dataset.name.clone(),
                items: std::mem::take(&mut exported.items),
                model: Box::new(exported),
            });
        }
        let config = load_student_run(folder)?;
        let dataset = data::load(&config.dataset, &config.data, note)?;
        let model: Box<dyn Recommender> = match baseline(&config.student, &dataset) {
            Some(model) => model,
            None => Box::new(open_student(folder, &config, &dataset, device)?),
        };
        Ok(Self { student: config.student, dataset: dataset.name, items: dataset.items, model })
    }

    /// The number of the item that a person names by id, title or part of a title.
    ///
    /// # Errors
    /// When nothing or more than one item fits.
    pub fn find_item(&self, text: &str) -> Result<u32> {
        Catalogue { name: &self.dataset, items: &self.items }.find_item(text)
    }

    /// The `k` best items after `history` (item indices, oldest first); without those in it unless `keep_history`.
    ///
    /// # Errors
    /// When `k` is not 1 to the number of items, or the model cannot score.
    pub fn recommend(&self, history: &[u32], k: usize, keep_history: bool) -> Result<Vec<Recommendation>> {
        let n_items = self.items.len();
        if !(1..=n_items).contains(&k) {
            return Err(Error::invalid(format!("wanted 1 to {n_items} recommendations, got {k}")));
        }
        let scores = self.model.score(&Batch { users: &[0], histories: &[history] })?.view([-1]);
        let scores = Vec::<f32>::try_from(scores.to_device(tch::Device::Cpu))?;
        if let Some(item) = scores.iter().position(|s| !s.is_finite()) {
            return Err(Error::Run { message: format!("the score of item {item} is {}", scores[item]), hint: None });
        }
        let mut order: Vec<usize> = (0..n_items).filter(|&i| keep_history || !history.contains(&(i as u32))).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        let items = &self.items;
        let pick =
            |&i: &usize| Recommendation { id: items[i].id.clone(), title: items[i].title.clone(), score: scores[i] };
        Ok(order.iter().take(k).map(pick).collect())
    }
}

/// The trained network of the run in the folder `run`.
pub(crate) fn open_student(
    run: &Path,
    config: &BaselineRunConfig,
    dataset: &Dataset,
    device: DeviceChoice,
) -> Result<Student> {
    let path = run.join(MODEL_FILE);
    if !path.is_file() {
        return Err(Error::Checkpoint {
            path,
            message: "there are no final weights: the run did not finish".into(),
            hint: Some(format!("finish it with run-student-baseline --resume {}", run.display())),
        });
    }
    let metadata = load_metadata(&path)?;
    let trained_on = metadata.get("items_hash").map_or("", String::as_str);
    if trained_on != dataset.items_hash {
        let short = |hash: &str| hash.chars().take(12).collect::<String>();
        return Err(Error::Checkpoint {
            path,
            message: format!(
                "trained on items {}, the data set has items {}",
                short(trained_on),
                short(&dataset.items_hash)
            ),
            hint: Some("the data changed since the run; train again, or point data.root at the data of then".into()),
        });
    }
    let student = Student::new(&config.student, dataset.n_items(), device.choose()?.device, config.seed)?;
    let tensors: std::collections::BTreeMap<String, Tensor> = load_tensors(&path)?;
    student.load(&tensors)?;
    Ok(student)
}

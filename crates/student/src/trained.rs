//! A student of a finished run as a frozen encoder of histories for another model.

use std::path::Path;

use anyo_core::{
    Error, Result,
    config::load_saved,
    data::Dataset,
    torch::{load_tensors, tensor_file::load_metadata},
};
use tch::{Device, Tensor, no_grad};

use crate::{
    batch::Input,
    config::StudentConfig,
    pipeline::{BaselineRunConfig, MODEL_FILE},
    student::Student,
};

impl Student {
    /// The network of the finished run in the folder `run`, which must have been trained on the rows of `dataset`: other
    /// rows would let it see what is asked of the model that uses it.
    ///
    /// # Errors
    /// When files are missing or damaged, the run's recommender has no weights, or items or rows are others (the message
    /// has both hashes).
    pub fn open_trained(run: &Path, dataset: &Dataset, device: Device) -> Result<(Self, StudentConfig)> {
        let config: BaselineRunConfig = load_saved(run)?;
        let path = run.join(MODEL_FILE);
        let refuse = |message: String, hint: String| Error::Checkpoint { path: path.clone(), message, hint: Some(hint) };
        if config.student.recipe().is_none() {
            return Err(refuse(
                format!("`{}` has no states to encode a history with", config.student.name()),
                "take a run of a neural student, such as student=sasrec".into(),
            ));
        }
        if !path.is_file() {
            return Err(refuse(
                "there are no final weights: the run did not finish".into(),
                format!("finish it with run-student-baseline --resume {}", run.display()),
            ));
        }
        let metadata = load_metadata(&path)?;
        for (key, what, now) in
            [("items_hash", "items", &dataset.items_hash), ("data_hash", "the same items, but rows", &dataset.hash)]
        {
            let then = metadata.get(key).map_or("", String::as_str);
            if then != now {
                return Err(refuse(
                    format!("it was trained on {what} with the hash {then:.12}…, the data set has {now:.12}…"),
                    format!(
                        "it was trained with dataset={}, this is dataset={}; train an encoder on this data",
                        config.dataset.name, dataset.name
                    ),
                ));
            }
        }
        let student = Self::new(&config.student, dataset.n_items(), device, config.seed)?;
        student.load(&load_tensors(&path)?)?;
        Ok((student, config.student))
    }

    /// States after the newest item of each history `[B,D]`, without gradients or dropout; zeros for an empty one. Of a
    /// longer history than the model was made for, the newest items count.
    pub fn newest_states(&self, histories: &[&[u32]]) -> Tensor {
        let cut = |h: &'_ &'_ [u32]| h.len().saturating_sub(self.max_len);
        let histories: Vec<&[u32]> = histories.iter().map(|h| &h[cut(h)..]).collect();
        no_grad(|| self.network.newest(&Input::new(&histories, self.network.pad(), self.params.device())).detach())
    }

    /// The bare vectors of the items `[n_items, D]` as they enter the model, without gradients.
    pub fn item_vectors(&self) -> Tensor {
        let table = self.params.get("item_emb.weight").or_else(|| self.params.get("item_embeddings.weight"));
        let head = self.network.head().weight;
        // The window models keep the pad's row behind the items; the head has one row for each item.
        table.unwrap_or(&head).detach().narrow(0, 0, head.size()[0])
    }
}

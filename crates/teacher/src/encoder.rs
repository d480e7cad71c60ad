//! The frozen sequence encoder: item vectors to inject, and the state of each history that drives the gate.

use std::path::Path;

use anyo_core::{
    Batch, Error, Recommender, Result,
    data::Dataset,
    torch::{Params, load_tensors, tensor_file::load_metadata},
};
use anyo_student::{MODEL_FILE, Student, batch::Input, config::StudentConfig, load_student_run};
use serde_json::json;
use tch::{Device, Kind, Tensor, no_grad};

/// Histories encoded at once.
const BATCH: usize = 256;

/// A trained student that only looks: in evaluation mode, without gradients, with weights that are nobody's parameters.
///
/// Differs: the released code runs its encoder with dropout while it trains, because the whole module is in training mode.
#[derive(Debug)]
pub struct Encoder {
    student: Student,
    max_len: usize,
    items: Tensor,
    state_width: i64,
    source: String,
    name: &'static str,
}

impl Recommender for Encoder {
    /// The encoder's own ranking, with its own head: what the teacher is compared with.
    fn score(&self, batch: &Batch<'_>) -> Result<Tensor> {
        self.student.score(batch)
    }
}

impl Encoder {
    /// A student as encoder; `source` names it in the run's records.
    ///
    /// # Errors
    /// When the configuration is that of a recommender without states, or the item vectors hold NaN or infinity.
    pub fn new(student: Student, config: &StudentConfig, source: impl Into<String>) -> Result<Self> {
        let source = source.into();
        let Some(recipe) = config.recipe() else {
            return Err(Error::Invalid {
                message: format!("{source}: `{}` has no states to encode a history with", config.name()),
                hint: Some("take a run of a neural student, such as student=sasrec".into()),
            });
        };
        let items = item_vectors(&student);
        if items.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            return Err(Error::invalid(format!("the item vectors of the encoder {source} are not finite")));
        }
        let mut this = Self { student, max_len: recipe.max_len, items, state_width: 0, source, name: config.name() };
        this.state_width = this.newest(&[&[0]]).size()[1];
        Ok(this)
    }

    /// The network of the finished `run-student-baseline` in the folder `run`, which must have been trained on the rows of
    /// `dataset`: other rows would let it see what is asked of the teacher.
    ///
    /// # Errors
    /// When files are missing or damaged, the run's recommender has no weights, or items or rows are others (the message
    /// has both hashes).
    pub fn from_run(run: &Path, dataset: &Dataset, device: Device) -> Result<Self> {
        let config = load_student_run(run)?;
        let source = format!("{} of {}", config.student.name(), run.display());
        let path = run.join(MODEL_FILE);
        let refuse =
            |message: String, hint: String| Error::Checkpoint { path: path.clone(), message, hint: Some(hint) };
        if config.student.recipe().is_some() && !path.is_file() {
            return Err(refuse(
                "there are no final weights: the run did not finish".into(),
                format!("finish it with run-student-baseline --resume {}", run.display()),
            ));
        }
        let metadata = if path.is_file() { load_metadata(&path)? } else { Default::default() };
        for (key, what, now) in [("items_hash", "items", &dataset.items_hash), ("data_hash", "rows", &dataset.hash)] {
            let then = metadata.get(key).map_or("", String::as_str);
            if then != now && path.is_file() {
                return Err(refuse(
                    format!("the encoder was trained on {what} with the hash {then:.12}…, the data set has {now:.12}…"),
                    format!(
                        "it was trained with dataset={}, this is dataset={}; train an encoder on this data",
                        config.dataset.name, dataset.name
                    ),
                ));
            }
        }
        if config.student.recipe().is_none() {
            let message = format!("`{}` has no states to encode a history with", config.student.name());
            return Err(refuse(message, "take a run of a neural student, such as student=sasrec".into()));
        }
        let student = Student::new(&config.student, dataset.n_items(), device, config.seed)?;
        student.load(&load_tensors(&path)?)?;
        Self::new(student, &config.student, source)
    }

    /// The released SASRec of LLaRA and iLoRA as safetensors (22 tensors, windows of ten items, pads behind).
    ///
    /// Nothing in the file names its data: only the number of items is compared.
    ///
    /// # Errors
    /// When the file is damaged, is no such SASRec, or has another number of items.
    pub fn from_llara(weights: &Path, n_items: usize, device: Device) -> Result<Self> {
        let tensors = load_tensors(weights)?;
        let refuse = |message: String| Error::Checkpoint {
            path: weights.to_owned(),
            message,
            hint: Some("wanted a SASRec of the llara-backbones folder that was made for this data set".into()),
        };
        let table = tensors.get("item_embeddings.weight").map(Tensor::size).unwrap_or_default();
        let &[rows, d] = table.as_slice() else {
            return Err(refuse("there is no table `item_embeddings.weight`".into()));
        };
        if rows != n_items as i64 + 1 {
            return Err(refuse(format!("it has {} items, the data set has {n_items}", rows - 1)));
        }
        let max_len = tensors.get("positional_embeddings.weight").map_or(0, |t| t.size()[0]);
        let config = window_model(max_len, d)?;
        let student = Student::new(&config, n_items, device, 0)?;
        student.load(&tensors).map_err(|error| refuse(error.to_string()))?;
        Self::new(student, &config, weights.display().to_string())
    }

    /// The student's name, for tables.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it is, for records.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Vectors of all items `[I,d]`: the bare rows of the embedding, without positions or attention.
    pub fn items(&self) -> &Tensor {
        &self.items
    }

    /// Width of a state; that of the item vectors but for Caser.
    pub fn state_width(&self) -> i64 {
        self.state_width
    }

    /// Its tensors, for a check that training leaves them alone.
    pub fn params(&self) -> &Params {
        &self.student.params
    }

    fn newest(&self, histories: &[&[u32]]) -> Tensor {
        let histories: Vec<&[u32]> = histories.iter().map(|h| &h[h.len().saturating_sub(self.max_len)..]).collect();
        let student = &self.student;
        no_grad(|| {
            student.network.newest(&Input::new(&histories, student.network.pad(), student.params.device())).detach()
        })
    }

    /// States of histories `[N,d]` on the CPU, oldest items first; zeros for an empty history. Long histories are cut to
    /// what the encoder was made for; `watch` hears how many are done.
    ///
    /// # Errors
    /// When an item is outside the catalogue, or of `watch`.
    pub fn states(&self, histories: &[&[u32]], watch: &mut dyn FnMut(usize) -> Result<()>) -> Result<Tensor> {
        let n_items = self.items.size()[0];
        for (i, history) in histories.iter().enumerate() {
            if let Some(item) = history.iter().find(|&&item| i64::from(item) >= n_items) {
                return Err(Error::invalid(format!("history {i} has item {item}, the encoder has items 0..{n_items}")));
            }
        }
        let all = Tensor::f_zeros([histories.len() as i64, self.state_width], (Kind::Float, Device::Cpu))?;
        // Rows of like length together, so that hardly any padding is computed.
        let mut order: Vec<usize> = (0..histories.len()).collect();
        order.sort_by_key(|&i| histories[i].len());
        for (part, chunk) in order.chunks(BATCH).enumerate() {
            let batch: Vec<&[u32]> = chunk.iter().map(|&i| histories[i]).collect();
            let states = self.newest(&batch).f_to_device(Device::Cpu)?;
            let places: Vec<i64> = chunk.iter().map(|&i| i as i64).collect();
            let _ = all.shallow_clone().f_index_copy_(0, &Tensor::f_from_slice(&places)?, &states)?;
            watch((part * BATCH + chunk.len()).min(histories.len()))?;
        }
        Ok(all)
    }
}

/// The bare vectors of the items as they enter the model, `[I,d]`.
fn item_vectors(student: &Student) -> Tensor {
    let head = student.network.head().weight;
    let table =
        student.params.get("item_emb.weight").or_else(|| student.params.get("item_embeddings.weight")).unwrap_or(&head);
    // The window models keep the pad's row behind the items; the head has one row for each item.
    table.detach().narrow(0, 0, head.size()[0])
}

/// The configuration of the one-block SASRec; its training part is never used.
fn window_model(max_len: i64, d: i64) -> Result<StudentConfig> {
    let config = json!({
        "name": "sasrec_dllm2rec", "max_len": max_len, "d_model": d, "dropout": 0.0, "rows": "last_position",
        "loss": {
            "name": "bce", "n_negatives": 1, "negatives": "uniform", "logq": "none", "gbce_t": 0.0,
            "temperature": 1.0, "dros_alpha": 0.0, "dros_beta": 1.0,
        },
        "optim": {
            "name": "adam", "lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "clip_norm": null,
            "schedule": {"name": "constant", "warmup_steps": 0, "total_steps": null, "floor": 0.0},
        },
    });
    serde_json::from_value(config).map_err(|e| Error::invalid(format!("the encoder's configuration: {e}")))
}

//! The frozen sequence encoder: item vectors to inject, and the state of each history that drives the gate.

use std::path::Path;

use anyo_core::{
    Error, Result,
    data::Dataset,
    torch::{Params, load_tensors},
};
use anyo_student::{Student, config::StudentConfig};
use serde_json::json;
use tch::{Device, Kind, Tensor};

/// Histories encoded at once.
const BATCH: usize = 256;

/// A trained student that only looks: in evaluation mode, without gradients, with weights that are nobody's parameters.
///
/// Differs: the released code runs its encoder with dropout while it trains, because the whole module is in training mode.
#[derive(Debug)]
pub struct Encoder {
    student: Student,
    items: Tensor,
    state_width: i64,
    source: String,
}

impl Encoder {
    /// A student as encoder; `source` names it in the run's records.
    ///
    /// # Errors
    /// When its weights hold NaN or infinity.
    pub fn new(student: Student, source: impl Into<String>) -> Result<Self> {
        let items = student.item_vectors();
        let state_width = student.newest_states(&[&[0]]).size()[1];
        let source = source.into();
        let finite = items.f_isfinite()?.f_all()?.f_int64_value(&[])? == 1;
        if !finite {
            return Err(Error::invalid(format!("the item vectors of the encoder {source} are not finite")));
        }
        Ok(Self { student, items, state_width, source })
    }

    /// The network of a finished `run-student-baseline` in the folder `run`.
    ///
    /// # Errors
    /// As [`Student::open_trained`]: another data set is refused with both hashes.
    pub fn from_run(run: &Path, dataset: &Dataset, device: Device) -> Result<Self> {
        let (student, config) = Student::open_trained(run, dataset, device)?;
        Self::new(student, format!("{} of {}", config.name(), run.display()))
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
        let student = Student::new(&window_model(max_len, d)?, n_items, device, 0)?;
        student.load(&tensors).map_err(|error| refuse(error.to_string()))?;
        Self::new(student, weights.display().to_string())
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
            let states = self.student.newest_states(&batch).f_to_device(Device::Cpu)?;
            let places: Vec<i64> = chunk.iter().map(|&i| i as i64).collect();
            let _ = all.shallow_clone().f_index_copy_(0, &Tensor::f_from_slice(&places)?, &states)?;
            watch((part * BATCH + chunk.len()).min(histories.len()))?;
        }
        Ok(all)
    }
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

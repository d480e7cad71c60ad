//! One checkpoint on disk: its three files, their checksums, and what is read back from them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tch::Tensor;

use super::{
    Params, Resume,
    tensor_file::{hex, parse},
};
use crate::{Error, Result};

pub(super) const MODEL: &str = "model.safetensors";
pub(super) const OPTIM: &str = "optim.safetensors";
pub(super) const STATE: &str = "state.json";
const FORMAT: u64 = 1;
/// Starts the last line of `state.json`, the SHA-256 of all text before it.
const SEAL: &str = ",\n  \"sha256_above\": \"";

/// The data a model was trained on. Save it under the key `data` of the training state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataIdentity {
    /// Name of the dataset's configuration.
    pub dataset: String,
    /// [`crate::data::Dataset::hash`].
    pub data_hash: String,
    /// [`crate::data::Dataset::items_hash`].
    pub items_hash: String,
}

#[cfg(feature = "data")]
impl DataIdentity {
    /// That of a data set.
    pub fn of(dataset: &crate::data::Dataset) -> Self {
        Self { dataset: dataset.name.clone(), data_hash: dataset.hash.clone(), items_hash: dataset.items_hash.clone() }
    }
}

/// A checkpoint that was read and verified.
#[derive(Debug)]
pub struct Saved {
    /// Its folder.
    pub path: PathBuf,
    /// Finished updates.
    pub step: u64,
    /// What the caller saved.
    pub state: Value,
    /// The model's tensors by name.
    pub model: BTreeMap<String, Tensor>,
    /// The optimizer's tensors by name.
    pub optim: BTreeMap<String, Tensor>,
}

impl Saved {
    /// Reads the checkpoint in the folder `path` and compares every checksum.
    ///
    /// # Errors
    /// When a file is missing, truncated, changed, or of a format that this version does not know.
    pub fn read(path: &Path) -> Result<Self> {
        let state_path = path.join(STATE);
        let text = fs::read_to_string(&state_path).map_err(Error::io(&state_path, "read the checkpoint's state"))?;
        let damaged = |message: &str| broken(&state_path, message);
        let (above, seal) = text.rsplit_once(SEAL).ok_or_else(|| damaged("it is truncated or changed"))?;
        if seal.strip_suffix("\"\n}\n") != Some(&hex(&Sha256::digest(above))) {
            return Err(damaged("its content does not match its checksum"));
        }
        let all: Value = serde_json::from_str(&text).map_err(|e| damaged(&e.to_string()))?;
        if all["format"] != FORMAT {
            return Err(damaged(&format!("it has format {}, this version reads format {FORMAT}", all["format"])));
        }
        let step = all["step"].as_u64().ok_or_else(|| damaged("it has no step"))?;
        let tensors = |name: &str| {
            let file = path.join(name);
            let bytes = fs::read(&file).map_err(Error::io(&file, "read the checkpoint"))?;
            let (want, got) = (all["sha256"][name].as_str().unwrap_or_default(), hex(&Sha256::digest(&bytes)));
            if want != got {
                // Length and header first: they say more than two checksums.
                parse(&file, &bytes)?;
                return Err(broken(&file, &format!("its sha256 is {got:.12}…, state.json says {want:.12}…")));
            }
            parse(&file, &bytes)
        };
        Ok(Self {
            model: tensors(MODEL)?,
            optim: tensors(OPTIM)?,
            path: path.to_owned(),
            step,
            state: all["state"].clone(),
        })
    }

    /// What the caller saved, as its own type.
    ///
    /// # Errors
    /// When it was written by a version with other fields.
    pub fn state<T: DeserializeOwned>(&self) -> Result<T> {
        serde_path_to_error::deserialize(&self.state).map_err(|e| Error::Checkpoint {
            path: self.path.join(STATE),
            message: format!("the training state does not fit this version: state.{e}"),
            hint: Some("continue with the version that wrote it; run.yaml names the git commit".into()),
        })
    }

    /// Compares the data of this checkpoint with the data at hand; nothing to compare is an error too.
    ///
    /// # Errors
    /// When the items or the rows differ, or the checkpoint does not say on which data it was trained.
    pub fn check_data(&self, now: &DataIdentity) -> Result<()> {
        let then: DataIdentity = serde_json::from_value(self.state["data"].clone()).map_err(|e| Error::Checkpoint {
            path: self.path.join(STATE),
            message: format!("it does not say on which data the model was trained ({e})"),
            hint: Some("it was not written by a training run of anyo".into()),
        })?;
        let differs = |what: &str, then: &str, now: &str| {
            format!("{what} have the hash {now:.12}…, the checkpoint needs {then:.12}…")
        };
        let message = if then.items_hash != now.items_hash {
            differs("other items: these", &then.items_hash, &now.items_hash)
        } else if then.data_hash != now.data_hash {
            differs("same items, but other rows: these", &then.data_hash, &now.data_hash)
        } else {
            return Ok(());
        };
        let hint = if then.dataset == now.dataset {
            format!(
                "both are dataset={}, but its files, filters or split have changed since; restore them or train anew",
                now.dataset
            )
        } else {
            format!(
                "this checkpoint was trained with dataset={}; the current choice is dataset={}",
                then.dataset, now.dataset
            )
        };
        Err(Error::Checkpoint { path: self.path.clone(), message, hint: Some(hint) })
    }

    /// Writes model and optimizer state into `params` and `optimizer`.
    ///
    /// # Errors
    /// When names or shapes differ; the message lists all of them.
    pub fn restore(&self, params: &Params, optimizer: &mut dyn Resume) -> Result<()> {
        self.restore_model(params)?;
        optimizer.load_state(&self.optim).map_err(|e| self.at(OPTIM, e))
    }

    /// Writes the model's tensors into `params`.
    ///
    /// # Errors
    /// As [`Saved::restore`].
    pub fn restore_model(&self, params: &Params) -> Result<()> {
        params.load(&self.model).map_err(|e| self.at(MODEL, e))
    }

    /// Adds the dataset to the hint where the checkpoint names it: most misfits come from another catalogue.
    fn at(&self, file: &str, error: Error) -> Error {
        let Error::Invalid { message, hint } = error else { return error };
        let dataset = self.state["data"]["dataset"].as_str();
        let hint = match dataset {
            Some(name) => Some(format!(
                "this checkpoint was trained with dataset={name} and the model settings in its run's config.yaml"
            )),
            None => hint,
        };
        Error::Checkpoint { path: self.path.join(file), message, hint }
    }
}

fn broken(path: &Path, message: &str) -> Error {
    Error::Checkpoint {
        path: path.to_owned(),
        message: format!("the checkpoint is damaged: {message}"),
        hint: Some("use an earlier checkpoint".into()),
    }
}

/// Content of `state.json`: plain JSON whose last line seals the text above it, so that a changed digit is noticed too.
pub(super) fn state_text(step: u64, model_sha256: &str, optim_sha256: &str, state: &Value) -> String {
    let all = json!({
        "format": FORMAT,
        "step": step,
        "sha256": { MODEL: model_sha256, OPTIM: optim_sha256 },
        "state": state,
    });
    let text = format!("{all:#}");
    let above = text.strip_suffix("\n}").unwrap_or(&text);
    format!("{above}{SEAL}{}\"\n}}\n", hex(&Sha256::digest(above)))
}

/// Writes a small file and flushes it to the disk.
pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    File::create(path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .map_err(Error::io(path, "write the checkpoint's state"))
}

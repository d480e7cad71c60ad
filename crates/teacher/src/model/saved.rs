//! Saving and loading what a teacher learned, by name and completely.

use std::{collections::BTreeMap, path::Path};

use anyo_core::{
    Error, Result,
    torch::{load_tensors, save_model, tensor_file::load_metadata},
};
use tch::{Device, Kind, Tensor, no_grad};

use super::Teacher;

/// Key of the file's metadata that names the language model below.
const BASE: &str = "base_lm";
/// Rows of the embedding that tell one model from another.
const ROWS: i64 = 64;

impl Teacher {
    /// Writes adapters, gate with running statistics, projector, head and added token rows to `path` in safetensors format,
    /// whatever asked for gradients last; the language model itself is not in it.
    ///
    /// Differs: the released code saves what asks for gradients at that moment, which drops the projector after a text-only
    /// batch and the running statistics always.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path, metadata: &BTreeMap<String, String>) -> Result<()> {
        let mut metadata = metadata.clone();
        metadata.insert(BASE.into(), self.base_id()?);
        save_model(path, &self.params, &metadata)
    }

    /// Reads what [`Teacher::save`] wrote: every tensor by name, none missing and none more.
    ///
    /// # Errors
    /// When the file is damaged, belongs to another language model, or names or shapes differ (all are listed).
    pub fn load(&self, path: &Path) -> Result<()> {
        let (then, now) = (load_metadata(path)?.remove(BASE).unwrap_or_default(), self.base_id()?);
        if then != now {
            return Err(Error::Checkpoint {
                path: path.to_owned(),
                message: format!("it was trained on the language model {then}, this is {now}"),
                hint: Some("set teacher.lm to the model of then; its run's config.yaml names it".into()),
            });
        }
        self.load_tensors(&load_tensors(path)?).map_err(|error| match error {
            Error::Invalid { message, hint } => Error::Checkpoint { path: path.to_owned(), message, hint },
            other => other,
        })
    }

    /// Takes tensors by name, all and no others.
    ///
    /// # Errors
    /// When names or shapes differ; nothing is changed then.
    pub fn load_tensors(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        self.params.load(tensors)
    }

    /// Sizes and a checksum of the first embedding rows, rounded to bfloat16 so that the number type does not matter.
    pub(crate) fn base_id(&self) -> Result<String> {
        let embedding = self.lm.embedding();
        let n = ROWS.min(self.tokens.first.max(1)).min(embedding.size()[0]);
        let rows = no_grad(|| {
            let rows = embedding.f_narrow(0, 0, n)?.f_to_device(Device::Cpu)?.f_to_kind(Kind::BFloat16)?;
            rows.f_to_kind(Kind::Float)?.f_reshape(-1)
        })?;
        let rows = Vec::<f32>::try_from(rows)?;
        let bytes = rows.iter().flat_map(|x| x.to_bits().to_le_bytes());
        let sum = bytes
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        let c = self.lm.config();
        Ok(format!("D={} layers={} checksum={sum:016x}", c.hidden_size, c.n_layers))
    }
}

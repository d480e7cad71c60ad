//! The decoder: loading, random weights, saving, and access to its parts.

mod build;
mod checkpointing;
mod forward;
mod layer;
mod places;

use std::{fmt, fs, path::Path};

use anyo_core::{Error, Result, torch::Init};
use tch::{Device, Kind, Tensor, no_grad};

pub use checkpointing::{Checkpointed, CheckpointedGradients};

use crate::{
    config::{CONFIG_FILE, LmConfig},
    linear::Linear,
    rope::Rope,
    weights::{MODEL_FILE, WeightFiles, save_tensors},
};
use layer::{Layer, Norm};

/// Name of the embedding in the weight files.
const EMBEDDING: &str = "model.embed_tokens.weight";
/// Name of the output layer, without `.weight`.
const HEAD: &str = "lm_head";

/// Where and how weights are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadOptions {
    /// Where the model computes.
    pub device: Device,
    /// Number type of the weights and states: f32, bf16 or f16.
    pub dtype: Kind,
}

/// A causal language model of one of the four architectures.
///
/// Differs: the dropout that a configuration may name (`attention_dropout`, `resid_pdrop`, `embd_pdrop`) is not applied in
/// training; the published models of these families have 0 there. Adapters have a dropout of their own.
pub struct CausalLm {
    config: LmConfig,
    device: Device,
    kind: Kind,
    embedding: Tensor, // [V,D]
    layers: Vec<Layer>,
    norm: Norm,
    /// Absent where the embedding is used again.
    head: Option<Linear>,
    rope: Rope,
}

impl fmt::Debug for CausalLm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CausalLm")
            .field("config", &self.config)
            .field("device", &self.device)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl CausalLm {
    /// Loads a folder in Hugging Face format.
    ///
    /// # Errors
    /// When configuration or weights cannot be used (see [`LmConfig::from_folder`], [`WeightFiles`]), a tensor is missing,
    /// unexpected, of another shape or holds NaN or infinity.
    pub fn load(folder: &Path, options: &LoadOptions) -> Result<Self> {
        Self::load_with(folder, options, &mut |linear| Ok(linear))
    }

    /// As [`CausalLm::load`]; every linear layer goes through `finish` as soon as it is read, so that a base which is
    /// quantised there never exists in full.
    ///
    /// # Errors
    /// As [`CausalLm::load`], and those of `finish`.
    pub fn load_with(
        folder: &Path,
        options: &LoadOptions,
        finish: &mut dyn FnMut(Linear) -> Result<Linear>,
    ) -> Result<Self> {
        let config = LmConfig::from_folder(folder)?;
        let files = WeightFiles::open(folder)?;
        let wanted = config.tensors();
        let tied = config.tie_embeddings;
        // Some checkpoints hold only the output layer of the pair.
        let only_head = tied && files.info(EMBEDDING).is_none() && files.info("lm_head.weight").is_some();
        let stored =
            |name: &str| if only_head && name == EMBEDDING { "lm_head.weight".into() } else { name.to_owned() };
        let checked: Vec<_> = wanted.iter().map(|(name, shape)| (stored(name), shape.clone())).collect();
        files.check(&checked, |name| {
            // Llama files of 2023 hold the rotary frequencies, and some tied ones the embedding twice.
            name.ends_with(".rotary_emb.inv_freq") || (tied && name == "lm_head.weight")
        })?;
        let mut source = |name: &str, shape: &[i64]| files.load(&stored(name), shape, options.dtype, options.device);
        build::model(config, options.device, options.dtype, &mut source, finish)
    }

    /// A model with random weights: normal with the configuration's `initializer_range`, norms 1, biases 0. The same bits
    /// for the same seed on every machine.
    ///
    /// # Errors
    /// When memory does not suffice.
    pub fn random(config: LmConfig, device: Device, kind: Kind, seed: u64) -> Result<Self> {
        let std = config.initializer_range;
        let mut source = |name: &str, shape: &[i64]| {
            let init = match shape {
                [_] if name.ends_with(".bias") => Init::Zeros,
                [_] => Init::Ones,
                _ => Init::Normal { std },
            };
            Ok(init.tensor(name, shape, seed)?.f_to_kind(kind)?.f_to_device(device)?)
        };
        build::model(config, device, kind, &mut source, &mut |linear| Ok(linear))
    }

    /// A model from tensors by name, which `source` gives for each of [`LmConfig::tensors`].
    ///
    /// # Errors
    /// Those of `source`, and when a tensor has another shape than asked for.
    pub fn from_source(
        config: LmConfig,
        device: Device,
        kind: Kind,
        source: &mut dyn FnMut(&str, &[i64]) -> Result<Tensor>,
    ) -> Result<Self> {
        build::model(config, device, kind, source, &mut |linear| Ok(linear))
    }

    /// Sizes and switches.
    pub fn config(&self) -> &LmConfig {
        &self.config
    }

    /// Number type of weights and states.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The embedding, `[V,D]`.
    pub fn embedding(&self) -> &Tensor {
        &self.embedding
    }

    /// All linear layers in the order of the forward pass; the output layer last, where it is one of its own.
    pub fn linears(&self) -> Vec<&Linear> {
        self.layers.iter().flat_map(Layer::linears).chain(&self.head).collect()
    }

    /// As [`CausalLm::linears`], for putting adapters on them.
    pub fn linears_mut(&mut self) -> Vec<&mut Linear> {
        self.layers.iter_mut().flat_map(Layer::linears_mut).chain(&mut self.head).collect()
    }

    /// Handles to the base weights with their names in the checkpoint, in the order of [`LmConfig::tensors`]; a tied output
    /// layer and quantised weights are not among them. Changing a handle in place, or asking it for gradients, changes the model.
    pub fn named_tensors(&self) -> Vec<(String, Tensor)> {
        let mut list = vec![(EMBEDDING.to_owned(), self.embedding.shallow_clone())];
        self.layers.iter().for_each(|layer| layer.named_tensors(&mut list));
        list.push(self.norm.named());
        if let Some(head) = &self.head {
            layer::named(head, &mut list);
        }
        list
    }

    /// Bytes of the dense base weights, without quantised ones.
    pub fn dense_bytes(&self) -> usize {
        self.named_tensors().iter().map(|(_, t)| t.numel() * t.kind().elt_size_in_bytes()).sum()
    }

    /// Writes `config.json` and `model.safetensors`, which `transformers` loads; `folder` is made where it is missing. Only
    /// the base is written, without adapters.
    ///
    /// # Errors
    /// When a weight is quantised or something cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        if let Some(linear) = self.linears().into_iter().find(|linear| linear.weight().is_none()) {
            return Err(Error::Invalid {
                message: format!("`{}` is quantised; only dense weights are written", linear.name()),
                hint: Some("save the adapters alone, or load the base without quantisation".into()),
            });
        }
        fs::create_dir_all(folder).map_err(Error::io(folder, "make the folder of the model"))?;
        save_tensors(&folder.join(MODEL_FILE), &self.named_tensors())?;
        let path = folder.join(CONFIG_FILE);
        let text = serde_json::to_string_pretty(&self.config.to_json(self.kind))
            .map_err(|e| Error::invalid(format!("the configuration cannot be written as JSON: {e}")))?;
        fs::write(&path, text + "\n").map_err(Error::io(&path, "write the model's configuration"))
    }

    /// Changes the number of rows of embedding and output layer to `n`: first rows stay, new ones are the mean of the old.
    /// The output layer is a new one without adapters, so resize before they are added.
    ///
    /// Differs: `transformers` draws new rows from a normal distribution around that mean with a tiny covariance.
    ///
    /// # Errors
    /// When `n` is 0 or leaves out a token that the configuration names, or memory does not suffice.
    pub fn resize_vocab(&mut self, n: usize) -> Result<()> {
        let old = self.config.vocab_size;
        if n == old {
            return Ok(());
        }
        let named = self.config.bos.iter().chain(&self.config.eos).chain(&self.config.pad);
        if let Some(id) = named.copied().filter(|&id| id >= n as i64).max() {
            return Err(Error::invalid(format!("{n} rows leave out token {id}, which is bos, eos or pad")));
        }
        if n == 0 {
            return Err(Error::invalid("a vocabulary needs at least one row, got 0"));
        }
        let resize = |rows: &Tensor| -> Result<Tensor> {
            no_grad(|| {
                let kept = rows.f_narrow(0, 0, n.min(old) as i64)?;
                let resized = match n.checked_sub(old) {
                    None | Some(0) => kept.f_detach_copy()?,
                    Some(more) => {
                        let mean = rows.f_mean_dim([0i64].as_slice(), true, Kind::Float)?.f_to_kind(rows.kind())?;
                        Tensor::f_cat(&[kept, mean.f_expand([more as i64, -1], false)?], 0)?
                    }
                };
                Ok(resized.f_set_requires_grad(rows.requires_grad())?)
            })
        };
        let embedding = resize(&self.embedding)?;
        if let Some(head) = &self.head {
            let Some(weight) = head.weight() else {
                return Err(Error::invalid("the output layer is quantised; resize the vocabulary before"));
            };
            self.head = Some(Linear::new(HEAD, resize(weight)?, head.bias().map(resize).transpose()?));
        }
        self.embedding = embedding;
        self.config.vocab_size = n;
        Ok(())
    }
}

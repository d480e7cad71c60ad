//! LoRA adapters as PEFT's folders: `adapter_config.json` and `adapter_model.safetensors`.

mod config;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyo_core::{
    Error, Result,
    torch::{Params, load_tensors, save_model},
};
use tch::{Device, Kind, Tensor};

use crate::{
    attach::{Attached, LoraConfig, Patterns},
    linear::{AdapterKind, Linear},
    lora::{Lora, parameter_name},
};

const SETTINGS: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
/// Lines of a list of misfits that a message shows.
const MAX_LINES: usize = 12;

/// A PEFT folder that was read.
#[derive(Debug)]
pub struct PeftAdapter {
    /// Its settings.
    pub config: LoraConfig,
    /// Name of the model it was made for, where the folder says so.
    pub base_model: Option<String>,
    folder: PathBuf,
    layers: BTreeMap<String, Pair>,
}

/// The tensors of one layer, on the CPU.
#[derive(Debug, Default)]
struct Pair {
    a: Option<Tensor>, // [R, in]
    b: Option<Tensor>, // [out, R]
}

impl PeftAdapter {
    /// Reads the folder.
    ///
    /// # Errors
    /// When a file is missing, truncated or no adapter's; holds NaN or infinity; or the adapter uses what is not
    /// supported: DoRA, trained biases, `modules_to_save`, adapters of embeddings, and the like.
    pub fn read(folder: &Path) -> Result<Self> {
        let (config, base_model) = config::read(&folder.join(SETTINGS))?;
        let path = folder.join(TENSORS);
        if !path.exists() && folder.join("adapter_model.bin").exists() {
            return Err(Error::Data {
                path: folder.join("adapter_model.bin"),
                line: None,
                message: "the adapter is a pickle file, which is not read".into(),
                hint: Some("save it again with peft: save_pretrained(…, safe_serialization=True)".into()),
            });
        }
        let mut layers = BTreeMap::<String, Pair>::new();
        let mut strange = Vec::new();
        for (name, tensor) in load_tensors(&path)? {
            let rest = name.strip_prefix("base_model.model.").unwrap_or_default();
            if let Some(layer) = rest.strip_suffix(".lora_A.weight") {
                layers.entry(layer.to_owned()).or_default().a = Some(tensor);
            } else if let Some(layer) = rest.strip_suffix(".lora_B.weight") {
                layers.entry(layer.to_owned()).or_default().b = Some(tensor);
            } else {
                strange.push(format!("unexpected tensor `{name}`, shape {:?}", tensor.size()));
            }
        }
        if layers.is_empty() && strange.is_empty() {
            strange.push("no tensors".into());
        }
        if !strange.is_empty() {
            let hint = "only LoRA on linear layers is supported; merge others with peft (merge_and_unload)";
            return Err(misfit(&path, "the file is not that of a plain LoRA adapter", strange, hint));
        }
        Ok(Self { config, base_model, folder: folder.to_owned(), layers })
    }

    /// Names of the layers that it adapts.
    pub fn layers(&self) -> impl Iterator<Item = &str> {
        self.layers.keys().map(String::as_str)
    }

    /// Puts the adapter on `linears` as `adapter`; its parameters are added to `params`, in f32. A frozen one
    /// (`trainable` false) takes no part in training.
    ///
    /// # Errors
    /// When it was made for another model: the message lists layers and shapes; no layer is changed then.
    pub fn attach<'a>(
        &self,
        linears: impl IntoIterator<Item = &'a mut Linear>,
        adapter: &str,
        params: &mut Params,
        trainable: bool,
    ) -> Result<Attached> {
        let path = self.folder.join(TENSORS);
        let mut linears: Vec<&mut Linear> = linears.into_iter().collect();
        let sizes = Patterns::new(&self.config)?;
        let mut lines = Vec::new();
        let mut ready = Vec::new();
        for (name, pair) in &self.layers {
            let Some(i) = linears.iter().position(|linear| linear.name() == name) else {
                lines.push(format!("the model has no linear `{name}`"));
                continue;
            };
            linears[i].check_room(adapter, params)?;
            let (n_out, n_in) = (linears[i].out_features(), linears[i].in_features());
            let shape = sizes.shape(&self.config, name)?;
            let mut matched = true;
            let wanted = [("lora_A", &pair.a, [shape.rank, n_in]), ("lora_B", &pair.b, [n_out, shape.rank])];
            for (which, tensor, wanted) in wanted {
                let got = tensor.as_ref().map(Tensor::size);
                if got.as_deref() != Some(&wanted) {
                    let got = got.map_or("is missing".into(), |got| format!("has shape {got:?}"));
                    lines.push(format!("`{name}.{which}.weight` {got}, the model and r need {wanted:?}"));
                    matched = false;
                }
            }
            if let (true, Some(a), Some(b)) = (matched, &pair.a, &pair.b) {
                ready.push((i, a, b, shape));
            }
        }
        if !lines.is_empty() {
            let mut hint = "the adapter was made for another model".to_owned();
            if let Some(name) = &self.base_model {
                hint += &format!(": {name}");
            }
            return Err(misfit(&path, "the adapter does not fit the model", lines, &hint));
        }
        // In the model's order, so that two runs register parameters alike.
        ready.sort_by_key(|(i, ..)| *i);
        let mut attached = Attached { layers: Vec::new(), n_parameters: 0 };
        for (i, a, b, shape) in ready {
            let linear = &mut *linears[i];
            let mut add = |which: &str, tensor: &Tensor| {
                params.add(parameter_name(linear.name(), which, adapter), tensor.f_to_kind(Kind::Float)?, trainable)
            };
            let (a, b) = (add("lora_A", a)?, add("lora_B", b)?);
            attached.n_parameters += a.numel() + b.numel();
            attached.layers.push(linear.name().to_owned());
            linear.add_adapter(adapter, AdapterKind::Lora(Lora { a, b, scale: shape.scale, dropout: shape.dropout }));
        }
        Ok(attached)
    }
}

/// Reads the PEFT folder and puts it on `linears` as trainable adapter `adapter`.
///
/// # Errors
/// As [`PeftAdapter::read`] and [`PeftAdapter::attach`].
pub fn load_peft<'a>(
    linears: impl IntoIterator<Item = &'a mut Linear>,
    folder: &Path,
    adapter: &str,
    params: &mut Params,
) -> Result<(LoraConfig, Attached)> {
    let read = PeftAdapter::read(folder)?;
    let attached = read.attach(linears, adapter, params, true)?;
    Ok((read.config, attached))
}

/// Writes the adapter called `adapter` as a folder that PEFT loads; makes the folder if it does not exist. `config` is
/// that of [`crate::attach()`]; `base_model` is the name or path that PEFT shall find the base model under.
///
/// # Errors
/// When no layer has such an adapter, it is gated (PEFT knows none), its rank or scale is not that of `config`, or a file
/// cannot be written.
pub fn save_peft<'a>(
    linears: impl IntoIterator<Item = &'a Linear>,
    folder: &Path,
    adapter: &str,
    config: &LoraConfig,
    base_model: Option<&str>,
) -> Result<()> {
    let sizes = Patterns::new(config)?;
    let mut tensors = Params::new(Device::Cpu);
    for linear in linears {
        let name = linear.name();
        let lora = match linear.adapter(adapter).map(|adapter| adapter.kind()) {
            None => continue,
            Some(AdapterKind::Lora(lora)) => lora,
            Some(AdapterKind::Gated(_)) => {
                return Err(Error::Invalid {
                    message: format!("adapter `{adapter}` of layer `{name}` is gated, which PEFT does not know"),
                    hint: Some("save its parameters as a checkpoint instead".into()),
                });
            }
        };
        let shape = sizes.shape(config, name)?;
        if lora.rank() != shape.rank || (lora.scale() - shape.scale).abs() > 1e-9 * shape.scale.abs() {
            return Err(Error::invalid(format!(
                "adapter `{adapter}` of layer `{name}` has rank {} and scale {}, its settings say {} and {}",
                lora.rank(),
                lora.scale(),
                shape.rank,
                shape.scale
            )));
        }
        for (which, tensor) in [("lora_A", lora.a()), ("lora_B", lora.b())] {
            let _ = tensors.add(parameter_name(name, which, "default"), tensor.shallow_clone(), false)?;
        }
    }
    if tensors.n_parameters() == 0 {
        return Err(Error::invalid(format!("no layer has an adapter `{adapter}` that could be saved")));
    }
    fs::create_dir_all(folder).map_err(Error::io(folder, "make the adapter's folder"))?;
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    save_model(&folder.join(TENSORS), &tensors, &metadata)?;
    // Beside and renamed, as the tensors: a reader never sees half a file.
    let (path, temporary) = (folder.join(SETTINGS), folder.join(".tmp_adapter_config.json"));
    fs::write(&temporary, config::text(config, base_model)?)
        .map_err(Error::io(&temporary, "write the adapter's settings"))?;
    fs::rename(&temporary, &path).map_err(Error::io(&path, "rename the finished file"))
}

fn misfit(path: &Path, what: &str, mut lines: Vec<String>, hint: &str) -> Error {
    if lines.len() > MAX_LINES {
        let more = lines.len() - MAX_LINES;
        lines.truncate(MAX_LINES);
        lines.push(format!("and {more} more"));
    }
    Error::Data {
        path: path.to_owned(),
        line: None,
        message: format!("{what}:\n  {}", lines.join("\n  ")),
        hint: Some(hint.to_owned()),
    }
}

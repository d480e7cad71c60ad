//! Opening a model: a folder, or the built-in one, which is trained where it is missing.

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use anyo_core::{
    Error, Result,
    config::{self, Context, Request, SearchPath},
    torch::{DeviceChoice, Dtype, Params, device::set_threads},
};
use anyo_lm::{
    CausalLm, LmConfig, LoadOptions, Tokenizer,
    builtin::{Builtin, builtin},
    load_peft,
    plan::{Plan, PlanRequest, Task, WeightKind},
    quant::Quant,
    train::StepFigures,
};
use tch::Device;

use super::{PretrainRunConfig, config::Quantize, note, texts::texts};

/// The word that stands for the built-in model.
const BUILTIN: &str = "builtin";

/// What to load.
pub(super) struct Wanted<'a> {
    pub(super) model: &'a str,
    pub(super) adapter: Option<&'a Path>,
    pub(super) quantize: Quantize,
    pub(super) device: DeviceChoice,
    pub(super) dtype: Dtype,
    pub(super) threads: usize,
}

/// A model with its tokenizer.
pub(super) struct Loaded {
    pub(super) model: CausalLm,
    pub(super) tokenizer: Tokenizer,
    /// Owns the adapter's weights.
    _adapter: Params,
}

/// Loads `wanted`; refuses what cannot fit into memory before anything is read.
pub(super) fn load(wanted: &Wanted<'_>) -> Result<Loaded> {
    set_threads(wanted.threads)?;
    let device = wanted.device.choose()?.device;
    let folder = if wanted.model == BUILTIN { default_builtin(device)? } else { PathBuf::from(wanted.model) };
    check_memory(&folder, wanted, device)?;
    let tokenizer = Tokenizer::from_folder(&folder)?;
    let options = LoadOptions { device, dtype: wanted.dtype.kind() };
    let quant = match wanted.quantize {
        Quantize::None => None,
        Quantize::Int8 => Some(Quant::INT8),
        Quantize::Nf4 => Some(Quant::NF4),
    };
    let mut model = CausalLm::load_with(&folder, &options, &mut |mut linear| {
        // The output layer stays as it is: its errors would go straight into the probabilities.
        if let Some(quant) = quant.filter(|_| linear.name() != "lm_head") {
            linear.quantize(quant)?;
        }
        Ok(linear)
    })?;
    tokenizer.check_fits(model.config().vocab_size)?;
    let mut adapter = Params::new(device);
    if let Some(path) = wanted.adapter {
        load_peft(model.linears_mut(), path, "adapter", &mut adapter)?;
    }
    Ok(Loaded { model, tokenizer, _adapter: adapter })
}

/// Weights alone must fit; what is computed with them depends on the prompt.
fn check_memory(folder: &Path, wanted: &Wanted<'_>, device: Device) -> Result<()> {
    let Some(available) = anyo_core::memory::available_bytes().filter(|_| device == Device::Cpu) else { return Ok(()) };
    let weights = match wanted.quantize {
        Quantize::Int8 => WeightKind::Int8,
        Quantize::Nf4 => WeightKind::Nf4,
        Quantize::None if wanted.dtype == Dtype::Bfloat16 => WeightKind::Bf16,
        Quantize::None => WeightKind::F32,
    };
    let request = PlanRequest {
        weights,
        compute_bytes: wanted.dtype.kind().elt_size_in_bytes(),
        device,
        task: Task::Generate { batch: 1, prompt_len: 1, total_len: 2 },
    };
    Plan::new(&LmConfig::from_folder(folder)?, &request)?.fits(available)
}

/// The model of `conf/run-lm-pretrain.yaml` as it stands.
fn default_builtin(device: Device) -> Result<PathBuf> {
    let name = "run-lm-pretrain";
    let cwd = std::env::current_dir().map_err(Error::io(".", "find the working directory"))?;
    let search = SearchPath::find(name, None, &cwd)?;
    let request = Request {
        app: name,
        examples: &[],
        primary: name,
        search: &search,
        words: &[],
        base: None,
        forced: Vec::new(),
        context: Context { now: chrono::Local::now(), env: &|key| std::env::var(key).ok() },
    };
    let config: PretrainRunConfig = config::typed(&config::compose(&request)?)?;
    let found = ensure(
        &config,
        device,
        &mut |step, figures| {
            if step == 0 {
                note("training the built-in model once (run-lm pretrain shows more) ...");
            } else if step.is_multiple_of(50) {
                note(&format!("  step {step} of {}: loss {:.3}", config.builtin.steps, figures.loss));
            }
        },
        &AtomicBool::new(false),
    )?;
    Ok(found.folder)
}

/// The built-in model of this configuration: from the cache, or trained.
pub(super) fn ensure(
    config: &PretrainRunConfig,
    device: Device,
    report: &mut dyn FnMut(u64, &StepFigures),
    stop: &AtomicBool,
) -> Result<Builtin> {
    let texts = texts(config)?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    builtin(&texts, &config.builtin, &config.cache, device, report, stop)
}

//! The language model of a run: a folder in Hugging Face format, or the built-in one, trained where it is missing.

use std::path::PathBuf;

use anyo_core::{
    Error, Result,
    data::Dataset,
    run::Run,
    seed::{Stream, derive, row_rng},
};
use anyo_lm::{
    CausalLm, LmConfig, LoadOptions, Tokenizer,
    builtin::builtin,
    plan::{Plan, PlanRequest, Task, WeightKind},
};
use rand::RngExt;
use tch::{Device, Kind};

use super::config::TeacherRunConfig;
use crate::prompt::config::PromptConfig;

/// The word that stands for the built-in model.
const BUILTIN: &str = "builtin";

/// Opens the model with its tokenizer; trains the built-in one on first use.
pub(super) fn open(
    config: &TeacherRunConfig,
    dataset: &Dataset,
    device: Device,
    run: &mut Run,
) -> Result<(CausalLm, Tokenizer)> {
    let folder = match config.teacher.lm.as_str() {
        BUILTIN => trained_on_the_spot(config, dataset, device, run)?,
        folder => PathBuf::from(folder),
    };
    let kind = config.teacher.dtype.kind();
    let shape = LmConfig::from_folder(&folder)?;
    check_memory(&shape, kind, device)?;
    let tokenizer = Tokenizer::from_folder(&folder)?;
    let model = CausalLm::load(&folder, &LoadOptions { device, dtype: kind })?;
    tokenizer.check_fits(model.config().vocab_size)?;
    run.info(&format!(
        "language model {}: {} layers, width {}, {} parameters",
        folder.display(),
        shape.n_layers,
        shape.hidden_size,
        shape.n_parameters()
    ));
    Ok((model, tokenizer))
}

/// Weights alone must fit before anything is read.
fn check_memory(shape: &LmConfig, kind: Kind, device: Device) -> Result<()> {
    let Some(available) = anyo_core::memory::available_bytes().filter(|_| device == Device::Cpu) else { return Ok(()) };
    let weights = if kind == Kind::BFloat16 { WeightKind::Bf16 } else { WeightKind::F32 };
    let request = PlanRequest {
        weights,
        compute_bytes: kind.elt_size_in_bytes(),
        device,
        task: Task::Generate { batch: 1, prompt_len: 1, total_len: 2 },
    };
    Plan::new(shape, &request)?.fits(available)
}

fn trained_on_the_spot(config: &TeacherRunConfig, dataset: &Dataset, device: Device, run: &mut Run) -> Result<PathBuf> {
    let recipe = &config.builtin;
    let texts = texts(dataset, &config.teacher.prompt, recipe.histories, recipe.model.seed);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let stop = run.stop_flag();
    let found = builtin(
        &texts,
        &recipe.model,
        &recipe.cache,
        device,
        &mut |step, figures| {
            if step == 0 {
                run.info(&format!("training the built-in language model for {} steps, once", recipe.model.steps));
            } else if step.is_multiple_of(100) {
                run.info(&format!("  step {step} of {}: loss {:.3}", recipe.model.steps, figures.loss));
            }
        },
        stop,
    )?;
    run.info(&format!(
        "built-in language model {}{}",
        found.folder.display(),
        if found.cached { " (from the cache)" } else { "" }
    ));
    Ok(found.folder)
}

/// What the built-in model reads: every title, training histories as running text, and the wordings filled with training
/// histories but never with an answer. Validation and test rows are not read.
pub fn texts(dataset: &Dataset, prompts: &PromptConfig, histories: usize, seed: u64) -> Vec<String> {
    let title = |item: u32| dataset.items[item as usize].title.as_str();
    let mut texts: Vec<String> = dataset.items.iter().map(|item| item.title.clone()).collect();
    let rows: Vec<usize> = (0..dataset.train.len()).filter(|&row| dataset.train.items(row).len() > 1).collect();
    if rows.is_empty() {
        return texts;
    }
    let base = derive(seed, Stream::Data, 0, 0);
    for i in 0..histories as u64 {
        let mut rng = row_rng(base, i);
        let items = dataset.train.items(rows[rng.random_range(0..rows.len())]);
        let end = rng.random_range(1..=items.len());
        let shown: Vec<&str> = items[end.saturating_sub(prompts.window)..end].iter().map(|&item| title(item)).collect();
        let shown = shown.join(&prompts.separator);
        texts.push(if i % 4 == 0 {
            let wording = &prompts.templates[rng.random_range(0..prompts.templates.len())];
            let candidates: Vec<&str> =
                (0..3).map(|_| title(rng.random_range(0..dataset.items.len() as u32))).collect();
            let candidates = candidates.join(&prompts.candidate_separator);
            let body = if i % 8 == 0 { &wording.choice } else { &wording.open };
            let body = body.replace("{history}", &shown).replace("{candidates}", &candidates);
            format!("{}\n{}", body.trim(), wording.cue)
        } else {
            shown
        });
    }
    texts
}

/// For a folder that is not there.
pub(super) fn check_folder(lm: &str) -> Result<()> {
    if lm == BUILTIN || PathBuf::from(lm).is_dir() {
        return Ok(());
    }
    Err(Error::Invalid {
        message: format!("teacher.lm: there is no folder {lm}"),
        hint: Some("wanted `builtin`, or a folder with config.json, *.safetensors and tokenizer.json".into()),
    })
}

//! `run-lm pretrain`.

use anyo_core::{Result, run::Run, torch::device::set_threads};
use serde_json::json;

use super::{PretrainRunConfig, model::ensure};

pub(super) fn run(config: PretrainRunConfig, run: &mut Run) -> Result<()> {
    run.info(&set_threads(config.threads)?);
    let chosen = config.device.choose()?;
    run.info(&chosen.why);
    let progress = run.progress(config.builtin.steps, "steps");
    let mut curve = Vec::new();
    let found = ensure(
        &config,
        chosen.device,
        &mut |step, figures| {
            progress.inc(1);
            progress.loss(figures.loss);
            curve.push((step, figures.loss, figures.grad_norm, figures.lr, figures.tokens_per_second));
        },
        run.stop_flag(),
    )?;
    drop(progress);
    for (step, loss, norm, lr, rate) in curve {
        let values = [("train/loss", loss), ("train/grad_norm", norm), ("train/lr", lr), ("train/tokens_per_s", rate)];
        run.scalars(step, &values)?;
    }
    run.record("model", json!({ "folder": found.folder, "cached": found.cached }))?;
    let how = if found.cached { "was there already" } else { "is trained" };
    run.print(&format!("the model {how}: {}\n", found.folder.display()));
    Ok(())
}

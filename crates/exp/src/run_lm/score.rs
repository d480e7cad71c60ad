//! `run-lm score`.

use anyo_core::Result;
use anyo_lm::{Pass, generate::score_text};

use super::{ScoreConfig, print};

pub(super) fn run(config: ScoreConfig) -> Result<()> {
    let loaded = config.load()?;
    let texts: Vec<&str> = config.continuations.iter().map(String::as_str).collect();
    let pass = Pass::default();
    let scores = score_text(&loaded.model, &loaded.tokenizer, &config.prompt, &texts, config.batch, &pass)?;
    let best = scores.iter().map(|score| score.sum()).fold(f64::NEG_INFINITY, f64::max);
    print("  ln p      per token  tokens  continuation\n");
    for (score, text) in scores.iter().zip(&config.continuations) {
        let mark = if score.sum() == best { "*" } else { " " };
        print(&format!(
            "{mark} {:<9.4} {:<10.4} {:<7} {}\n",
            score.sum(),
            score.mean(),
            score.log_probs.len(),
            text.escape_debug()
        ));
    }
    Ok(())
}

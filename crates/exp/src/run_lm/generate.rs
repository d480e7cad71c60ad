//! `run-lm generate`.

use std::{ops::ControlFlow, time::Instant};

use anyo_core::Result;
use anyo_lm::{
    Pass, Tokenizer,
    generate::{Prompt, SamplingConfig, generate},
};

use super::{GenerateConfig, note, print};

pub(super) fn run(config: GenerateConfig) -> Result<()> {
    let loaded = config.load()?;
    let sampling = with_stops(&config.sampling, &loaded.tokenizer);
    let prompt = Prompt::text(&loaded.tokenizer, &config.prompt)?;
    let prompts: Vec<Prompt> =
        (0..config.n as u64).map(|i| Prompt { seed: Some(sampling.seed.wrapping_add(i)), ..prompt.clone() }).collect();
    let started = Instant::now();
    let streamed = prompts.len() == 1;
    if streamed {
        print(&config.prompt);
    }
    let found = generate(&loaded.model, &loaded.tokenizer, &prompts, &sampling, &Pass::default(), &mut |_, piece| {
        if streamed {
            print(piece);
        }
        ControlFlow::Continue(())
    })?;
    let seconds = started.elapsed().as_secs_f64();
    if streamed {
        print("\n");
    }
    for (i, text) in found.iter().enumerate().filter(|_| !streamed) {
        print(&format!(
            "--- {} (seed {})\n{}{}\n",
            i + 1,
            sampling.seed.wrapping_add(i as u64),
            config.prompt,
            text.text
        ));
    }
    let tokens: usize = found.iter().map(|text| text.n_new).sum();
    note(&format!("{tokens} new tokens in {seconds:.2} s, {:.0} tokens/s", tokens as f64 / seconds));
    Ok(())
}

/// The configured stops and the ids that end a text of this model.
pub(super) fn with_stops(sampling: &SamplingConfig, tokenizer: &Tokenizer) -> SamplingConfig {
    let mut sampling = sampling.clone();
    sampling.stop_ids.extend(tokenizer.stop_ids());
    sampling.stop_ids.sort_unstable();
    sampling.stop_ids.dedup();
    sampling
}

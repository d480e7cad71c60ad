//! `run-lm convert`.

use anyo_core::Result;

use super::{ConvertConfig, print};

pub(super) fn run(config: ConvertConfig) -> Result<()> {
    anyo_lm::llama2c::convert(&config.from, config.tokenizer.as_deref(), &config.to)?;
    print(&format!("{}\n", config.to.display()));
    Ok(())
}

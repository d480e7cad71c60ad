//! `run-lm quantize-report`.

use anyo_core::{Error, Result};
use anyo_lm::quant::{Quant, report};

use super::{QuantizeReportConfig, config::Quantize, print};

pub(super) fn run(mut config: QuantizeReportConfig) -> Result<()> {
    let quant = if config.quantize == Quantize::Int8 { Quant::INT8 } else { Quant::NF4 };
    // The exact weights are compared with their own quantised form.
    config.quantize = Quantize::None;
    let loaded = config.load()?;
    let rows = report(loaded.model.linears(), quant)?;
    if config.json {
        for row in &rows {
            let line = serde_json::to_string(row).map_err(|e| Error::invalid(e.to_string()))?;
            print(&format!("{line}\n"));
        }
        return Ok(());
    }
    print(&format!(
        "{:<44} {:>12} {:>9} {:>10} {:>10} {:>7}\n",
        "layer", "out x in", "max abs", "rel. RMSE", "of output", "bytes"
    ));
    let (mut before, mut after) = (0, 0);
    for row in &rows {
        (before, after) = (before + row.bytes_before, after + row.bytes_after);
        print(&format!(
            "{:<44} {:>12} {:>9.5} {:>10.5} {:>10.5} {:>6.1}%\n",
            row.name,
            format!("{} x {}", row.out_features, row.in_features),
            row.max_abs,
            row.relative_rmse,
            row.output_relative_rmse,
            100.0 * row.bytes_after as f64 / row.bytes_before as f64
        ));
    }
    print(&format!("{} layers, {before} bytes before, {after} after\n", rows.len()));
    Ok(())
}

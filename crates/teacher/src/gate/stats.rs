//! What gates do over many rows: entropy and use of the experts.

use anyo_core::{Result, torch::dims};
use tch::{Device, Kind, Tensor, no_grad};

/// Sums over rows; reading them waits for a GPU.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GateStats {
    rows: u64,
    entropy: f64,
    weight: Vec<f64>,
    best: Vec<f64>,
}

impl GateStats {
    /// Adds the rows of gates `[B,E]`.
    ///
    /// # Errors
    /// When the shape does not fit the rows before.
    pub fn add(&mut self, gates: &Tensor) -> Result<()> {
        let [b, e] = dims("gates", gates, ["B", "E"])?;
        let rows: Vec<f64> = no_grad(|| {
            let flat = gates.f_detach()?.f_to_kind(Kind::Double)?.f_to_device(Device::Cpu)?.f_reshape(-1)?;
            Vec::<f64>::try_from(flat)
        })?;
        self.weight.resize(e as usize, 0.0);
        self.best.resize(e as usize, 0.0);
        for row in rows.chunks_exact(e as usize) {
            let mut best = 0;
            for (i, &g) in row.iter().enumerate() {
                self.weight[i] += g;
                self.entropy -= if g > 0.0 { g * g.ln() } else { 0.0 };
                best = if g > row[best] { i } else { best };
            }
            self.best[best] += 1.0;
        }
        self.rows += b as u64;
        Ok(())
    }

    /// Rows seen.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Mean entropy of a row in nats: 0 for one expert alone, ln E for equal weights.
    pub fn entropy(&self) -> f64 {
        self.entropy / self.rows.max(1) as f64
    }

    /// Mean weight of each expert, `[E]`.
    pub fn usage(&self) -> Vec<f64> {
        self.weight.iter().map(|w| w / self.rows.max(1) as f64).collect()
    }

    /// Share of the rows in which each expert has the largest weight, `[E]`.
    pub fn best_share(&self) -> Vec<f64> {
        self.best.iter().map(|n| n / self.rows.max(1) as f64).collect()
    }

    /// Names and values for the log: `gate/entropy`, `gate/usage_0`, `gate/best_0` and so on.
    pub fn scalars(&self) -> Vec<(String, f64)> {
        let mut list = vec![("gate/entropy".to_owned(), self.entropy())];
        list.extend(self.usage().into_iter().enumerate().map(|(i, v)| (format!("gate/usage_{i}"), v)));
        list.extend(self.best_share().into_iter().enumerate().map(|(i, v)| (format!("gate/best_{i}"), v)));
        list
    }
}

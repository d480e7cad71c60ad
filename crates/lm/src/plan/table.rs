//! A plan as text, and byte counts as people write them.

use std::fmt;

use anyo_core::{Error, Result};

use super::Plan;

impl fmt::Display for Plan {
    /// One line for each part, right-aligned numbers, the total below.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.lines.iter().map(|line| line.what.len()).max().unwrap_or(0).max(5);
        for line in &self.lines {
            writeln!(f, "{:width$}  {:>10}  {:>16}  {}", line.what, bytes_text(line.bytes), line.bytes, line.note)?;
        }
        if self.overlap > 0 {
            let (what, text) = ("overlap", format!("-{}", bytes_text(self.overlap)));
            let bytes = format!("-{}", self.overlap);
            writeln!(f, "{what:width$}  {text:>10}  {bytes:>16}  gradients are copied when activations are gone")?;
        }
        write!(f, "{:width$}  {:>10}  {:>16}", "total", bytes_text(self.total()), self.total())
    }
}

/// `1536` as `1.50 KiB`.
pub fn bytes_text(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.2} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.2} TiB")
}

/// `12GiB`, `12 GB`, `800M` or plain bytes; units of 1024 with an i, of 1000 without.
///
/// # Errors
/// When it is no number with such a unit.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let bad = || Error::Invalid {
        message: format!("`{text}` is no amount of memory"),
        hint: Some("write bytes, or a number with K, M, G, T (thousands) or Ki, Mi, Gi, Ti, such as 12GiB".into()),
    };
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let value: f64 = text[..split].parse().map_err(|_| bad())?;
    let unit = text[split..].trim().trim_end_matches(['b', 'B']).to_ascii_lowercase();
    let power = match unit.chars().next() {
        None => 0,
        Some('k') => 1,
        Some('m') => 2,
        Some('g') => 3,
        Some('t') => 4,
        Some(_) => return Err(bad()),
    };
    let base: f64 = match unit.get(1..).unwrap_or_default() {
        "" => 1000.0,
        "i" => 1024.0,
        _ => return Err(bad()),
    };
    Ok((value * base.powi(power)) as u64)
}

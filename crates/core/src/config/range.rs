//! `range(start,stop,step)` of a sweep: counts steps instead of adding them up, so that 0.1 + 0.1 + 0.1 prints as 0.3.

use super::{
    lexer::Item,
    value::{Kind, Value},
};

/// More jobs than this is a typing mistake.
const LIMIT: f64 = 100_000.0;

/// The values from start up to but not including stop; `range(stop)` starts at 0.
pub(crate) fn range(arguments: &[Item]) -> Result<Vec<Item>, String> {
    let number = |item: &Item| match item.value.kind {
        Kind::Int(n) => Ok(n as f64),
        Kind::Float(x) if x.is_finite() => Ok(x),
        _ => Err(format!("range() takes numbers, got `{}`", item.text)),
    };
    let numbers = arguments.iter().map(number).collect::<Result<Vec<f64>, String>>()?;
    let (start, stop, step) = match numbers[..] {
        [stop] => (0.0, stop, 1.0),
        [start, stop] => (start, stop, 1.0),
        [start, stop, step] => (start, stop, step),
        _ => return Err(format!("range() takes 1 to 3 numbers, got {}", numbers.len())),
    };
    if step == 0.0 {
        return Err("the step of range() is 0".into());
    }
    // Rounding errors of the division must not add a step: 0.3 / 0.1 is a little less or more than 3.
    let count = ((stop - start) / step - 1e-9).ceil();
    if count <= 0.0 {
        return Err("range() is empty".into());
    }
    if count > LIMIT {
        return Err(format!("range() has {count} values, more than {LIMIT}"));
    }
    let whole = arguments.iter().all(|item| matches!(item.value.kind, Kind::Int(_)));
    let digits = arguments.iter().map(|item| decimals(&item.text)).max().unwrap_or(0);
    Ok((0..count as u64)
        .map(|i| {
            let x = start + i as f64 * step;
            let value: Value = if whole {
                Kind::Int(x as i128).into()
            } else {
                Kind::Float(format!("{x:.digits$}").parse().unwrap_or(x)).into()
            };
            let text = value.to_string();
            Item { value, text }
        })
        .collect())
}

/// Digits after the point that a number as typed needs, its exponent counted in.
fn decimals(text: &str) -> usize {
    let lower = text.to_ascii_lowercase();
    let (mantissa, exponent) = lower.split_once('e').unwrap_or((&lower, "0"));
    let fraction = mantissa.split_once('.').map_or(0, |(_, f)| f.len() as i64);
    (fraction - exponent.parse::<i64>().unwrap_or(0)).clamp(0, 17) as usize
}

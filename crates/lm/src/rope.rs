//! Rotary position embedding (arXiv:2104.09864) in the half-split layout, with tables computed once.

use std::cell::RefCell;

use anyo_core::Result;
use tch::{Device, Kind, Tensor, no_grad};

use crate::config::{LmConfig, RopeScaling};

/// Cosine and sine for some positions, each `[S,R]` for all rows or `[B,1,S,R]` per row; `R` is the rotated part of a
/// head. The sine of the first half carries the minus sign of the rotation.
#[derive(Debug)]
pub(crate) struct Rotation {
    cos: Tensor,
    sin: Tensor,
}

impl Rotation {
    /// Cosine and sine as they are kept.
    pub(crate) fn tables(&self) -> [&Tensor; 2] {
        [&self.cos, &self.sin]
    }

    /// Those of the positions `[B·W]` of queries, `[B,1,W,R]`, where this is the same for all rows.
    pub(crate) fn of(&self, positions: &Tensor, [b, w]: [i64; 2]) -> Result<Self> {
        let pick = |t: &Tensor| t.f_index_select(0, positions)?.f_view([b, 1, w, -1]);
        Ok(Self { cos: pick(&self.cos)?, sin: pick(&self.sin)? })
    }

    /// Turns x `[B,H,S,Dh]` to its positions.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let rotated = self.cos.size().last().copied().unwrap_or(0);
        let width = x.size().last().copied().unwrap_or(0);
        let kind = x.kind();
        // Under autocast a projection may come out in another type than the residual stream.
        let (cos, sin) = (self.cos.f_to_kind(kind)?, self.sin.f_to_kind(kind)?);
        let turn =
            |x: &Tensor| -> Result<Tensor> { Ok(x.f_mul(&cos)?.f_addcmul(&x.f_roll([rotated / 2], [-1])?, &sin)?) };
        if rotated == width {
            return turn(x);
        }
        let rest = x.f_narrow(-1, rotated, width - rotated)?;
        Ok(Tensor::f_cat(&[turn(&x.f_narrow(-1, 0, rotated)?)?, rest], -1)?)
    }
}

/// Tables for positions from 0 on.
#[derive(Debug)]
struct Table {
    cos: Tensor, // [P,R]
    sin: Tensor,
}

/// The rotary tables of one model; they grow with the longest sequence so far.
#[derive(Debug)]
pub(crate) struct Rope {
    /// 1/wavelength `[R/2]` in f32: up to the original length, and beyond it where that differs (LongRoPE).
    frequencies: [Option<Tensor>; 2],
    /// Beyond so many positions the second table counts.
    original: Option<usize>,
    factor: f64,
    kind: Kind,
    device: Device,
    max_positions: usize,
    tables: RefCell<[Option<Table>; 2]>,
}

impl Rope {
    pub(crate) fn new(config: &LmConfig, kind: Kind, device: Device) -> Result<Self> {
        let (first, second, original, factor) = no_grad(|| frequencies(config))?;
        let on = |t: Tensor| t.f_to_device(device);
        Ok(Self {
            frequencies: [Some(on(first)?), second.map(on).transpose()?],
            original,
            factor,
            kind,
            device,
            max_positions: config.max_positions,
            tables: RefCell::new([None, None]),
        })
    }

    /// Whether a sequence of `length` tokens takes the frequencies of long contexts.
    pub(crate) fn is_long(&self, length: usize) -> bool {
        self.original.is_some_and(|original| length > original)
    }

    /// Whether the frequencies depend on the length.
    pub(crate) fn has_two(&self) -> bool {
        self.original.is_some()
    }

    /// Positions `past..past + s`, the same for every row.
    pub(crate) fn range(&self, past: usize, s: usize, long: bool) -> Result<Rotation> {
        self.with_table(past + s, long, |table| {
            let cut = |t: &Tensor| t.f_narrow(0, past as i64, s as i64);
            Ok(Rotation { cos: cut(&table.cos)?, sin: cut(&table.sin)? })
        })
    }

    /// `positions` `[B,S]` in i64, all below `length`.
    pub(crate) fn at(&self, positions: &Tensor, length: usize, long: bool) -> Result<Rotation> {
        let size = positions.size();
        let flat = positions.f_reshape([-1])?;
        self.with_table(length, long, |table| {
            let pick = |t: &Tensor| t.f_index_select(0, &flat)?.f_view([size[0], 1, size[1], -1]);
            Ok(Rotation { cos: pick(&table.cos)?, sin: pick(&table.sin)? })
        })
    }

    fn with_table<T>(&self, length: usize, long: bool, body: impl FnOnce(&Table) -> Result<T>) -> Result<T> {
        let which = usize::from(long && self.original.is_some());
        let mut tables = self.tables.borrow_mut();
        let rows = tables[which].as_ref().and_then(|t| t.cos.size().first().copied()).unwrap_or(0) as usize;
        if rows < length {
            // Doubling: few rebuilds, and no table for a context of 128k that nobody uses.
            let rows = length.next_power_of_two().max(256).min(self.max_positions.max(length));
            tables[which] = Some(no_grad(|| self.table(rows, which))?);
        }
        match &tables[which] {
            Some(table) => body(table),
            None => Err(anyo_core::Error::invalid("no rotary table")),
        }
    }

    fn table(&self, rows: usize, which: usize) -> Result<Table> {
        let Some(frequencies) = &self.frequencies[which] else {
            return Err(anyo_core::Error::invalid("no rotary frequencies"));
        };
        let positions = Tensor::f_arange(rows as i64, (Kind::Float, self.device))?;
        let angles = positions.f_unsqueeze(1)?.f_mul(&frequencies.f_unsqueeze(0)?)?;
        let (cos, sin) = (angles.f_cos()?.f_mul_scalar(self.factor)?, angles.f_sin()?.f_mul_scalar(self.factor)?);
        Ok(Table {
            cos: Tensor::f_cat(&[&cos, &cos], 1)?.f_to_kind(self.kind)?,
            sin: Tensor::f_cat(&[&sin.f_neg()?, &sin], 1)?.f_to_kind(self.kind)?,
        })
    }
}

/// Frequencies up to the original length, those beyond, that length, and the factor of cosine and sine. In f32, in the order
/// of operations of `transformers` (`modeling_rope_utils.py`), because angles of late positions magnify a last digit.
fn frequencies(config: &LmConfig) -> Result<(Tensor, Option<Tensor>, Option<usize>, f64)> {
    let dim = config.rotary_dim() as i64;
    let exponents = Tensor::f_arange_start_step(0, dim, 2, (Kind::Float, Device::Cpu))?.f_div_scalar(dim)?;
    let powers = Tensor::f_pow_scalar(config.rope.theta, &exponents)?;
    let inverse = |x: &Tensor| x.f_reciprocal();
    Ok(match &config.rope.scaling {
        RopeScaling::Default => (inverse(&powers)?, None, None, 1.0),
        RopeScaling::Linear { factor } => (inverse(&powers)?.f_div_scalar(*factor)?, None, None, 1.0),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
            let plain = inverse(&powers)?;
            let original = *original_max_positions as f64;
            let wavelength = plain.f_reciprocal()?.f_mul_scalar(std::f64::consts::TAU)?;
            let smooth = (wavelength.f_reciprocal()?.f_mul_scalar(original)? - *low_freq_factor)
                / (high_freq_factor - low_freq_factor);
            let smoothed = (1.0 - &smooth) * &plain / *factor + &smooth * &plain;
            let divided = plain.f_div_scalar(*factor)?;
            let long = wavelength.f_gt(original / low_freq_factor)?;
            let short = wavelength.f_lt(original / high_freq_factor)?;
            (plain.f_where_self(&short, &divided.f_where_self(&long, &smoothed)?)?, None, None, 1.0)
        }
        RopeScaling::LongRope { short_factor, long_factor, original_max_positions, attention_factor } => {
            let stretched = |factors: &[f64]| -> Result<Tensor> {
                let factors = Tensor::f_from_slice(factors)?.f_to_kind(Kind::Float)?;
                Ok(inverse(&factors.f_mul(&powers)?)?)
            };
            let (short, long) = (stretched(short_factor)?, stretched(long_factor)?);
            (short, Some(long), Some(*original_max_positions), *attention_factor)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turn_by_hand() {
        // Position 1 at frequency 1 turns (x₀, x₂) by 1 rad, at frequency 1/100 turns (x₁, x₃) by 0.01 rad.
        let text = r#"{"model_type": "llama", "vocab_size": 9, "hidden_size": 4, "intermediate_size": 4,
            "num_hidden_layers": 1, "num_attention_heads": 1}"#;
        let config = LmConfig::from_text(std::path::Path::new("c"), text).unwrap();
        let rope = Rope::new(&config, Kind::Float, Device::Cpu).unwrap();
        let x = Tensor::from_slice(&[1f32, 0.0, 0.0, 2.0]).view([1, 1, 1, 4]);
        let got = rope.range(1, 1, false).unwrap().apply(&x).unwrap();
        let want = [1f64.cos(), -2.0 * 0.01f64.sin(), 1f64.sin(), 2.0 * 0.01f64.cos()];
        for (i, want) in want.into_iter().enumerate() {
            assert!((got.double_value(&[0, 0, 0, i as i64]) - want).abs() < 1e-7);
        }
        let position = Tensor::from_slice(&[1i64]).view([1, 1]);
        assert_eq!(rope.at(&position, 2, false).unwrap().apply(&x).unwrap(), got);
    }
}

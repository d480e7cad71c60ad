//! Vectors of targets, for policies that cover a space.

use anyo_core::{Error, Result, data::TargetIndex};

/// Vectors of some targets.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// Row-major `[targets, dim]`.
    pub values: Vec<f32>,
    /// Width of a vector, at least 1.
    pub dim: usize,
}

impl Features {
    /// Checks the shape and that every number is finite.
    pub(super) fn check(&self, n: usize) -> Result<()> {
        if self.dim == 0 || self.values.len() != n * self.dim {
            let got = self.values.len();
            return Err(Error::invalid(format!(
                "vectors of {n} targets: wanted {n} x {}, got {got} numbers",
                self.dim
            )));
        }
        match self.values.iter().position(|x| !x.is_finite()) {
            Some(at) => Err(Error::Run {
                message: format!("vector {} of the targets has the value {}", at / self.dim, self.values[at]),
                hint: Some("the item vectors of the bundle are damaged; export them again".into()),
            }),
            None => Ok(()),
        }
    }
}

/// The mean vector of the newest `newest` items of each target's history (all for 0); zeros for an empty history.
/// `vectors` are the items', row-major `[n_items, dim]`, such as a bundle's.
///
/// # Errors
/// A width of 0, a target that is not there, an item without a vector.
pub fn mean_of_history(
    index: &TargetIndex<'_>,
    vectors: &[f32],
    dim: usize,
    newest: usize,
    targets: &[u32],
) -> Result<Features> {
    if dim == 0 {
        return Err(Error::invalid("vectors of items: wanted a width of at least 1, got 0"));
    }
    let mut values = vec![0f32; targets.len() * dim];
    for (mean, &target) in values.chunks_exact_mut(dim).zip(targets) {
        if target as usize >= index.len() {
            return Err(Error::invalid(format!("target {target}: there are {}", index.len())));
        }
        let history = index.history(target as usize);
        let from = if newest == 0 { 0 } else { history.len().saturating_sub(newest) };
        for &item in &history[from..] {
            let start = item as usize * dim;
            let vector = vectors.get(start..start + dim).ok_or_else(|| {
                Error::invalid(format!("item {item} has no vector: there are {}", vectors.len() / dim))
            })?;
            mean.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x);
        }
        let n = (history.len() - from).max(1) as f32;
        mean.iter_mut().for_each(|x| *x /= n);
    }
    Ok(Features { values, dim })
}

//! Only the targets that a teacher with a budget of n labels, so that quality can be drawn against labelling cost from
//! one full bundle.

use anyo_core::{
    Error, Result, SelectionPolicy,
    bundle::choose_rows,
    config::{Check, Problem},
};
use serde::{Deserialize, Serialize};

use super::{Context, Make, fixed::Fixed};

/// Keys of `budget`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetConfig {
    /// Targets that count; 0: none. As `export.rows` of run-teacher.
    pub n: usize,
    /// Draws them. As `export.rows_seed` of run-teacher.
    pub seed: u64,
}

impl Check for BudgetConfig {
    fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }
}

impl Make for BudgetConfig {
    /// `[t ∈ choose_rows(n_targets, n, seed)]`: the same targets as `run-teacher export.rows=n export.rows_seed=seed`; a
    /// larger n contains a smaller one.
    fn make(&self, context: &Context<'_>) -> Result<Box<dyn SelectionPolicy>> {
        let chosen = choose_rows(context.n_targets, self.n, self.seed);
        let missing = |row: &&u32| context.labelled.binary_search(row).is_err();
        if let Some(first) = chosen.iter().find(missing) {
            return Err(Error::Invalid {
                message: format!(
                    "active.n={} with active.seed={} asks for {} targets, but the bundle has no list for {} of them, \
                     such as target {first}; it has {} of {}",
                    self.n,
                    self.seed,
                    chosen.len(),
                    chosen.iter().filter(missing).count(),
                    context.labelled.len(),
                    context.n_targets
                ),
                hint: Some(
                    "set active.seed to the export.rows_seed and active.n to at most the export.rows of that bundle, \
                     or use active=all"
                        .into(),
                ),
            });
        }
        Ok(Box::new(Fixed::new(&chosen, context.n_targets)))
    }
}

//! What a step of distillation came to, for the log.

use crate::batch::{Batch, share};

/// Sums over the targets of a step.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) targets: f64,
    /// The student's own loss, the ranking term with its weight, the hint with its weight.
    pub(crate) base: f64,
    pub(crate) ranked: f64,
    pub(crate) hint: f64,
    /// Targets with a list, and over those: entropy of the weights by distance, share of the list that is in the
    /// student's, what multiplies the row beside λ.
    pub(crate) labelled: f64,
    pub(crate) entropy: f64,
    pub(crate) overlap: f64,
    pub(crate) weight: f64,
}

impl Figures {
    /// Counts the targets of a batch and, over those with a list, what the lists are like; λ is taken out of the weights.
    pub(crate) fn add(&mut self, batch: &Batch<'_>, lambda: f64) {
        self.targets += batch.lists.len() as f64;
        for (at, list) in batch.lists.iter().enumerate() {
            let Some(list) = list else { continue };
            self.labelled += 1.0;
            self.entropy += f64::from(list.info.entropy);
            self.overlap += share(&batch.both[at], list);
            self.weight += f64::from(batch.factors[at]) / lambda;
        }
    }

    pub(crate) fn scalars(self, ranks: bool, hints: bool) -> Vec<(&'static str, f64)> {
        let n = self.targets.max(1.0);
        let mut values = vec![("train/loss_base", self.base / n)];
        if hints {
            values.push(("train/loss_hint", self.hint / n));
        }
        if ranks {
            let labelled = self.labelled.max(1.0);
            values.extend([
                ("train/loss_rd", self.ranked / n),
                ("distill/labelled", self.labelled / n),
                ("distill/confidence_entropy", self.entropy / labelled),
                ("distill/overlap", self.overlap / labelled),
                ("distill/row_weight", self.weight / labelled),
            ]);
        }
        values
    }
}

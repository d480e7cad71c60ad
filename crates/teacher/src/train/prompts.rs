//! The prompts of training rows; those without candidates are kept while memory is left for them.

use std::{collections::HashMap, rc::Rc};

use anyo_core::{Error, Result};

use super::{TeacherSetup, TrainRows, curriculum::Drawn};
use crate::tokens::{PromptMode, Prompted};

/// What one row's prompt hangs on: row, template, whether it is hybrid.
type Key = (u32, usize, bool);

/// Makes prompts and keeps those that come again.
pub(super) struct PromptCache {
    kept: HashMap<Key, Rc<Prompted>>,
    bytes_left: usize,
    /// History items left out by the prompts so far, summed over rows.
    pub(super) left_out: u64,
}

impl PromptCache {
    pub(super) fn new(megabytes: usize) -> Self {
        Self { kept: HashMap::new(), bytes_left: megabytes.saturating_mul(1 << 20), left_out: 0 }
    }

    /// The prompts of the rows `ids`, as drawn.
    pub(super) fn of(
        &mut self,
        setup: &TeacherSetup<'_>,
        rows: &TrainRows<'_>,
        ids: &[u32],
        drawn: &Drawn,
        epoch: u64,
    ) -> Result<Vec<Rc<Prompted>>> {
        let prompts: Vec<Rc<Prompted>> = ids
            .iter()
            .zip(&drawn.templates)
            .map(|(&id, &template)| match drawn.choice {
                true => choice(setup, rows, id, template, drawn.mode, epoch).map(Rc::new),
                false => self.open(setup, rows, id, template, drawn.mode),
            })
            .collect::<Result<_>>()?;
        self.left_out += prompts.iter().map(|p| p.left_out as u64).sum::<u64>();
        Ok(prompts)
    }

    fn open(
        &mut self,
        setup: &TeacherSetup<'_>,
        rows: &TrainRows<'_>,
        id: u32,
        template: usize,
        mode: PromptMode,
    ) -> Result<Rc<Prompted>> {
        let key = (id, template, mode == PromptMode::Hybrid);
        if let Some(prompt) = self.kept.get(&key) {
            return Ok(prompt.clone());
        }
        let prompt = Rc::new(setup.prompts.open(rows.history(id as usize), template, mode)?);
        let bytes = size_of::<(Key, Prompted)>() + 8 * prompt.ids.len() + 16 * prompt.marks.len();
        if let Some(left) = self.bytes_left.checked_sub(bytes) {
            self.bytes_left = left;
            self.kept.insert(key, prompt.clone());
        }
        Ok(prompt)
    }
}

fn choice(
    setup: &TeacherSetup<'_>,
    rows: &TrainRows<'_>,
    id: u32,
    template: usize,
    mode: PromptMode,
    epoch: u64,
) -> Result<Prompted> {
    let (row, history, target) = (rows.row(id as usize), rows.history(id as usize), rows.target(id as usize));
    let candidates = setup.candidates.draw(epoch, row.key(), history, target)?;
    if !candidates.contains(&target) {
        let message =
            format!("the {} candidates of training row {}/{} miss its target", candidates.len(), row.row, row.place);
        return Err(Error::invalid(message));
    }
    setup.prompts.choice(history, &candidates, template, mode)
}

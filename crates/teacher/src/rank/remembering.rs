//! Prompts read once for several rankings of the same rows.

use std::{cell::RefCell, collections::HashMap};

use anyo_core::{Batch, Recommender, Result};
use tch::{Device, Tensor};

use super::Ranker;

/// What the language model said of histories so far: a state `[D]` on the CPU for each.
///
/// A state depends on the teacher's weights and on the prompt, not on what the head makes of it.
#[derive(Debug, Default)]
pub(crate) struct States(RefCell<HashMap<Vec<u32>, Tensor>>);

impl States {
    /// States of histories `[N,D]`; those that are new are read.
    fn of(&self, ranker: &Ranker<'_>, histories: &[&[u32]]) -> Result<Tensor> {
        let mut known = self.0.borrow_mut();
        let new: Vec<&[u32]> = histories.iter().copied().filter(|&history| !known.contains_key(history)).collect();
        if !new.is_empty() {
            let read = ranker.encode(&new)?.f_to_device(Device::Cpu)?;
            for (row, history) in (0i64..).zip(new) {
                known.insert(history.to_vec(), read.f_get(row)?);
            }
        }
        let rows: Vec<&Tensor> = histories.iter().filter_map(|&history| known.get(history)).collect();
        Ok(Tensor::f_stack(&rows, 0)?)
    }
}

/// A ranker that looks states up before it reads a prompt.
pub(crate) struct Remembering<'a> {
    pub(crate) ranker: &'a Ranker<'a>,
    pub(crate) states: &'a States,
}

impl Recommender for Remembering<'_> {
    fn score(&self, batch: &Batch<'_>) -> Result<Tensor> {
        let states = self.states.of(self.ranker, batch.histories)?;
        let states = states.f_to_device(self.ranker.items().vectors.device())?;
        Ok(self.ranker.rank_states(&states, batch.histories)?.f_to_device(Device::Cpu)?)
    }
}

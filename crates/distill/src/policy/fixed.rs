//! A set of targets chosen once.

use anyo_core::{Needs, SelectionPolicy, Signals};

/// 1 for the targets of a fixed set, 0 for the others.
#[derive(Debug)]
pub(super) struct Fixed {
    chosen: Vec<bool>, // [n_targets]
}

impl Fixed {
    /// The set with these numbers, each below `n_targets`.
    pub(super) fn new(numbers: &[u32], n_targets: usize) -> Self {
        let mut chosen = vec![false; n_targets];
        for &number in numbers {
            if let Some(place) = chosen.get_mut(number as usize) {
                *place = true;
            }
        }
        Self { chosen }
    }
}

impl SelectionPolicy for Fixed {
    fn needs(&self) -> Needs {
        Needs::Nothing
    }

    fn weights(&mut self, signals: &Signals<'_>) -> Vec<f32> {
        let weight = |&target: &u32| f32::from(u8::from(self.chosen.get(target as usize).is_some_and(|&c| c)));
        signals.targets.iter().map(weight).collect()
    }

    fn n_fixed(&self) -> Option<usize> {
        Some(self.chosen.iter().filter(|&&chosen| chosen).count())
    }
}

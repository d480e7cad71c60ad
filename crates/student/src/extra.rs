//! What a training may add to a student's own loss: the place where distillation comes in.

use std::{collections::BTreeMap, path::Path};

use anyo_core::{
    Result,
    torch::{Params, save_model, tensor_file::save_tensors},
};
use tch::{Tensor, no_grad};

use crate::{
    batch::Negatives,
    loss::{Head, Loss, LossGrad, Targets},
    student::Student,
};

/// Names of parameters that belong to an [`Extra`] and not to the student begin so: they are trained and in the
/// checkpoints, but never among the student's own weights.
pub const EXTRA_PREFIX: &str = "extra.";

/// What an [`Extra`] sees of a batch. N targets, D width of a state.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Epochs at most.
    pub epochs: u64,
    /// Number of the batch in the epoch.
    pub batch: u64,
    /// Root of all random streams.
    pub seed: u64,
    /// Numbers of the targets in the training rows (`TargetIndex`), `[N]`.
    pub numbers: &'a [u32],
    /// The targets.
    pub targets: Targets<'a>,
    /// The negatives that were drawn for the student's own loss.
    pub negatives: &'a Negatives,
    /// States of the targets `[N, D]`, without a graph.
    pub states: &'a Tensor,
    /// The scoring head, with the weight of [`Tables`] where there is one.
    pub head: &'a Head,
    /// The student's own loss.
    pub loss: &'a Loss,
    /// Gradients are those of this times the sum over the targets.
    pub scale: f64,
}

/// Tables that take the place of the student's own in a training step; with a graph to what they are made of.
#[derive(Debug, Default)]
pub struct Tables {
    /// Instead of [`Network::items`](crate::Network::items).
    pub items: Option<Tensor>,
    /// Instead of the head's weight.
    pub head: Option<Tensor>,
}

/// Loss and gradients of a batch, the student's own included.
#[derive(Debug)]
pub struct Added {
    /// By states and head.
    pub grad: LossGrad,
    /// A further scalar with a graph, scaled already and its value in the sum already.
    pub graph: Option<Tensor>,
}

/// A guest in a student's training.
///
/// Its parameters are in [`Student::params`] under [`EXTRA_PREFIX`] before training starts. What else it keeps from step to
/// step must follow from the seed, the epoch and the batch, or a resumed training would differ.
pub trait Extra {
    /// The tables of the next step.
    ///
    /// # Errors
    /// When libtorch has no memory.
    fn tables(&mut self, student: &Student) -> Result<Tables>;

    /// Loss and gradients of a batch; calls the student's own loss itself.
    ///
    /// # Errors
    /// What the guest finds wrong.
    fn grad(&mut self, step: &Step<'_>) -> Result<Added>;

    /// Values of the student's own parameters with which it does alone what it does together with the guest, by name;
    /// none where they are what they are.
    ///
    /// # Errors
    /// When libtorch has no memory.
    fn fold(&self, student: &Student) -> Result<Vec<(String, Tensor)>>;

    /// Figures since the last call, for the log.
    fn scalars(&mut self) -> Vec<(&'static str, f64)>;
}

/// The student's own parameters with the guest folded in, until [`Folded::undo`].
#[derive(Debug)]
pub(crate) struct Folded(Vec<(Tensor, Tensor)>);

impl Folded {
    pub(crate) fn new(extra: Option<&dyn Extra>, student: &Student) -> Result<Self> {
        let Some(extra) = extra else { return Ok(Self(Vec::new())) };
        let mut before = Vec::new();
        no_grad(|| {
            for (name, value) in extra.fold(student)? {
                if let Some(tensor) = student.params.get(&name) {
                    let mut handle = tensor.shallow_clone();
                    before.push((tensor.shallow_clone(), tensor.f_detach_copy()?));
                    handle.f_copy_(&value)?;
                }
            }
            Ok(Self(before))
        })
    }

    /// Puts the values of before back, bit for bit.
    pub(crate) fn undo(self) -> Result<()> {
        no_grad(|| {
            for (mut tensor, value) in self.0 {
                tensor.f_copy_(&value)?;
            }
            Ok(())
        })
    }
}

/// A copy of the student's own parameters.
pub(crate) fn own_weights(params: &Params) -> Result<BTreeMap<String, Tensor>> {
    let mut all = params.snapshot()?;
    all.retain(|name, _| !name.starts_with(EXTRA_PREFIX));
    Ok(all)
}

/// Saves the student's own parameters.
pub(crate) fn save_own(path: &Path, params: &Params, metadata: &BTreeMap<String, String>) -> Result<()> {
    let own: Vec<_> = params.named().filter(|(name, _)| !name.starts_with(EXTRA_PREFIX)).collect();
    if own.len() == params.named().count() {
        save_model(path, params, metadata)
    } else {
        save_tensors(path, &own, metadata)
    }
}

/// Takes the student's own parameters, and leaves a guest's as they are.
pub(crate) fn load_own(student: &Student, own: &BTreeMap<String, Tensor>) -> Result<()> {
    let guests = student.params.named().filter(|(name, _)| name.starts_with(EXTRA_PREFIX));
    let all = guests.map(|(name, tensor)| (name.to_owned(), tensor.detach()));
    student.load(&all.chain(own.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))).collect())
}

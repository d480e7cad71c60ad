//! The few traits that crates meet in.

use tch::Tensor;

use crate::Result;

/// Histories to score, oldest item first; a history may be empty.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// The user of each history, `[B]`.
    pub users: &'a [u32],
    /// The histories, `[B]` slices of unequal length.
    pub histories: &'a [&'a [u32]],
}

/// Anything that ranks a catalogue for a history: students, teachers, popularity.
pub trait Recommender {
    /// Scores of all items, `[B, n_items]` in f32 on any device; higher is better; the caller checks for NaN.
    ///
    /// The caller passes batches of similar history length where it can, so trimming to the longest row pays.
    ///
    /// # Errors
    /// When the model cannot score the batch.
    fn score(&self, batch: &Batch<'_>) -> Result<Tensor>;
}

/// What is known of the N targets of a batch when a [`SelectionPolicy`] weighs them.
///
/// Every slice is `[N]`. A signal that the policy did not ask for ([`SelectionPolicy::needs`]) is empty. Targets without a
/// teacher list are never passed.
#[derive(Debug, Clone, Copy)]
pub struct Signals<'a> {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Epochs at most.
    pub epochs: u64,
    /// Seed of this step's draws, the same in a resumed run.
    pub seed: u64,
    /// Numbers of the targets (`TargetIndex`).
    pub targets: &'a [u32],
    /// What the student says now; weights carry no gradient.
    pub student: StudentSignals<'a>,
    /// What the teacher said.
    pub teacher: TeacherSignals<'a>,
}

/// The student's side of [`Signals`], from its scores over the whole catalogue.
#[derive(Debug, Clone, Copy, Default)]
pub struct StudentSignals<'a> {
    /// Entropy of the softmax over all items, in nats.
    pub entropy: &'a [f32],
    /// Largest minus second largest probability of that softmax.
    pub margin: &'a [f32],
    /// 1-based rank of the target, equal scores counted against it.
    pub true_rank: &'a [u32],
    /// -log softmax of the target, in nats.
    pub loss: &'a [f32],
    /// Share of the teacher's top K that is in the student's top K, 0 to 1.
    pub overlap: &'a [f32],
}

/// The teacher's side of [`Signals`], from its bundle.
#[derive(Debug, Clone, Copy, Default)]
pub struct TeacherSignals<'a> {
    /// 1-based rank of the target; 0: not known.
    pub true_rank: &'a [u32],
    /// Distance of the target, NaN where its rank is not known.
    pub true_distance: &'a [f32],
    /// Distance of the first item of the list.
    pub first_distance: &'a [f32],
    /// Mean distance of the first K items minus the first one's: small when the teacher hesitates.
    pub spread: &'a [f32],
}

/// Which student signals a policy reads; each costs a pass over the scores of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// None.
    Nothing,
    /// The student's scores over the catalogue.
    StudentScores,
}

/// How much the distillation of each labelled target counts. Weights multiply the target's distillation loss, which is
/// divided by the number of targets, not of those kept: `all` and a policy that says 1 everywhere are the same.
pub trait SelectionPolicy: std::fmt::Debug {
    /// What the policy reads of the student.
    fn needs(&self) -> Needs;

    /// One finite weight of 0 or more for each target, `[N]`; 0 drops it.
    fn weights(&mut self, signals: &Signals<'_>) -> Vec<f32>;

    /// How many targets the teacher has to label for this policy, where it is a set chosen beforehand; `None`: all.
    fn n_fixed(&self) -> Option<usize> {
        None
    }
}

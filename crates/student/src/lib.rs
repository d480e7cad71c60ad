//! Small sequential recommenders.

pub mod baselines;

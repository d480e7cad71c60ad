//! The one entry for students, teachers and baselines.

use super::{Catalogue, EvalConfig, Evaluation, rank_rows};
use crate::{Recommender, Result, data::Rows};

/// Ranks `rows` and reports; `dataset` is a `&Dataset` or a [`Catalogue`].
///
/// Only `rows` are looked at: give `dataset.valid` to choose a model and `dataset.test` once, at the end.
///
/// # Errors
/// Those of [`rank_rows`](super::rank_rows) and [`Evaluation::new`].
pub fn evaluate<'a>(
    recommender: &dyn Recommender,
    rows: &Rows,
    dataset: impl Into<Catalogue<'a>>,
    config: &EvalConfig,
    seed: u64,
) -> Result<Evaluation> {
    evaluate_watched(recommender, rows, dataset, config, seed, &mut |_| Ok(()))
}

/// [`evaluate`] with a `watch` that hears the number of rows done after every batch and can end it with an error.
///
/// # Errors
/// Those of [`evaluate`] and of `watch`.
pub fn evaluate_watched<'a>(
    recommender: &dyn Recommender,
    rows: &Rows,
    dataset: impl Into<Catalogue<'a>>,
    config: &EvalConfig,
    seed: u64,
    watch: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Evaluation> {
    let catalogue = dataset.into();
    let ranking = rank_rows(recommender, rows, catalogue.n_items, config, watch)?;
    Evaluation::new(ranking, catalogue, config, seed, tch::get_num_threads().max(1) as usize)
}

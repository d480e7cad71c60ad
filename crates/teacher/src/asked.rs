//! From histories and prompts to what generation and scoring of the language model take.

use anyo_core::{Error, Result};
use anyo_lm::generate::{Injected, Prompt};
use tch::{Tensor, no_grad};

use crate::{
    encoder::Encoder,
    gate::{GateMode, row_key},
    model::{Sequence, Side, Teacher},
    rank::RankSettings,
    tokens::{PromptSource, Prompted},
};

/// A batch for the language model.
pub(crate) struct Asked {
    /// With the vectors of added tokens and items in place.
    pub(crate) prompts: Vec<Prompt>,
    /// Expert weights `[B,E]`; `None` without a gate.
    pub(crate) gate: Option<Tensor>,
}

impl Asked {
    /// Asks the teacher `prompted`, each made from (the newest items of) one of `histories`, which also give the gates.
    ///
    /// # Errors
    /// When there is not one prompt for each history, or as [`Teacher::prepare`] and [`Encoder::states`].
    pub(crate) fn new(
        teacher: &Teacher,
        encoder: &Encoder,
        histories: &[&[u32]],
        prompted: &[Prompted],
    ) -> Result<Self> {
        if histories.len() != prompted.len() {
            return Err(Error::invalid(format!("{} prompts for {} histories", prompted.len(), histories.len())));
        }
        no_grad(|| {
            let states = encoder.states(histories, &mut |_| Ok(()))?;
            let keys: Vec<u64> = histories.iter().map(|history| row_key(history)).collect();
            let gate = teacher.gate(&states, &keys, GateMode::Eval)?;
            let rows: Vec<Sequence<'_>> = prompted.iter().map(|prompt| Sequence { prompt, answer: &[] }).collect();
            // What the model reads in every other pass of the teacher, so that nothing can differ.
            let embedded = teacher.prepare(&rows, Side::Right)?.input.embeddings; // [B,S,D]
            let prompts = prompted.iter().enumerate().map(|(row, prompted)| {
                let mut prompt = Prompt::new(tokens(&prompted.ids)?);
                if let Some(embedded) = &embedded {
                    let n = prompt.ids.len();
                    let own = embedded.f_get(row as i64)?.f_narrow(0, 0, n as i64)?;
                    prompt = prompt.with(Injected::new((0..n).collect(), &own)?);
                }
                Ok(prompt)
            });
            Ok(Self { prompts: prompts.collect::<Result<_>>()?, gate })
        })
    }
}

/// Ids as generation and scoring take them.
///
/// # Errors
/// When one is no token id.
pub(crate) fn tokens(ids: &[i64]) -> Result<Vec<u32>> {
    let id = |&id: &i64| u32::try_from(id).map_err(|_| Error::invalid(format!("{id} is no token id")));
    ids.iter().map(id).collect()
}

/// The prompts without candidates for each history.
///
/// # Errors
/// When one does not fit the context.
pub(crate) fn open(prompts: &dyn PromptSource, histories: &[&[u32]], settings: &RankSettings) -> Result<Vec<Prompted>> {
    let RankSettings { template, mode, .. } = *settings;
    histories.iter().map(|history| prompts.open(history, template, mode)).collect()
}

/// What a batch gets: places of its prompts, their histories, the prompts; and one result for each.
pub(crate) type EachBatch<'a, T> = dyn FnMut(&[usize], &[&[u32]], &[Prompted]) -> Result<Vec<T>> + 'a;

/// Calls `each` with at most `batch` prompts of like length at a time, the longest first: their places, their histories
/// and the prompts. What it returns for each of them comes back in the order of `prompted`.
///
/// # Errors
/// Those of `each`, and when it returns another number of results.
pub(crate) fn in_batches<T>(
    histories: &[&[u32]],
    prompted: &[Prompted],
    batch: usize,
    each: &mut EachBatch<'_, T>,
) -> Result<Vec<T>> {
    let mut order: Vec<usize> = (0..prompted.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(prompted[i].ids.len()), i));
    let mut found: Vec<Option<T>> = prompted.iter().map(|_| None).collect();
    for part in order.chunks(batch.max(1)) {
        let own: Vec<&[u32]> = part.iter().map(|&i| histories[i]).collect();
        let questions: Vec<Prompted> = part.iter().map(|&i| prompted[i].clone()).collect();
        let answers = each(part, &own, &questions)?;
        if answers.len() != part.len() {
            return Err(Error::invalid(format!("{} results for {} prompts", answers.len(), part.len())));
        }
        part.iter().zip(answers).for_each(|(&i, answer)| found[i] = Some(answer));
    }
    // Every place was in one part.
    Ok(found.into_iter().flatten().collect())
}

//! How likely the teacher finds the titles of given items, and rankings by it.

use anyo_core::{Batch, Error, Recommender, Result};
use anyo_lm::{Pass, generate::score_lists};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

use crate::{
    asked::{Asked, EachBatch, in_batches, open, tokens},
    candidates::ChoiceRow,
    encoder::Encoder,
    model::Teacher,
    rank::RankSettings,
    tokens::{PromptSource, Prompted},
};

/// What a title's likelihood is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Likely {
    /// ln p of the whole answer: the probability that the teacher says this title. Long titles have less of it.
    Sum,
    /// The mean of ln p over the answer's tokens: does not punish long titles, but favours those whose last tokens follow
    /// from the first.
    MeanPerToken,
}

/// Log-likelihoods of titles after the prompt without candidates. Do not train the teacher while this exists.
///
/// The answer of an item is its title and the end mark (with the prompts' `second_bos`, a BOS in front), so a title that
/// begins another one is no likelier for that. A prompt is read once, and its cache serves all titles.
///
/// As a [`Recommender`] it scores the whole catalogue: about the tokens of all titles for each history, for small
/// catalogues. [`Rerank`] asks for a few items only.
pub struct Likelihood<'a> {
    teacher: &'a Teacher,
    encoder: &'a Encoder,
    prompts: &'a dyn PromptSource,
    settings: RankSettings,
    likely: Likely,
    /// Tokens of each item's answer.
    answers: Vec<Vec<u32>>,
}

impl<'a> Likelihood<'a> {
    /// With the teacher's present weights; adapters, gate and head may be absent. `settings.batch` prompts, and as many
    /// titles, are in a forward pass at most.
    ///
    /// # Errors
    /// When an answer has no tokens or ids that are none.
    pub fn new(
        teacher: &'a Teacher,
        encoder: &'a Encoder,
        prompts: &'a dyn PromptSource,
        settings: RankSettings,
        likely: Likely,
    ) -> Result<Self> {
        let answer = |item: u32| match tokens(prompts.answer(item))? {
            empty if empty.is_empty() => Err(Error::invalid(format!("the answer of item {item} has no token"))),
            answer => Ok(answer),
        };
        let answers = (0..teacher.n_items() as u32).map(answer).collect::<Result<_>>()?;
        Ok(Self { teacher, encoder, prompts, settings, likely, answers })
    }

    /// Log-likelihood in nats of each listed item after its history: result `[n][i]` belongs to `lists[n][i]`. It does not
    /// depend on the other histories and items, up to the rounding of products of another size; memory does not grow with
    /// their number.
    ///
    /// # Errors
    /// When there is not one list for each history, an item is outside the catalogue, a history does not fit the context,
    /// or a likelihood is not finite.
    pub fn of(&self, histories: &[&[u32]], lists: &[&[u32]]) -> Result<Vec<Vec<f64>>> {
        if histories.len() != lists.len() {
            return Err(Error::invalid(format!("{} lists of items for {} histories", lists.len(), histories.len())));
        }
        let n_items = self.answers.len();
        for (n, list) in lists.iter().enumerate() {
            if let Some(item) = list.iter().find(|&&item| item as usize >= n_items) {
                return Err(Error::invalid(format!("list {n} has item {item}, the catalogue has items 0..{n_items}")));
            }
        }
        self.batches(histories, &mut |part, histories, prompted| {
            let lists: Vec<Vec<Vec<u32>>> = part
                .iter()
                .map(|&n| lists[n].iter().map(|&item| self.answers[item as usize].clone()).collect())
                .collect();
            self.scores(histories, prompted, &lists.iter().map(Vec::as_slice).collect::<Vec<_>>())
        })
    }

    /// Log-likelihoods of all items after each history, `[N][I]`.
    ///
    /// # Errors
    /// As [`Likelihood::of`].
    pub fn of_all(&self, histories: &[&[u32]]) -> Result<Vec<Vec<f64>>> {
        self.batches(histories, &mut |part, histories, prompted| {
            self.scores(histories, prompted, &vec![self.answers.as_slice(); part.len()])
        })
    }

    /// Log-likelihood in nats of each candidate's title after the question that lists the candidates, `[N][n]` in the order of
    /// `rows[·].candidates`.
    ///
    /// # Errors
    /// As [`Likelihood::of`].
    pub fn of_choices(&self, rows: &[ChoiceRow]) -> Result<Vec<Vec<f64>>> {
        let histories: Vec<&[u32]> = rows.iter().map(|row| row.history.as_slice()).collect();
        let ask = |row: &ChoiceRow| {
            self.prompts.choice(&row.history, &row.candidates, row.template, self.settings.mode).map_err(|e| match e {
                Error::Invalid { message, hint } => {
                    Error::Invalid { message: format!("row {}: {message}", row.row), hint }
                }
                e => e,
            })
        };
        let prompted: Vec<Prompted> = rows.iter().map(ask).collect::<Result<_>>()?;
        let answers = |item: &u32| {
            self.answers.get(*item as usize).cloned().ok_or_else(|| {
                Error::invalid(format!("a candidate is item {item}, the catalogue has {} items", self.answers.len()))
            })
        };
        in_batches(&histories, &prompted, self.settings.batch, &mut |part, histories, prompted| {
            let lists: Vec<Vec<Vec<u32>>> = part
                .iter()
                .map(|&n| rows[n].candidates.iter().map(answers).collect::<Result<_>>())
                .collect::<Result<_>>()?;
            self.scores(histories, prompted, &lists.iter().map(Vec::as_slice).collect::<Vec<_>>())
        })
    }

    fn batches(&self, histories: &[&[u32]], each: &mut EachBatch<'_, Vec<f64>>) -> Result<Vec<Vec<f64>>> {
        let prompted = open(self.prompts, histories, &self.settings)?;
        in_batches(histories, &prompted, self.settings.batch, each)
    }

    /// One batch of prompts, each with its list of answers.
    fn scores(&self, histories: &[&[u32]], prompted: &[Prompted], lists: &[&[Vec<u32>]]) -> Result<Vec<Vec<f64>>> {
        let asked = Asked::new(self.teacher, self.encoder, histories, prompted)?;
        let pass = Pass { gate: asked.gate.as_ref(), ..Pass::default() };
        let scores = score_lists(self.teacher.lm(), &asked.prompts, lists, self.settings.batch.max(1), &pass)?;
        let value = |score: &anyo_lm::generate::Score| match self.likely {
            Likely::Sum => score.sum(),
            Likely::MeanPerToken => score.mean(),
        };
        Ok(scores.iter().map(|list| list.iter().map(value).collect()).collect())
    }
}

impl Recommender for Likelihood<'_> {
    fn score(&self, batch: &Batch<'_>) -> Result<Tensor> {
        let rows = self.of_all(batch.histories)?;
        let flat: Vec<f32> = rows.iter().flatten().map(|&value| value as f32).collect();
        Ok(Tensor::f_from_slice(&flat)?.f_view([rows.len() as i64, self.answers.len() as i64])?)
    }
}

/// Orders the best K items of another recommender by the likelihood of their titles; the others follow in the other's
/// order. Equal values keep the other's order, and equal scores of the other the order of the items.
///
/// A score is the number of items ranked below: finite, exact, and different for every item of a row (in f32 up to
/// 16,777,216 items). The result is bounded by how often the wanted item is among the other's K.
pub struct Rerank<'a> {
    first: &'a dyn Recommender,
    likelihood: &'a Likelihood<'a>,
    k: usize,
    exclude_history: bool,
}

impl<'a> Rerank<'a> {
    /// Asks for the likelihood of the best `k` of `first`, 1 or more; all items where the catalogue has fewer. With
    /// `exclude_history` items of a row's history come last and none of the K is spent on them, for evaluations and lists
    /// that leave them out.
    ///
    /// # Errors
    /// When `k` is 0 or the catalogue too large for exact scores.
    pub fn new(
        first: &'a dyn Recommender,
        likelihood: &'a Likelihood<'a>,
        k: usize,
        exclude_history: bool,
    ) -> Result<Self> {
        if k == 0 {
            return Err(Error::invalid("cannot order the best 0 items anew; give at least 1"));
        }
        let n_items = likelihood.answers.len();
        if n_items > 1 << 24 {
            return Err(Error::invalid(format!("{n_items} items are more than f32 can number, which is 16777216")));
        }
        Ok(Self { first, likelihood, k, exclude_history })
    }

    /// All items for each history, best first, `[N][I]`.
    ///
    /// # Errors
    /// As the other recommender and [`Likelihood::of`]; when the other's scores have another shape than `[N,I]` or hold
    /// NaN.
    pub fn rankings(&self, batch: &Batch<'_>) -> Result<Vec<Vec<u32>>> {
        let (n, n_items) = (batch.histories.len(), self.likelihood.answers.len());
        let scores = no_grad(|| self.first.score(batch))?;
        if scores.size() != [n as i64, n_items as i64] {
            return Err(Error::invalid(format!("scores have the shape {:?}, wanted [{n}, {n_items}]", scores.size())));
        }
        let scores = scores.f_to_kind(Kind::Float)?.f_to_device(Device::Cpu)?.f_contiguous()?.f_view([-1])?;
        let scores = Vec::<f32>::try_from(scores)?;
        if let Some(at) = scores.iter().position(|score| score.is_nan()) {
            return Err(Error::Run {
                message: format!("the score of item {} for row {} of a batch is NaN", at % n_items, at / n_items),
                hint: Some("the recommender to be reordered is broken; look at its training".into()),
            });
        }
        let mut orders: Vec<Vec<u32>> = Vec::with_capacity(n);
        for (scores, history) in scores.chunks_exact(n_items.max(1)).zip(batch.histories) {
            let seen = self.seen(history);
            let mut order: Vec<u32> = (0..n_items as u32).collect();
            order.sort_by(|&a, &b| {
                let [a, b] = [a, b].map(|item| item as usize);
                seen[a].cmp(&seen[b]).then(scores[b].total_cmp(&scores[a]))
            });
            orders.push(order);
        }
        let best: Vec<&[u32]> = orders.iter().map(|order| &order[..self.k.min(n_items)]).collect();
        let likely = self.likelihood.of(batch.histories, &best)?;
        for ((order, likely), history) in orders.iter_mut().zip(likely).zip(batch.histories) {
            let seen = self.seen(history);
            let mut best: Vec<(u32, f64)> = order.iter().copied().zip(likely).collect();
            // A stable sort keeps the other's order where values are equal.
            best.sort_by(|a, b| seen[a.0 as usize].cmp(&seen[b.0 as usize]).then(b.1.total_cmp(&a.1)));
            order.iter_mut().zip(best).for_each(|(place, (item, _))| *place = item);
        }
        Ok(orders)
    }

    /// Which items come last because the history has them.
    fn seen(&self, history: &[u32]) -> Vec<bool> {
        let mut seen = vec![false; self.likelihood.answers.len()];
        for &item in history.iter().filter(|_| self.exclude_history) {
            if let Some(seen) = seen.get_mut(item as usize) {
                *seen = true;
            }
        }
        seen
    }
}

impl Recommender for Rerank<'_> {
    fn score(&self, batch: &Batch<'_>) -> Result<Tensor> {
        let rankings = self.rankings(batch)?;
        let n_items = self.likelihood.answers.len();
        let mut scores = vec![0f32; rankings.len() * n_items];
        for (row, ranking) in rankings.iter().enumerate() {
            for (place, &item) in ranking.iter().enumerate() {
                scores[row * n_items + item as usize] = (n_items - 1 - place) as f32;
            }
        }
        Ok(Tensor::f_from_slice(&scores)?.f_view([rankings.len() as i64, n_items as i64])?)
    }
}

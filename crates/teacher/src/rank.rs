//! The teacher as a recommender: one forward pass for each history, the whole catalogue with one matrix product.

mod remembering;

use anyo_core::{Batch, Error, Recommender, Result};
use tch::{Device, Tensor, no_grad};

pub(crate) use self::remembering::{Remembering, States};
use crate::{
    encoder::Encoder,
    gate::{GateMode, row_key},
    head::{Head, ItemVectors},
    model::{Sequence, Teacher},
    tokens::{PromptMode, PromptSource, Prompted},
};

/// Ranks through the scoring head. Item vectors are made once; do not train the teacher while this exists.
pub struct Ranker<'a> {
    teacher: &'a Teacher,
    head: &'a Head,
    encoder: &'a Encoder,
    prompts: &'a dyn PromptSource,
    items: ItemVectors,
    settings: RankSettings,
    /// Factor of the encoder's scores; 0: the head ranks alone.
    share: f64,
}

/// How histories become prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RankSettings {
    /// Which template.
    pub template: usize,
    /// Whether prompts carry item vectors.
    pub mode: PromptMode,
    /// Prompts in one forward pass at most.
    pub batch: usize,
}

impl<'a> Ranker<'a> {
    /// A ranker with the teacher's present weights.
    ///
    /// # Errors
    /// When the teacher has no scoring head, or memory runs out.
    pub fn new(
        teacher: &'a Teacher,
        encoder: &'a Encoder,
        prompts: &'a dyn PromptSource,
        settings: RankSettings,
    ) -> Result<Self> {
        let Some(head) = teacher.head() else {
            return Err(Error::Invalid {
                message: "this teacher has no head that scores the catalogue".into(),
                hint: Some("train one (teacher.head), or rank by generation or the likelihood of titles".into()),
            });
        };
        let items = no_grad(|| head.items())?;
        let share = head.encoder_share()?;
        Ok(Self { teacher, head, encoder, prompts, items, settings, share })
    }

    /// The same without the encoder's scores.
    #[must_use]
    pub fn alone(self) -> Self {
        Self { share: 0.0, ..self }
    }

    /// Whether the encoder's scores are part of the ranking.
    pub fn mixes(&self) -> bool {
        self.share != 0.0
    }

    /// Scores of all items `[N,I]` after histories: the head's, and the encoder's in the share that the head keeps.
    ///
    /// # Errors
    /// Those of [`Ranker::encode`].
    pub fn rank(&self, histories: &[&[u32]]) -> Result<Tensor> {
        self.rank_states(&self.encode(histories)?, histories)
    }

    /// [`Ranker::rank`] from the states `[N,D]` that [`Ranker::encode`] gives for the histories.
    pub(crate) fn rank_states(&self, states: &Tensor, histories: &[&[u32]]) -> Result<Tensor> {
        let scores = self.scores(states)?;
        if !self.mixes() {
            return Ok(scores);
        }
        no_grad(|| {
            let users = vec![0; histories.len()]; // the encoder does not look at them
            let own = self.encoder.score(&Batch { users: &users, histories })?.f_to_device(scores.device())?;
            Ok(scores.f_add(&self.head.of_known(&own)?.f_mul_scalar(self.share)?)?)
        })
    }

    /// Item vectors as the head compares them, `[I,h]` with the bias `[I]`: what an export of embeddings wants.
    pub fn items(&self) -> &ItemVectors {
        &self.items
    }

    /// State at the end of each history's prompt `[N,D]`, without candidates listed; rows in the order given. Prompts of
    /// like length share a forward pass.
    ///
    /// # Errors
    /// When a history does not fit the context or has an item outside the catalogue.
    pub fn encode(&self, histories: &[&[u32]]) -> Result<Tensor> {
        let RankSettings { template, mode, batch } = self.settings;
        let states = self.encoder.states(histories, &mut |_| Ok(()))?;
        let prompted: Vec<Prompted> =
            histories.iter().map(|history| self.prompts.open(history, template, mode)).collect::<Result<_>>()?;
        let mut order: Vec<usize> = (0..histories.len()).collect();
        order.sort_by_key(|&i| prompted[i].ids.len());
        let mut parts = Vec::new();
        for chunk in order.chunks(batch.max(1)) {
            let rows: Vec<Sequence<'_>> =
                chunk.iter().map(|&i| Sequence { prompt: &prompted[i], answer: &[] }).collect();
            let keys: Vec<u64> = chunk.iter().map(|&i| row_key(histories[i])).collect();
            let places: Vec<i64> = chunk.iter().map(|&i| i as i64).collect();
            let own = states.f_index_select(0, &Tensor::f_from_slice(&places)?)?;
            let gate = no_grad(|| self.teacher.gate(&own, &keys, GateMode::Eval))?;
            parts.push(self.teacher.last_states(&rows, gate.as_ref())?);
        }
        if parts.is_empty() {
            return Err(Error::invalid("there are no histories to encode"));
        }
        let mut back = vec![0i64; order.len()];
        order.iter().enumerate().for_each(|(place, &i)| back[i] = place as i64);
        Ok(Tensor::f_cat(&parts, 0)?.f_index_select(0, &self.teacher.places(&back)?)?)
    }

    /// The head's scores of all items `[N,I]` for states of [`Ranker::encode`].
    ///
    /// # Errors
    /// When the width differs.
    pub fn scores(&self, states: &Tensor) -> Result<Tensor> {
        no_grad(|| self.head.scores(states, &self.items))
    }
}

impl Recommender for Ranker<'_> {
    fn score(&self, batch: &Batch<'_>) -> Result<Tensor> {
        Ok(self.rank(batch.histories)?.f_to_device(Device::Cpu)?)
    }
}

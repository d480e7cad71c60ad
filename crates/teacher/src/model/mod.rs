//! The teacher: a frozen language model with gated adapters, a projector for item vectors and a head for the catalogue.
//!
//! Axes: B rows, S tokens, D language model, d encoder, E experts, I items.

mod counts;
mod layout;
mod saved;

use anyo_core::{
    Error, Result,
    torch::{Init, Params},
};
use anyo_lm::{Attached, Causal, CausalLm, DropoutStream, LmInput, Pass, attach, train::HeadWeight};
use tch::{Device, Kind, Tensor, no_grad};

use crate::{
    config::TeacherConfig,
    gate::{Gate, GateMode},
    head::Head,
    projector::{Projector, check_marks, put},
};
pub use counts::Counts;
pub use layout::{Layout, Sequence, Side};

/// The tokens that the prompts need beyond the model's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedTokens {
    /// The first added id.
    pub first: i64,
    /// How many were added, ids in a row.
    pub count: i64,
    /// Those that stand for item vectors in hybrid prompts.
    pub injected: Vec<i64>,
    /// The id that pads rows; any will do.
    pub pad: i64,
}

/// What a teacher is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// Its configuration.
    pub config: &'a TeacherConfig,
    /// The language model without adapters.
    pub lm: CausalLm,
    /// Tokens beyond its own.
    pub tokens: AddedTokens,
    /// Vectors of all items `[I,d]` ([`crate::Encoder::items`]).
    pub items: &'a Tensor,
    /// Width of the states that the gate gets ([`crate::Encoder::state_width`]).
    pub state_width: i64,
    /// Encoded titles `[I,n]` ([`crate::title_features`]); not needed with `head.items: id` or without a head.
    pub titles: Option<&'a Tensor>,
    /// How often each item is a training target `[I]`; needed with `head.unseen: by_title`.
    pub target_counts: &'a [u64],
    /// Root of the initial weights.
    pub seed: u64,
}

/// The teacher. What it learns, and what is saved with it, is in one [`Params`]: adapters, gate with its running
/// statistics, projector, head, added token rows.
#[derive(Debug)]
pub struct Teacher {
    lm: CausalLm,
    params: Params,
    attached: Option<Attached>,
    gate: Option<Gate>,
    projector: Option<Projector>,
    head: Option<Head>,
    tokens: AddedTokens,
    /// `[added, D]`
    token_rows: Option<Tensor>,
    /// `[I,d]`
    items: Tensor,
}

/// A batch on the model's device.
#[derive(Debug)]
pub struct Prepared {
    /// For the language model, with the item vectors in place.
    pub input: LmInput,
    /// In plain numbers.
    pub layout: Layout,
}

impl Teacher {
    /// A teacher with new weights: at first it computes what the language model does.
    ///
    /// # Errors
    /// When parts do not fit together (message with wanted and got), or memory runs out.
    pub fn new(parts: Parts<'_>) -> Result<Self> {
        let Parts { config, mut lm, tokens, items, state_width, titles, target_counts, seed } = parts;
        let device = lm.device();
        let mut params = Params::new(device);
        let vocab = (tokens.first + tokens.count).max(0) as usize;
        let known = lm.vocab_size() as i64;
        if tokens.first < 0 || tokens.count < 0 || tokens.first > known {
            return Err(Error::Invalid {
                message: format!("the first added token is {}, the model has {known} tokens", tokens.first),
                hint: Some("the tokenizer must belong to the model".into()),
            });
        }
        if vocab > lm.vocab_size() {
            lm.resize_vocab(vocab)?;
        }
        let d = items.size().get(1).copied().unwrap_or(0);
        let width = lm.config().hidden_size as i64;
        let attached = config
            .lora_config()
            .map(|lora| attach(lm.linears_mut(), "default", &lora, &mut params, seed))
            .transpose()?;
        let gate = config.gate.as_ref().map(|gate| Gate::new(gate, state_width, &mut params, seed)).transpose()?;
        let projector = match config.injection {
            true => Some(Projector::new(d, width, &mut params, seed)?),
            false => None,
        };
        let new_head = |head| Head::new(head, width, items, titles, target_counts, &mut params, seed);
        let head = config.head.as_ref().map(new_head).transpose()?;
        let token_rows = match tokens.count {
            0 => None,
            n => {
                // As large as the model's own rows: the original's 0.02 is what Llama's have.
                let std = no_grad(|| lm.embedding().f_to_kind(Kind::Float)?.f_std(true))?.f_double_value(&[])?;
                let name = "tokens.rows";
                let rows = Init::Normal { std }.tensor(name, &[n, width], seed)?;
                Some(params.add(name, rows, config.train_tokens)?)
            }
        };
        let items = items.f_detach()?.f_to_device(device)?.f_to_kind(Kind::Float)?;
        Ok(Self { lm, params, attached, gate, projector, head, tokens, token_rows, items })
    }

    /// The language model, for generation and scoring; feed it [`Prepared::input`], since it does not know the added tokens'
    /// rows. Its [`anyo_lm::Pass`] needs the gate of [`Teacher::gate`].
    pub fn lm(&self) -> &CausalLm {
        &self.lm
    }

    /// All that is learned and saved.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The adapted linears; `None` without adapters.
    pub fn attached(&self) -> Option<&Attached> {
        self.attached.as_ref()
    }

    /// The scoring head.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Number of items I.
    pub fn n_items(&self) -> i64 {
        self.items.size()[0]
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.lm.device()
    }

    /// Projected vectors of all items `[I,D]`, without gradients; `None` without a projector.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn projected_items(&self) -> Result<Option<Tensor>> {
        no_grad(|| self.projector.as_ref().map(|p| p.forward(&self.items)).transpose())
    }

    /// Expert weights `[B,E]` of rows with these encoder states `[B,d]` and [`crate::row_key`]s; `None` without a gate.
    /// Computed once for each sequence and given to every pass over it.
    ///
    /// # Errors
    /// As [`Gate::forward`].
    pub fn gate(&self, states: &Tensor, keys: &[u64], mode: GateMode) -> Result<Option<Tensor>> {
        self.gate.as_ref().map(|gate| gate.forward(states, keys, mode)).transpose()
    }

    /// The configured weight of the load-balance term; 0 without a gate.
    pub fn balance_weight(&self) -> f64 {
        self.gate.as_ref().map_or(0.0, Gate::balance_weight)
    }

    /// Rows as one batch: embedded, added tokens and item vectors in place, with a graph where gradients are on.
    ///
    /// # Errors
    /// When markers and items of a prompt do not fit, a token is outside the vocabulary, or item vectors are asked for
    /// without a projector.
    pub fn prepare(&self, rows: &[Sequence<'_>], side: Side) -> Result<Prepared> {
        for row in rows {
            check_marks(row.prompt, &self.tokens.injected, self.n_items())?;
        }
        let layout = Layout::new(rows, self.tokens.pad, side)?;
        let shape = [layout.shape.0 as i64, layout.shape.1 as i64];
        let ids = Tensor::f_from_slice(&layout.ids)?.f_view(shape)?;
        let mut embedded = self.lm.embed(&ids)?.f_detach()?; // [B,S,D]
        if let Some(rows) = &self.token_rows {
            let added = |&(place, &id): &(usize, &i64)| {
                (self.tokens.first..self.tokens.first + self.tokens.count).contains(&id)
                    && layout.marks.0.binary_search(&(place as i64)).is_err()
            };
            let (places, which): (Vec<i64>, Vec<i64>) = layout
                .ids
                .iter()
                .enumerate()
                .filter(added)
                .map(|(place, &id)| (place as i64, id - self.tokens.first))
                .unzip();
            if !places.is_empty() {
                let which = Tensor::f_from_slice(&which)?.f_to_device(rows.device())?;
                embedded = put(&embedded, &places, &rows.f_index_select(0, &which)?)?;
            }
        }
        if !layout.marks.0.is_empty() {
            let Some(projector) = &self.projector else {
                return Err(Error::Invalid {
                    message: "a prompt carries item vectors, but the teacher has no projector".into(),
                    hint: Some("set teacher.injection=true, or use text-only prompts".into()),
                });
            };
            let which = Tensor::f_from_slice(&layout.marks.1)?.f_to_device(self.items.device())?;
            let vectors = projector.forward(&self.items.f_index_select(0, &which)?)?;
            embedded = put(&embedded, &layout.marks.0, &vectors)?;
        }
        let mask = layout.mask.as_ref().map(|mask| Tensor::f_from_slice(mask)?.f_view(shape)).transpose()?;
        Ok(Prepared { input: LmInput { ids, mask, embeddings: Some(embedded), documents: None }, layout })
    }

    /// States `[B·S,D]` after the final norm.
    ///
    /// # Errors
    /// When rows are longer than the model's context, or the gate is missing or does not fit.
    pub fn states(&self, prepared: &Prepared, gate: Option<&Tensor>, dropout: Option<DropoutStream>) -> Result<Tensor> {
        let pass = Pass { dropout, gate, ..Pass::default() };
        let hidden = self.lm.hidden(&prepared.input, None, &pass)?;
        Ok(hidden.f_reshape([-1, self.lm.config().hidden_size as i64])?)
    }

    /// [`Teacher::states`] at the flat places `places` (row · S + position) alone, `[P,D]`: the same up to rounding, for less.
    ///
    /// # Errors
    /// As [`Teacher::states`], and when a place is outside the batch.
    pub fn states_at(
        &self,
        prepared: &Prepared,
        gate: Option<&Tensor>,
        dropout: Option<DropoutStream>,
        places: &[i64],
    ) -> Result<Tensor> {
        self.lm.hidden_at(&prepared.input, places, &Pass { dropout, gate, ..Pass::default() })
    }

    /// State at the last prompt token of each row `[B,D]`, without gradients: what the head scores.
    ///
    /// # Errors
    /// As [`Teacher::prepare`] and [`Teacher::states`].
    pub fn last_states(&self, rows: &[Sequence<'_>], gate: Option<&Tensor>) -> Result<Tensor> {
        no_grad(|| {
            let prepared = self.prepare(rows, Side::Right)?;
            self.states_at(&prepared, gate, None, &prepared.layout.last)
        })
    }

    /// Log-likelihood in nats of each row's answer after its prompt `[B]`, without a cache: the reference for faster ways.
    ///
    /// # Errors
    /// As [`Teacher::last_states`].
    pub fn log_likelihoods(&self, rows: &[Sequence<'_>], gate: Option<&Tensor>) -> Result<Vec<f64>> {
        no_grad(|| {
            let prepared = self.prepare(rows, Side::Right)?;
            let states = self.states(&prepared, gate, None)?;
            let layout = &prepared.layout;
            let (places, targets): (Vec<i64>, Vec<i64>) =
                (0i64..).zip(&layout.targets).filter(|(_, t)| **t >= 0).map(|(place, &t)| (place, t)).unzip();
            let mut sums = vec![0.0; layout.shape.0];
            if places.is_empty() {
                return Ok(sums);
            }
            let logits = self.lm.logits(&states.f_index_select(0, &self.places(&places)?)?)?;
            let log_p = logits.f_log_softmax(-1, Kind::Float)?;
            let found = log_p.f_gather(1, &self.places(&targets)?.f_unsqueeze(1)?, false)?.f_view(-1)?;
            let found = Vec::<f64>::try_from(found.f_to_kind(Kind::Double)?.f_to_device(Device::Cpu)?)?;
            for (place, value) in places.iter().zip(found) {
                sums[*place as usize / layout.shape.1] += value;
            }
            Ok(sums)
        })
    }

    /// The output layer for the loss: dense where it is one matrix and nothing else.
    pub(crate) fn lm_head(&self) -> HeadWeight<'_> {
        if self.lm.config().tie_embeddings {
            return HeadWeight::Dense(self.lm.embedding());
        }
        let head = self.lm.linears().pop().filter(|l| l.adapters().is_empty() && l.bias().is_none());
        head.and_then(|head| head.weight()).map_or(HeadWeight::Model, HeadWeight::Dense)
    }

    /// Numbers as a tensor on the model's device.
    pub(crate) fn places(&self, places: &[i64]) -> Result<Tensor> {
        Ok(Tensor::f_from_slice(places)?.f_to_device(self.device())?)
    }
}

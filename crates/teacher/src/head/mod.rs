//! The scoring head, an extension of the method: one number for each item of the catalogue from one forward pass.
//!
//! The user is the language model's last state at the last token of the prompt; an item is the encoder's vector, its title
//! as the bare language model reads it, or both. The tables are frozen, the matrices that lead from them to the common
//! width are learned with a full softmax over the catalogue. Titles make items rankable that training hardly shows.
//!
//! Not in the paper: iLoRA answers by generating one of 20 listed titles (specs: section 8, option C).

mod aim;
mod titles;

use anyo_core::{
    Error, Result,
    seed::row_rng,
    torch::{Init, Params, dims},
};
use anyo_lm::train::{CrossEntropy, TokenLoss};
use rand::RngExt;
use tch::{Device, Kind, Tensor, no_grad};

use crate::config::{HeadConfig, HeadItems, Unseen};
pub use aim::{Aim, Listed};
pub use titles::{encode_titles, title_features};

/// The head's learned matrices and its frozen tables. Axes: B rows, I items, D language model, d encoder, h head.
#[derive(Debug)]
pub struct Head {
    normalize: bool,
    user: (Tensor, Tensor), // [h,D], [h]
    id: Option<Part>,       // from [I,d]
    title: Option<Part>,    // from [I,D]
    log_scale: Tensor,      // [1]
    bias: Option<Tensor>,   // [I]
    id_dropout: f64,
    unseen: Option<UnseenItems>,
    prior: Option<Prior>,
    /// How much of the encoder's own scores ranks `[1]`; saved with the weights.
    encoder_kept: Option<Tensor>,
}

/// How frequent items are as training targets.
#[derive(Debug)]
struct Prior {
    /// `prior` times the log of each item's share of the training targets `[I]`; half a target more for each item.
    log: Tensor,
    /// How much of it ranks `[1]`; saved with the weights.
    kept: Tensor,
}

/// What the head keeps of items that were never a training target, where titles speak for them.
#[derive(Debug)]
struct UnseenItems {
    /// The others, ascending `[S]`.
    seen: Tensor,
    /// Place of each item among the others; -1 for an unseen one.
    place: Vec<i64>,
    /// 0 for an unseen item, 1 for the others `[I,1]`.
    mask: Tensor,
}

/// A frozen table `[I,n]` with the matrix `[h,n]` it goes through.
#[derive(Debug)]
struct Part {
    table: Tensor,
    weight: Tensor,
}

/// Vectors of all items as the head compares them, for scoring many rows: `[I,h]`, and the bias `[I]`.
#[derive(Debug)]
pub struct ItemVectors {
    /// `[I,h]`, the learned factor in it.
    pub vectors: Tensor,
    /// `[I]`.
    pub bias: Option<Tensor>,
}

/// Loss over rows and what to differentiate for its gradients.
#[derive(Debug)]
pub struct HeadLoss {
    /// Sum of the rows' cross-entropies in nats, one f64.
    pub sum: Tensor,
    /// A number whose gradients are those of the sum times the scale that was asked for.
    pub surrogate: Tensor,
    /// Sum of the rows' `KL(list ‖ head)` in nats, where lists were given; a row without one counts its cross-entropy.
    pub kl: Option<f64>,
}

impl Head {
    /// New weights under names that begin with `head.`, for users of width `d_lm` and the frozen tables of item vectors
    /// `[I,d]` and title encodings `[I,n]`; the latter is needed unless `items: id`. `target_counts` `[I]`: how often each
    /// item is a training target, for `unseen: by_title`.
    ///
    /// # Errors
    /// When a table is missing or has another number of items, or memory runs out.
    pub fn new(
        config: &HeadConfig,
        d_lm: i64,
        items: &Tensor,
        titles: Option<&Tensor>,
        target_counts: &[u64],
        params: &mut Params,
        seed: u64,
    ) -> Result<Self> {
        let [n_items, d] = dims("item vectors", items, ["I", "d"])?;
        let h = config.dim;
        let user = (
            params.create("head.user.weight", &[h, d_lm], Init::KaimingUniform, seed)?,
            params.create("head.user.bias", &[h], Init::Zeros, seed)?,
        );
        let mut part = |name: &str, table: &Tensor, width: i64| -> Result<Part> {
            Ok(Part {
                table: standardised(table)?.f_to_device(params.device())?,
                weight: params.create(format!("head.{name}.weight"), &[h, width], Init::KaimingUniform, seed)?,
            })
        };
        let id = match config.items {
            HeadItems::Title => None,
            HeadItems::Id | HeadItems::Both => Some(part("id", items, d)?),
        };
        let title = match (config.items, titles) {
            (HeadItems::Id, _) => None,
            (_, None) => return Err(Error::invalid("the scoring head needs the titles' encodings")),
            (_, Some(titles)) => {
                let [n, width] = dims("title encodings", titles, ["I", "D"])?;
                if n != n_items {
                    return Err(Error::invalid(format!("{n} title encodings for {n_items} items")));
                }
                Some(part("title", titles, width)?)
            }
        };
        let log_scale = params.create("head.log_scale", &[1], Init::Constant(config.scale.ln() as f32), seed)?;
        let bias = match config.item_bias {
            true => Some(params.create("head.bias", &[n_items], Init::Zeros, seed)?),
            false => None,
        };
        let unseen = match config.unseen {
            Unseen::AsOthers => None,
            Unseen::ByTitle if target_counts.len() as i64 != n_items => {
                let got = target_counts.len();
                return Err(Error::invalid(format!("{got} counts of training targets for {n_items} items")));
            }
            Unseen::ByTitle => Some(UnseenItems::new(target_counts, params.device())?),
        };
        let prior = match config.prior > 0.0 {
            true => Some(Prior::new(config.prior, target_counts, n_items, params)?),
            false => None,
        };
        let encoder_kept = match config.encoder {
            true => Some(params.add_buffer("head.encoder_kept", Tensor::f_from_slice(&[0f32])?)?),
            false => None,
        };
        let (normalize, id_dropout) = (config.normalize, config.id_dropout);
        Ok(Self { normalize, user, id, title, log_scale, bias, id_dropout, unseen, prior, encoder_kept })
    }

    /// Vectors of all items, with a graph where gradients are on. Compute them once for many rows.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn items(&self) -> Result<ItemVectors> {
        self.items_without(None)
    }

    /// Whether frequencies are part of the loss, so that [`Head::keep_prior`] has something to say.
    pub fn has_prior(&self) -> bool {
        self.prior.is_some()
    }

    /// Sets how much of the frequencies ranks: 0 none, 1 as much as in the loss. Rankers made before keep theirs.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn keep_prior(&self, share: f64) -> Result<()> {
        let Some(prior) = &self.prior else { return Ok(()) };
        let _ = no_grad(|| prior.kept.shallow_clone().f_fill_(share))?;
        Ok(())
    }

    /// Whether the encoder's own scores may rank too, so that [`Head::keep_encoder`] has something to say.
    pub fn may_mix(&self) -> bool {
        self.encoder_kept.is_some()
    }

    /// Sets what the encoder's scores are multiplied by before they are added; 0: the head ranks alone. Rankers made before
    /// keep theirs.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn keep_encoder(&self, share: f64) -> Result<()> {
        let Some(kept) = &self.encoder_kept else { return Ok(()) };
        let _ = no_grad(|| kept.shallow_clone().f_fill_(share))?;
        Ok(())
    }

    /// What was set by [`Head::keep_encoder`].
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn encoder_share(&self) -> Result<f64> {
        Ok(self.encoder_kept.as_ref().map(|kept| kept.f_double_value(&[0])).transpose()?.unwrap_or(0.0))
    }

    /// The encoder's scores `[B,I]` as they are added: around the mean of a row's items that training knew, and 0 for the
    /// others, of which an encoder that never met them can say nothing.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn of_known(&self, scores: &Tensor) -> Result<Tensor> {
        let Some(unseen) = &self.unseen else { return Ok(scores.shallow_clone()) };
        let mask = unseen.mask.f_view([1, -1])?;
        let sums = scores.f_mul(&mask)?.f_sum_dim_intlist([1i64].as_slice(), true, Kind::Float)?;
        let means = sums.f_div_scalar(unseen.seen.size()[0].max(1))?;
        Ok(scores.f_sub(&means)?.f_mul(&mask)?)
    }

    /// As [`Head::items`]; with a seed as the loss sees them: with all of the prior, and a share `id_dropout` of the items
    /// without its encoder vector.
    fn items_without(&self, dropped: Option<u64>) -> Result<ItemVectors> {
        let mut sum: Option<Tensor> = None;
        if let Some(part) = &self.id {
            let mut vectors = part.table.f_linear(&part.weight, None::<&Tensor>)?;
            if let Some(unseen) = &self.unseen {
                vectors = vectors.f_mul(&unseen.mask)?;
            }
            if let Some(seed) = dropped.filter(|_| self.id_dropout > 0.0) {
                let mut rng = row_rng(seed, 0);
                let kept = |_| f32::from(u8::from(rng.random::<f64>() >= self.id_dropout));
                let kept: Vec<f32> = (0..vectors.size()[0]).map(kept).collect();
                vectors =
                    vectors.f_mul(&Tensor::f_from_slice(&kept)?.f_unsqueeze(1)?.f_to_device(vectors.device())?)?;
            }
            sum = Some(vectors);
        }
        if let Some(part) = &self.title {
            let vectors = part.table.f_linear(&part.weight, None::<&Tensor>)?;
            sum = Some(match sum {
                Some(sum) => sum.f_add(&vectors)?,
                None => vectors,
            });
        }
        let vectors = sum.ok_or_else(|| Error::invalid("the scoring head has no item vectors"))?;
        // The learned factor stands with the items: one table and not every batch of users is multiplied.
        let vectors = self.unit(&vectors)?.f_mul(&self.log_scale.f_exp()?)?;
        let prior = match &self.prior {
            Some(prior) if dropped.is_some() => Some(prior.log.shallow_clone()),
            Some(prior) => Some(prior.log.f_mul(&prior.kept)?),
            None => None,
        };
        let bias = match (&self.bias, prior) {
            (Some(bias), Some(prior)) => Some(bias.f_add(&prior)?),
            (bias, prior) => prior.or_else(|| bias.as_ref().map(Tensor::shallow_clone)),
        };
        Ok(ItemVectors { vectors, bias })
    }

    /// Users `[B,h]` for last states `[B,D]` of any float type.
    ///
    /// # Errors
    /// When the width differs.
    pub fn users(&self, states: &Tensor) -> Result<Tensor> {
        let users = states.f_to_kind(Kind::Float)?.f_linear(&self.user.0, Some(&self.user.1))?;
        self.unit(&users)
    }

    /// Unit length with `normalize`, otherwise divided so that products of unit-variance vectors have variance 1.
    fn unit(&self, vectors: &Tensor) -> Result<Tensor> {
        match self.normalize {
            true => {
                let norm = vectors.f_norm_scalaropt_dim(2.0, -1i64, true)?.f_clamp_min(1e-6)?;
                Ok(vectors.f_div(&norm)?)
            }
            false => Ok(vectors.f_mul_scalar((vectors.size()[1] as f64).powf(-0.25))?),
        }
    }

    /// Scores of all items `[B,I]` for last states `[B,D]`: one matrix product.
    ///
    /// # Errors
    /// When the width differs.
    pub fn scores(&self, states: &Tensor, items: &ItemVectors) -> Result<Tensor> {
        Ok(self.users(states)?.f_linear(&items.vectors, items.bias.as_ref())?)
    }

    /// Cross-entropy over the catalogue (with `unseen: by_title` over the items that were ever a training target) for last
    /// states `[B,D]` and their targets `[B]`, in blocks that never hold `[B,I]` scores twice; the gradients are those of
    /// `scale` times the sum. `seed` draws the items that go without encoder vectors. With an aim, that of the mixture of true
    /// item and list.
    ///
    /// # Errors
    /// When a target is outside the catalogue, or unseen and left out, or memory runs out.
    pub fn loss(
        &self,
        states: &Tensor,
        targets: &[u32],
        aim: Option<&Aim<'_>>,
        scale: f64,
        seed: u64,
    ) -> Result<HeadLoss> {
        let (users, items) = (self.users(states)?, self.items_without(Some(seed))?);
        // The bias as one more feature, so that the loss of the language model's head serves here too.
        let (users, mut items) = match &items.bias {
            Some(bias) => (
                Tensor::f_cat(&[&users, &users.f_narrow(1, 0, 1)?.f_ones_like()?], 1)?,
                Tensor::f_cat(&[&items.vectors, &bias.f_unsqueeze(1)?], 1)?,
            ),
            None => (users, items.vectors),
        };
        let mut targets: Vec<i64> = targets.iter().map(|&item| i64::from(item)).collect();
        if let Some(unseen) = &self.unseen {
            items = items.f_index_select(0, &unseen.seen)?;
            for target in &mut targets {
                let place = unseen.place.get(*target as usize).copied().filter(|&place| place >= 0);
                let what = || Error::invalid(format!("target {target} is no training target of the data set"));
                *target = place.ok_or_else(what)?;
            }
        }
        let found: TokenLoss =
            CrossEntropy::plain().grad(&users.f_detach()?, &items.f_detach()?, &targets, scale, true)?;
        let surrogate = found.surrogate(&users, Some(&items))?;
        let Some(aim) = aim else { return Ok(HeadLoss { surrogate, sum: found.sum, kl: None }) };
        let place = |item: u32| match &self.unseen {
            Some(unseen) => unseen.place.get(item as usize).copied().filter(|&place| place >= 0),
            None => Some(i64::from(item)),
        };
        let term = aim.term(&users, &items, &targets, place)?;
        let kl = found.sum.f_double_value(&[])? + term.sum.f_double_value(&[])? - term.entropy;
        Ok(HeadLoss {
            surrogate: surrogate.f_add(&term.sum.f_mul_scalar(aim.share * scale)?)?,
            sum: found.sum.f_add(&term.sum.f_detach()?.f_mul_scalar(aim.share)?)?,
            kl: Some(kl),
        })
    }
}

impl Prior {
    fn new(strength: f64, target_counts: &[u64], n_items: i64, params: &mut Params) -> Result<Self> {
        if target_counts.len() as i64 != n_items {
            let got = target_counts.len();
            return Err(Error::invalid(format!("{got} counts of training targets for {n_items} items")));
        }
        let total: f64 = target_counts.iter().map(|&n| n as f64 + 0.5).sum();
        let log = |&n: &u64| (strength * ((n as f64 + 0.5) / total).ln()) as f32;
        let log: Vec<f32> = target_counts.iter().map(log).collect();
        let kept = params.add_buffer("head.prior_kept", Tensor::f_from_slice(&[0.5f32])?)?;
        Ok(Self { log: Tensor::f_from_slice(&log)?.f_to_device(params.device())?, kept })
    }
}

impl UnseenItems {
    fn new(target_counts: &[u64], device: Device) -> Result<Self> {
        let seen: Vec<i64> = (0i64..).zip(target_counts).filter(|(_, n)| **n > 0).map(|(item, _)| item).collect();
        let mut place = vec![-1; target_counts.len()];
        for (at, &item) in (0i64..).zip(&seen) {
            place[item as usize] = at;
        }
        let mask: Vec<f32> = target_counts.iter().map(|&n| f32::from(u8::from(n > 0))).collect();
        let mask = Tensor::f_from_slice(&mask)?.f_unsqueeze(1)?.f_to_device(device)?;
        Ok(Self { seen: Tensor::f_from_slice(&seen)?.f_to_device(device)?, place, mask })
    }
}

/// A table around 0 with mean square 1, so that both tables meet on one scale whatever they come from.
fn standardised(table: &Tensor) -> Result<Tensor> {
    no_grad(|| {
        let table = table.f_detach()?.f_to_kind(Kind::Float)?;
        let centred = table.f_sub(&table.f_mean_dim(0, true, Kind::Float)?)?;
        let rms = centred.f_square()?.f_mean(Kind::Double)?.f_sqrt()?.f_double_value(&[])?;
        Ok(centred.f_div_scalar(rms.max(1e-8))?)
    })
}

#[cfg(test)]
mod tests;

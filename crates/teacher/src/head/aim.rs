//! Soft targets of the head's loss: a share of each row's target distribution goes to a list of items.
//!
//! With `q` the list's weights and `L = log Σ exp s - s_t` the loss of the true item t alone, the cross-entropy of
//! `(1 - share) · δ_t + share · q` is `L + share · (s_t - Σ_k q_k s_k)`: the pass over the catalogue stays as it is.

use anyo_core::Result;
use tch::{Kind, Tensor};

/// Items of a list and their weights, sum 1.
pub type Listed = Vec<(u32, f32)>;

/// What the losses of some rows aim at beside their true items.
#[derive(Debug)]
pub struct Aim<'a> {
    /// Share of the target distribution that the lists have.
    pub share: f64,
    /// The list of each row; a row without items aims at its true item alone.
    pub lists: Vec<&'a [(u32, f32)]>,
}

/// `Σ_rows (s_t - Σ_k q_k s_k)` with a graph, and the rows' entropies of q in nats.
pub(super) struct Term {
    pub(super) sum: Tensor,
    pub(super) entropy: f64,
}

impl Aim<'_> {
    /// The term for users `[B,h]`, items `[S,h]` and the places of the true items among them `[B]`. `place` tells where an
    /// item of a list is, and nothing where the softmax leaves it out: its weight goes to the others of its list.
    pub(super) fn term(
        &self,
        users: &Tensor,
        items: &Tensor,
        targets: &[i64],
        place: impl Fn(u32) -> Option<i64>,
    ) -> Result<Term> {
        let width = 1 + self.lists.iter().map(|list| list.len()).max().unwrap_or(0);
        let (mut places, mut weights, mut entropy) = (Vec::new(), Vec::new(), 0.0);
        for (row, (&target, list)) in targets.iter().zip(&self.lists).enumerate() {
            let kept: Vec<(i64, f32)> = list.iter().filter_map(|&(item, q)| Some((place(item)?, q))).collect();
            let sum: f32 = kept.iter().map(|(_, q)| q).sum();
            if sum > 0.0 {
                places.push(target);
                weights.push(1.0);
                for (at, q) in kept {
                    let q = q / sum;
                    places.push(at);
                    weights.push(-q);
                    entropy -= f64::from(q) * f64::from(q).max(1e-30).ln();
                }
            }
            places.resize((row + 1) * width, target);
            weights.resize((row + 1) * width, 0.0);
        }
        let device = items.device();
        let shape = [targets.len() as i64, width as i64];
        let places = Tensor::f_from_slice(&places)?.f_to_device(device)?;
        let weights = Tensor::f_from_slice(&weights)?.f_view(shape)?.f_to_device(device)?;
        let vectors = items.f_index_select(0, &places)?.f_view([shape[0], shape[1], -1])?; // [B,1+K,h]
        let scores = vectors.f_bmm(&users.f_unsqueeze(2)?)?.f_squeeze_dim(2)?; // [B,1+K]
        Ok(Term { sum: scores.f_mul(&weights)?.f_sum(Kind::Double)?, entropy })
    }
}

//! Softmax over the target and negatives that the whole batch shares, with logQ correction.

use anyo_core::{parallel::sum_over_rows, torch::raw};
use tch::{Kind, Tensor};

use super::{Head, LossGrad, Targets, kernel::cross_entropy_row};
use crate::{
    batch::Negatives,
    config::LogQ,
    seen::{SEEN_SCALE, Seen},
};

/// Cross-entropy of the target against itself and K shared negatives, mean `log Σ exp(z) - z⁺`.
///
/// `z_k = s_k - log(K q_k)` with [`LogQ`] saying which scores are corrected; a negative that equals the row's target is
/// left out. Differs: Yi et al. (2019) take in-batch items as negatives; ours are drawn from the proposal q.
pub(super) fn grad(
    states: &Tensor,
    head: &Head,
    Targets { positives, seen }: Targets<'_>,
    negatives: &Negatives,
    (logq, proposal): (LogQ, &[f32]),
    inv_temperature: f64,
    scale: f64,
) -> LossGrad {
    let Negatives::Shared { items } = negatives else {
        unreachable!("the batcher draws shared negatives for the sampled softmax")
    };
    let device = states.device();
    let (n, k) = (positives.len() as i64, items.len() as i64);
    let ids = |items: &[i32]| Tensor::from_slice(items).to_kind(Kind::Int64).to_device(device);
    // The correction is one of probabilities, so it comes after the temperature: shift by T·log(K q) before it.
    let shift = |items: &[i32]| {
        let log_q = |&i: &i32| ((proposal[i as usize] * k as f32).max(1e-30).ln()) / inv_temperature as f32;
        Tensor::from_slice(&items.iter().map(log_q).collect::<Vec<f32>>()).to_device(device)
    };
    let (positive_ids, negative_ids) = (ids(positives), ids(items));
    let positive_vectors = head.weight.index_select(0, &positive_ids); // [N,D]
    let negative_vectors = head.weight.index_select(0, &negative_ids); // [K,D]

    // Scores of the row: the target first, then the shared negatives.
    let mut scores = Tensor::empty([n, k + 1], (Kind::Float, device));
    let mut first = scores.narrow(1, 0, 1);
    first.copy_(&(states * &positive_vectors).sum_dim_intlist([1i64].as_slice(), true, Kind::Float));
    let mut rest = scores.narrow(1, 1, k);
    rest.copy_(&states.matmul(&negative_vectors.transpose(0, 1)));
    if let Some(bias) = &head.bias {
        first += bias.index_select(0, &positive_ids).unsqueeze(1);
        rest += bias.index_select(0, &negative_ids);
    }
    if logq != LogQ::None {
        rest -= shift(items);
    }
    if logq == LogQ::Both {
        first -= shift(positives).unsqueeze(1);
    }

    let mut total = LossGrad::zeros(states, head);
    let collisions = Collisions::new(items, head.weight.size()[0] as usize);
    let seen = head.seen_value().map(|value| {
        let columns = collisions.columns(positives, seen);
        columns.add(&scores, 0, value);
        columns
    });
    total.sum = if raw::is_plain::<f32>(&scores) {
        softmax_rows(&mut scores, positives, &collisions, inv_temperature, scale)
    } else {
        let mask = positive_ids.unsqueeze(1).eq_tensor(&negative_ids.unsqueeze(0));
        let mut rest = scores.narrow(1, 1, k);
        rest.copy_(&rest.masked_fill(&mask, f64::NEG_INFINITY));
        let log_p = (&scores * inv_temperature).log_softmax(-1, Kind::Float);
        let loss = -log_p.narrow(1, 0, 1).sum(Kind::Double).double_value(&[]);
        scores.copy_(&(log_p.exp() * (scale * inv_temperature)));
        let mut first = scores.narrow(1, 0, 1);
        first -= scale * inv_temperature;
        loss
    };

    if let (Some(columns), Some(grad)) = (&seen, total.seen_bias.as_mut()) {
        *grad = SEEN_SCALE * columns.sum(&scores, 0);
    }
    let by_positive = scores.narrow(1, 0, 1); // [N,1]
    let by_negative = scores.narrow(1, 1, k); // [N,K]
    total.states = by_negative.matmul(&negative_vectors) + &by_positive * &positive_vectors;
    let _ = total.weight.index_add_(0, &positive_ids, &(&by_positive * states));
    let _ = total.weight.index_add_(0, &negative_ids, &by_negative.transpose(0, 1).matmul(states));
    if let Some(bias) = total.bias.as_mut() {
        let _ = bias.index_add_(0, &positive_ids, &by_positive.squeeze_dim(1));
        let _ = bias.index_add_(0, &negative_ids, &by_negative.sum_dim_intlist([0i64].as_slice(), false, Kind::Float));
    }
    total
}

/// Places of each item among the shared negatives.
struct Collisions {
    /// Index into `places` of the first place of an item, `u32::MAX` where it is no negative.
    first: Vec<u32>,
    next: Vec<u32>,
}

impl Collisions {
    fn new(items: &[i32], n_items: usize) -> Self {
        let (mut first, mut next) = (vec![u32::MAX; n_items], vec![u32::MAX; items.len()]);
        for (place, &item) in items.iter().enumerate() {
            next[place] = std::mem::replace(&mut first[item as usize], place as u32);
        }
        Self { first, next }
    }

    fn each(&self, item: i32, mut visit: impl FnMut(usize)) {
        let mut place = self.first[item as usize];
        while place != u32::MAX {
            visit(place as usize);
            place = self.next[place as usize];
        }
    }

    /// The columns of seen items in the scores: 0 is the row's own target, then come the shared negatives.
    fn columns(&self, positives: &[i32], seen: &Seen) -> Seen {
        let mut found = Seen::default();
        let mut columns = Vec::new();
        for (row, &positive) in positives.iter().enumerate() {
            for &item in seen.row(row) {
                if item as i32 == positive {
                    columns.push(0);
                } else {
                    self.each(item as i32, |place| columns.push(place as u32 + 1));
                }
            }
            found.push(columns.drain(..));
        }
        found
    }
}

fn softmax_rows(
    scores: &mut Tensor,
    positives: &[i32],
    collisions: &Collisions,
    inv_temperature: f64,
    scale: f64,
) -> f64 {
    const ROWS: usize = 32;
    let width = scores.size()[1] as usize;
    sum_over_rows(
        raw::slice_mut(scores),
        width,
        ROWS,
        || (),
        |(), at, row| {
            collisions.each(positives[at], |place| row[place + 1] = -1e30);
            let loss = cross_entropy_row(row, 0, scale as f32, inv_temperature as f32);
            collisions.each(positives[at], |place| row[place + 1] = 0.0);
            loss
        },
    )
}

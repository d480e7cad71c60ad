//! Losses on a target and its own negatives: binary cross-entropy and gBCE.

use anyo_core::{
    parallel,
    torch::raw::{slice, slice_mut},
};
use tch::{Device, Kind, Tensor};

use super::{Head, LossGrad, axpy, dot};
use crate::batch::Negatives;

/// Which pairwise loss.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// `-log σ(s⁺) - mean_k log σ(-s⁻_k)` (SASRec; with one negative the two means of SASRec.pytorch).
    Bce,
    /// `-(β log σ(s⁺) + Σ_k log σ(-s⁻_k)) / (K + 1)` (gSASRec, Eq. 10).
    Gbce {
        /// Power of the positive probability.
        beta: f64,
    },
}

impl Form {
    /// Weights of the positive and of each of `k` negatives.
    fn weights(self, k: usize) -> (f64, f64) {
        match self {
            Self::Bce => (1.0, 1.0 / k as f64),
            Self::Gbce { beta } => (beta / (k + 1) as f64, 1.0 / (k + 1) as f64),
        }
    }
}

/// The items that each target's state is scored against: its positive and its own negatives.
#[derive(Debug, Clone, Copy)]
struct Items<'a> {
    /// `[N]`.
    positives: &'a [i32],
    /// `[N · k]`, those of a target side by side.
    negatives: &'a [i32],
    k: usize,
}

impl Items<'_> {
    /// Item `j` of `k + 1` of a row; the first is the positive.
    #[inline(always)]
    fn at(self, row: usize, j: usize) -> usize {
        (if j == 0 { self.positives[row] } else { self.negatives[row * self.k + j - 1] }) as usize
    }
}

/// `log(1 + e^x)` without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

pub(super) fn grad(
    states: &Tensor,
    head: &Head,
    positives: &[i32],
    negatives: &Negatives,
    form: Form,
    scale: f64,
) -> LossGrad {
    let Negatives::PerTarget { items, per_target } = negatives else {
        unreachable!("the batcher draws per target for pairwise losses")
    };
    let items = Items { positives, negatives: items, k: *per_target };
    if states.device() == Device::Cpu && states.kind() == Kind::Float {
        on_cpu(states, head, items, form, scale)
    } else {
        with_tensors(states, head, items, form, scale)
    }
}

/// One fused pass: gather, inner products, loss and the gradient by the states; then the item gradient by columns.
fn on_cpu(states: &Tensor, head: &Head, items: Items<'_>, form: Form, scale: f64) -> LossGrad {
    const ROWS: usize = 128;
    let k = items.k;
    let d = states.size()[1] as usize;
    let (weight_positive, weight_negative) = form.weights(k);
    let mut total = LossGrad::zeros(states, head);
    let states = states.contiguous();
    let (h, weight) = (slice(&states), slice(&head.weight));
    let bias = head.bias.as_ref().map(slice);
    let n = items.positives.len();
    // Derivative of the loss by each score, positives first in each group of k + 1.
    let mut by_score = vec![0f32; n * (k + 1)];
    let mut losses = vec![0f64; n.div_ceil(ROWS)];
    let losses_at = parallel::SendPtr(losses.as_mut_ptr());
    let grad_at = parallel::SendPtr(slice_mut(&mut total.states).as_mut_ptr());
    parallel::for_each_chunk(&mut by_score, ROWS * (k + 1), |part, block| {
        let mut loss = 0.0;
        for (i, by_score) in block.chunks_exact_mut(k + 1).enumerate() {
            let row = part * ROWS + i;
            let state = &h[row * d..(row + 1) * d];
            // SAFETY: each row of the gradient belongs to one part.
            let grad = unsafe { std::slice::from_raw_parts_mut(grad_at.at(row * d), d) };
            for (j, g) in by_score.iter_mut().enumerate() {
                let item = items.at(row, j);
                let vector = &weight[item * d..(item + 1) * d];
                let score = f64::from(dot(state, vector) + bias.map_or(0.0, |b| b[item]));
                let (w, sign) = if j == 0 { (weight_positive, -1.0) } else { (weight_negative, 1.0) };
                loss += w * softplus(sign * score);
                *g = (scale * w * sign / (1.0 + (-sign * score).exp())) as f32;
                axpy(grad, *g, vector);
            }
        }
        // SAFETY: each part has its own place.
        unsafe { *losses_at.at(part) = loss };
    });
    total.sum = losses.iter().sum();
    scatter(&mut total, h, items, d, &by_score);
    total
}

/// Adds `by_score × state` to the rows of the items. Each part owns some columns, so parts never meet and the order of
/// the additions, hence the result, is the same on any number of threads.
fn scatter(total: &mut LossGrad, h: &[f32], items: Items<'_>, d: usize, by_score: &[f32]) {
    // Cut at multiples of eight floats, so that vector instructions stay whole.
    const COLUMNS: usize = 32;
    let grad_at = parallel::SendPtr(slice_mut(&mut total.weight).as_mut_ptr());
    parallel::for_each_part(d.div_ceil(COLUMNS), |part| {
        let columns = part * COLUMNS..((part + 1) * COLUMNS).min(d);
        for (row, group) in by_score.chunks_exact(items.k + 1).enumerate() {
            let state = &h[row * d + columns.start..row * d + columns.end];
            for (j, &g) in group.iter().enumerate() {
                let item = items.at(row, j);
                // SAFETY: parts own disjoint columns; items lie inside the table.
                let grad =
                    unsafe { std::slice::from_raw_parts_mut(grad_at.at(item * d + columns.start), columns.len()) };
                axpy(grad, g, state);
            }
        }
    });
    if let Some(bias) = total.bias.as_mut() {
        let bias = slice_mut::<f32>(bias);
        for (row, group) in by_score.chunks_exact(items.k + 1).enumerate() {
            for (j, &g) in group.iter().enumerate() {
                bias[items.at(row, j)] += g;
            }
        }
    }
}

/// The same with tensor operations, for other devices.
fn with_tensors(states: &Tensor, head: &Head, items: Items<'_>, form: Form, scale: f64) -> LossGrad {
    let (n, k, d) = (items.positives.len(), items.k, states.size()[1]);
    let ids: Vec<i64> = (0..n).flat_map(|row| (0..=k).map(move |j| items.at(row, j) as i64)).collect();
    let n = n as i64;
    let ids = Tensor::from_slice(&ids).to_device(states.device());
    let vectors = head.weight.index_select(0, &ids).view([n, k as i64 + 1, d]); // [N,K+1,D]
    let mut scores = vectors.matmul(&states.unsqueeze(2)).squeeze_dim(2); // [N,K+1]
    if let Some(bias) = &head.bias {
        scores += bias.index_select(0, &ids).view([n, k as i64 + 1]);
    }
    let (wp, wn) = form.weights(k);
    let mut signs = vec![wn as f32; k + 1];
    signs[0] = -(wp as f32);
    let signed_weight = Tensor::from_slice(&signs).to_device(states.device()); // weight times sign
    let sign = signed_weight.sign();
    let signed = &scores * &sign;
    let mut total = LossGrad::zeros(states, head);
    total.sum = (-(-&signed).log_sigmoid() * signed_weight.abs()).sum(Kind::Double).double_value(&[]);
    let by_score = signed.sigmoid() * signed_weight * scale; // [N,K+1]
    total.states = by_score.unsqueeze(1).matmul(&vectors).squeeze_dim(1);
    let outer = (by_score.unsqueeze(2) * states.unsqueeze(1)).view([-1, d]);
    let _ = total.weight.index_add_(0, &ids, &outer);
    if let Some(bias) = total.bias.as_mut() {
        let _ = bias.index_add_(0, &ids, &by_score.view([-1]));
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case() -> (Tensor, Head, Vec<i32>, Vec<i32>) {
        tch::manual_seed(3);
        let states = Tensor::randn([9, 21], (Kind::Float, Device::Cpu));
        let head = Head {
            weight: Tensor::randn([13, 21], (Kind::Float, Device::Cpu)),
            bias: Some(Tensor::randn([13], (Kind::Float, Device::Cpu))),
            seen_bias: None,
        };
        let positives = (0..9).map(|i| i % 5).collect();
        let negatives = (0..27).map(|i| 5 + i % 8).collect();
        (states, head, positives, negatives)
    }

    #[test]
    fn fused_loop_agrees_with_autograd() {
        let (states, head, positives, negatives) = case();
        for form in [Form::Bce, Form::Gbce { beta: 0.3 }] {
            let items = Items { positives: &positives, negatives: &negatives, k: 3 };
            let ours = on_cpu(&states, &head, items, form, 0.25);
            let other = with_tensors(&states, &head, items, form, 0.25);
            let leaf = |t: &Tensor| t.detach().copy().set_requires_grad(true);
            let (s, w, b) = (leaf(&states), leaf(&head.weight), leaf(head.bias.as_ref().unwrap()));
            let scores = s.matmul(&w.transpose(0, 1)) + &b;
            let p = Tensor::from_slice(&positives).to_kind(Kind::Int64).unsqueeze(1);
            let n = Tensor::from_slice(&negatives).to_kind(Kind::Int64).view([9, 3]);
            let (wp, wn) = form.weights(3);
            let loss = -(scores.gather(1, &p, false).log_sigmoid().sum(Kind::Float) * wp
                + (-scores.gather(1, &n, false)).log_sigmoid().sum(Kind::Float) * wn);
            (&loss * 0.25).backward();
            for got in [&ours, &other] {
                assert!((got.sum - loss.double_value(&[])).abs() < 1e-5);
                for (a, b) in [(&got.states, s.grad()), (&got.weight, w.grad()), (got.bias.as_ref().unwrap(), b.grad())]
                {
                    assert!(a.allclose(&b, 1e-5, 1e-6, false));
                }
            }
        }
    }
}

//! Losses on a target and a few items of its own: the teacher's candidates and the negatives of the ranking term.

use anyo_core::{
    eval::NO_ITEM,
    parallel::{SendPtr, for_each_chunk, for_each_part},
    torch::raw,
};
use anyo_student::{
    loss::{Head, LossGrad, axpy, dot},
    seen::Seen,
};
use tch::{Device, Kind, Tensor};

/// Items of each target. N targets, M places each, those behind the last item [`NO_ITEM`].
#[derive(Debug, Clone, Copy)]
pub struct Items<'a> {
    /// `[N · M]`.
    pub items: &'a [u32],
    /// M.
    pub per_target: usize,
    /// What each target's sequence holds, read where the head has a number for it.
    pub seen: &'a Seen,
}

/// The loss of one target: gets its number, the scores of its items and room for the loss's derivative by each (zeros);
/// returns the loss.
pub type OfRow<'a> = dyn Fn(usize, &[f32], &mut [f32]) -> f64 + Sync + 'a;

/// Adds the losses of all targets and their gradients, times `scale`, to `total`; returns the sum of the losses, which is
/// not added. states `[N, D]` without a graph. Targets without items are passed over.
pub fn add(
    total: &mut LossGrad,
    states: &Tensor,
    head: &Head,
    items: Items<'_>,
    scale: f64,
    of_row: &OfRow<'_>,
) -> f64 {
    let _guard = tch::no_grad_guard();
    if items.per_target == 0 || items.items.is_empty() {
        return 0.0;
    }
    let plain =
        raw::is_plain::<f32>(states) && raw::is_plain::<f32>(&head.weight) && raw::is_plain::<f32>(&total.weight);
    if plain {
        return on_cpu(total, states, head, items, scale, of_row);
    }
    // Elsewhere the few scores do not pay for a form of their own: there and back.
    let device = states.device();
    let host = |t: &Tensor| t.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
    let (states, head) = (
        host(states),
        Head {
            weight: host(&head.weight),
            bias: head.bias.as_ref().map(host),
            seen_bias: head.seen_bias.as_ref().map(host),
        },
    );
    let mut found = LossGrad::zeros(&states, &head);
    let sum = on_cpu(&mut found, &states, &head, items, scale, of_row);
    total.states += found.states.to_device(device);
    total.weight += found.weight.to_device(device);
    if let (Some(mine), Some(theirs)) = (total.bias.as_mut(), found.bias) {
        *mine += theirs.to_device(device);
    }
    if let (Some(mine), Some(theirs)) = (total.seen_bias.as_mut(), found.seen_bias) {
        *mine += theirs;
    }
    sum
}

fn on_cpu(total: &mut LossGrad, states: &Tensor, head: &Head, items: Items<'_>, scale: f64, of_row: &OfRow<'_>) -> f64 {
    const ROWS: usize = 64;
    let (m, d) = (items.per_target, states.size()[1] as usize);
    let states = states.contiguous();
    let (h, weight) = (raw::slice::<f32>(&states), raw::slice::<f32>(&head.weight));
    let bias = head.bias.as_ref().map(raw::slice::<f32>);
    let seen = head.seen_value().map(|value| (value, seen_flags(items, weight.len() / d)));
    let mut by_score = vec![0f32; items.items.len()];
    let mut losses = vec![0f64; items.items.len() / m];
    let losses_at = SendPtr(losses.as_mut_ptr());
    let grad_at = SendPtr(raw::slice_mut::<f32>(&mut total.states).as_mut_ptr());
    for_each_chunk(&mut by_score, ROWS * m, |part, block| {
        let mut scores = vec![0f32; m];
        for (i, by_score) in block.chunks_exact_mut(m).enumerate() {
            let row = part * ROWS + i;
            let list = &items.items[row * m..(row + 1) * m];
            let len = list.iter().position(|&item| item == NO_ITEM).unwrap_or(m);
            if len == 0 {
                continue;
            }
            let state = &h[row * d..(row + 1) * d];
            for (j, (score, &item)) in scores.iter_mut().zip(&list[..len]).enumerate() {
                let item = item as usize;
                *score = dot(state, &weight[item * d..(item + 1) * d]) + bias.map_or(0.0, |b| b[item]);
                if let Some((value, flags)) = &seen
                    && flags[row * m + j]
                {
                    *score += value;
                }
            }
            let loss = of_row(row, &scores[..len], &mut by_score[..len]);
            // SAFETY: each row of the gradient, and each row's loss, belongs to one part.
            let grad = unsafe {
                *losses_at.at(row) = loss;
                std::slice::from_raw_parts_mut(grad_at.at(row * d), d)
            };
            for (g, &item) in by_score[..len].iter_mut().zip(&list[..len]) {
                *g *= scale as f32;
                if *g != 0.0 {
                    axpy(grad, *g, &weight[item as usize * d..(item as usize + 1) * d]);
                }
            }
        }
    });
    scatter(total, h, items, d, &by_score);
    if let (Some((_, flags)), Some(grad)) = (&seen, total.seen_bias.as_mut()) {
        let flagged = by_score.iter().zip(flags).filter(|(_, flag)| **flag);
        *grad += SEEN_SCALE * flagged.map(|(g, _)| f64::from(*g)).sum::<f64>();
    }
    losses.iter().sum()
}

/// What the student multiplies its number for seen items by.
const SEEN_SCALE: f64 = anyo_student::seen::SEEN_SCALE;

/// Whether each place's item is one that its target's sequence holds, `[N · M]`.
fn seen_flags(items: Items<'_>, n_items: usize) -> Vec<bool> {
    let mut marks = vec![0u32; n_items];
    let mut flags = vec![false; items.items.len()];
    for (row, (flags, list)) in
        flags.chunks_exact_mut(items.per_target).zip(items.items.chunks_exact(items.per_target)).enumerate()
    {
        if list.first() == Some(&NO_ITEM) {
            continue;
        }
        let mark = row as u32 + 1;
        items.seen.row(row).iter().for_each(|&item| marks[item as usize] = mark);
        for (flag, &item) in flags.iter_mut().zip(list) {
            *flag = marks.get(item as usize) == Some(&mark);
        }
    }
    flags
}

/// Adds `by_score × state` to the rows of the items. Parts own columns, so the order of the additions, hence the result,
/// is the same on any number of threads.
fn scatter(total: &mut LossGrad, h: &[f32], items: Items<'_>, d: usize, by_score: &[f32]) {
    const COLUMNS: usize = 64;
    let m = items.per_target;
    let grad_at = SendPtr(raw::slice_mut::<f32>(&mut total.weight).as_mut_ptr());
    for_each_part(d.div_ceil(COLUMNS), |part| {
        let columns = part * COLUMNS..((part + 1) * COLUMNS).min(d);
        for (row, (group, list)) in by_score.chunks_exact(m).zip(items.items.chunks_exact(m)).enumerate() {
            let state = &h[row * d + columns.start..row * d + columns.end];
            for (&g, &item) in group.iter().zip(list) {
                if g != 0.0 {
                    // SAFETY: parts own disjoint columns; items with a gradient lie inside the table.
                    let grad = unsafe {
                        std::slice::from_raw_parts_mut(grad_at.at(item as usize * d + columns.start), columns.len())
                    };
                    axpy(grad, g, state);
                }
            }
        }
    });
    if let Some(bias) = total.bias.as_mut() {
        let bias = raw::slice_mut::<f32>(bias);
        for (&g, &item) in by_score.iter().zip(items.items) {
            if g != 0.0 {
                bias[item as usize] += g;
            }
        }
    }
}

/// `log(1 + e^x)` without overflow.
pub(crate) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// `1 / (1 + e^-x)`.
pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

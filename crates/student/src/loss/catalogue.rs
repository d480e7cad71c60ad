//! Losses over the whole catalogue in blocks of rows: cross-entropy and DROS's term.

use anyo_core::{parallel::sum_over_rows, torch::raw};
use tch::{Device, Kind, Tensor};

use super::{Head, LossGrad, OverCatalogue, Subset, Targets, kernel};
use crate::seen::SEEN_SCALE;

/// Scores held at once, in elements: 4 MB in f32, measured best of 1, 4 and 16 MB on two cores.
const BLOCK: usize = 1 << 20;
/// Rows that one thread takes at a time.
const ROWS: usize = 16;

/// Softmax cross-entropy against `positives` (`specs`: the loss of BERT4Rec and of SASRec with full softmax), or without
/// `own` that of a guest's slots alone.
pub(super) fn cross_entropy(
    states: &Tensor,
    head: &Head,
    targets: Targets<'_>,
    (inv_temperature, own): (f64, bool),
    scale: f64,
    over: &OverCatalogue<'_>,
) -> LossGrad {
    let n_items = head.weight.size()[0] as usize;
    blocks(states, head, targets, true, |start, scores, positives| {
        if !over.is_empty() || !own {
            on_host(scores, |scores| {
                sum_over_rows(scores, n_items, ROWS, Vec::new, |slots, at, row| {
                    let target = positives[at];
                    visit(over, start + at, row, slots);
                    if slots.is_empty() && own {
                        return kernel::cross_entropy_row(row, target as usize, scale as f32, inv_temperature as f32);
                    }
                    slots.insert(0, (target as u32, if own { 1.0 } else { 0.0 }));
                    let (loss, extra) =
                        kernel::cross_entropy_slots_row(row, slots, scale as f32, inv_temperature as f32);
                    tell(over, start + at, extra);
                    loss
                })
            })
        } else if raw::is_plain::<f32>(scores) {
            sum_over_rows(
                raw::slice_mut(scores),
                n_items,
                ROWS,
                || (),
                |(), at, row| {
                    kernel::cross_entropy_row(row, positives[at] as usize, scale as f32, inv_temperature as f32)
                },
            )
        } else {
            let target = Tensor::from_slice(positives).to_kind(Kind::Int64).to_device(scores.device()).unsqueeze(1);
            *scores *= inv_temperature;
            let log_p = scores.log_softmax(-1, Kind::Float);
            let loss = -log_p.gather(1, &target, false).sum(Kind::Double).double_value(&[]);
            let grad = log_p.exp().scatter_add(1, &target, &Tensor::full_like(&target, -1).to_kind(Kind::Float));
            scores.copy_(&(grad * (scale * inv_temperature)));
            loss
        }
    })
}

/// The cross-entropy of a guest's slots beside a loss that does not score the catalogue; a target without slots is not
/// scored, so that few labelled targets cost little.
pub(super) fn slots_alone(
    states: &Tensor,
    head: &Head,
    targets: Targets<'_>,
    inv_temperature: f64,
    scale: f64,
    over: &OverCatalogue<'_>,
) -> LossGrad {
    let (Some(fill), None) = (over.fill, over.look) else {
        return cross_entropy(states, head, targets, (inv_temperature, false), scale, over);
    };
    let slots_of = |at: usize| {
        let mut slots = Vec::new();
        fill(at, &mut slots);
        (at, slots)
    };
    let n = targets.positives.len();
    let filled: Vec<(usize, Vec<(u32, f32)>)> = (0..n).map(slots_of).filter(|(_, slots)| !slots.is_empty()).collect();
    if filled.is_empty() {
        return LossGrad::zeros(states, head);
    }
    let rows: Vec<usize> = filled.iter().map(|&(at, _)| at).collect();
    let fill = |row: usize, slots: &mut Vec<(u32, f32)>| slots.extend_from_slice(&filled[row].1);
    let told = |row: usize, loss: f64| tell(over, rows[row], loss);
    let over = OverCatalogue { fill: Some(&fill), told: Some(&told), ..*over };
    let form = (inv_temperature, false);
    if rows.len() == n {
        return cross_entropy(states, head, targets, form, scale, &over);
    }
    let some = Subset::new(states, targets, &rows);
    let mut grad = cross_entropy(&some.states, head, some.targets(), form, scale, &over);
    grad.states = states.zeros_like().index_copy(0, &some.places, &grad.states);
    grad
}

/// DROS's term over the catalogue (`specs/dllm2rec.md` section 2), through log-sum-exp.
///
/// Differs: the released code subtracts the positive's summand and adds it anew under one logarithm, which cancels and
/// overflows; here the positive's score is shifted before the one sum.
pub(super) fn dros(
    states: &Tensor,
    head: &Head,
    targets: Targets<'_>,
    (propensity, beta): (&[f32], f64),
    scale: f64,
    over: &OverCatalogue<'_>,
) -> LossGrad {
    let n_items = head.weight.size()[0] as usize;
    blocks(states, head, targets, true, |start, scores, positives| {
        if !over.is_empty() {
            let scratch = || (vec![0.0; n_items], Vec::new());
            on_host(scores, |scores| {
                sum_over_rows(scores, n_items, ROWS, scratch, |(work, slots), at, row| {
                    let (target, beta, scale) = (positives[at], beta as f32, scale as f32);
                    visit(over, start + at, row, slots);
                    if slots.is_empty() {
                        return kernel::dros_row(row, propensity, target as usize, beta, scale, work);
                    }
                    slots.insert(0, (target as u32, 1.0));
                    let (loss, extra) = kernel::dros_slots_row(row, propensity, slots, beta, scale, work);
                    tell(over, start + at, extra);
                    loss
                })
            })
        } else if raw::is_plain::<f32>(scores) {
            sum_over_rows(
                raw::slice_mut(scores),
                n_items,
                ROWS,
                || vec![0.0; n_items],
                |work, at, row| {
                    kernel::dros_row(row, propensity, positives[at] as usize, beta as f32, scale as f32, work)
                },
            )
        } else {
            let device = scores.device();
            let target = Tensor::from_slice(positives).to_kind(Kind::Int64).to_device(device).unsqueeze(1);
            let shifted = scores.scatter_add(1, &target, &Tensor::full_like(&target, -1).to_kind(Kind::Float));
            let p = Tensor::from_slice(propensity).to_device(device) / beta;
            let a = &shifted * &shifted * &p;
            let loss = a.logsumexp([-1i64], false).sum(Kind::Double).double_value(&[]);
            scores.copy_(&(a.softmax(-1, Kind::Float) * shifted * p * (2.0 * scale)));
            loss
        }
    })
}

/// Shows every target's scores over the catalogue to `over.look`; a pass of its own, in blocks.
pub fn scan(states: &Tensor, head: &Head, targets: Targets<'_>, over: &OverCatalogue<'_>) {
    let Some(look) = over.look else { return };
    let _guard = tch::no_grad_guard();
    let n_items = head.weight.size()[0] as usize;
    let _ = blocks(states, head, targets, false, |start, scores, _| {
        on_host(scores, |scores| {
            sum_over_rows(
                scores,
                n_items,
                ROWS,
                || (),
                |(), at, row| {
                    look(start + at, row);
                    0.0
                },
            )
        })
    });
}

/// The guest's look at a row, then its slots.
fn visit(over: &OverCatalogue<'_>, at: usize, row: &[f32], slots: &mut Vec<(u32, f32)>) {
    if let Some(look) = over.look {
        look(at, row);
    }
    slots.clear();
    if let Some(fill) = over.fill {
        fill(at, slots);
    }
}

fn tell(over: &OverCatalogue<'_>, at: usize, loss: f64) {
    if let Some(told) = over.told {
        told(at, loss);
    }
}

/// Calls `body` with the scores as a slice; those of another device go to the CPU and come back, for guests are at home
/// there.
fn on_host(scores: &mut Tensor, body: impl FnOnce(&mut [f32]) -> f64) -> f64 {
    if raw::is_plain::<f32>(scores) {
        return body(raw::slice_mut(scores));
    }
    let mut host = scores.to_device(Device::Cpu).contiguous();
    let sum = body(raw::slice_mut(&mut host));
    scores.copy_(&host);
    sum
}

/// Goes through the targets in blocks: `step` (first target, scores, target items) turns a block of scores into its
/// gradient and returns the loss; without `backward` nothing becomes of what it leaves.
fn blocks(
    states: &Tensor,
    head: &Head,
    targets: Targets<'_>,
    backward: bool,
    mut step: impl FnMut(usize, &mut Tensor, &[i32]) -> f64,
) -> LossGrad {
    let n_items = head.weight.size()[0];
    let Targets { positives, seen } = targets;
    let n = positives.len();
    let seen_value = head.seen_value();
    let rows = (BLOCK / n_items as usize).clamp(16, 4096).min(n.max(1));
    let mut total = if backward { LossGrad::zeros(states, head) } else { LossGrad::nothing() };
    let mut buffer = Tensor::empty([rows as i64, n_items], (Kind::Float, states.device()));
    let weight_t = head.weight.detach().transpose(0, 1);
    for start in (0..n).step_by(rows) {
        let len = rows.min(n - start) as i64;
        let block = states.narrow(0, start as i64, len);
        let mut scores = buffer.narrow(0, 0, len);
        let _ = match &head.bias {
            Some(bias) => bias.detach().f_addmm_out(&scores, &block, &weight_t),
            None => block.f_mm_out(&scores, &weight_t),
        };
        if let Some(value) = seen_value {
            seen.add(&scores, start, value);
        }
        total.sum += step(start, &mut scores, &positives[start..start + len as usize]);
        if !backward {
            continue;
        }
        if let Some(grad) = total.seen_bias.as_mut() {
            *grad += SEEN_SCALE * seen.sum(&scores, start);
        }
        let _ = scores.f_mm_out(&total.states.narrow(0, start as i64, len), &head.weight.detach());
        let _ = total.weight.addmm_(&scores.transpose(0, 1), &block);
        if let Some(bias) = total.bias.as_mut() {
            *bias += scores.sum_dim_intlist([0i64].as_slice(), false, Kind::Float);
        }
    }
    drop(std::mem::replace(&mut buffer, Tensor::new()));
    total
}

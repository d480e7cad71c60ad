//! One micro-batch: forward pass, both losses, gradients.

use std::{rc::Rc, time::Instant};

use anyo_core::{
    Result,
    seed::{self, Stream},
    torch::Gradients,
};
use anyo_lm::{
    Causal, DropoutStream, Pass,
    train::{CrossEntropy, HeadWeight, IGNORE, TokenLoss},
};
use tch::{Kind, Tensor};

use super::{TeacherSetup, TrainRows, curriculum::Drawn};
use crate::{
    gate::{Gate, GateMode, GateStats, row_key},
    head::Aim,
    model::{Prepared, Sequence, Side, Teacher},
    tokens::{PromptMode, Prompted},
};

/// Tells the gate's noise from the adapters' dropout, which has the same stream.
const GATE: u64 = 0x6761_7465;
/// And of the items that go without encoder vectors.
const HEAD: u64 = 0x6865_6164;

/// Rows with their prompts, before the model sees them.
pub(super) struct Micro {
    /// Its number in the epoch.
    pub(super) number: u64,
    pub(super) ids: Vec<u32>,
    pub(super) prompts: Vec<Rc<Prompted>>,
    pub(super) drawn: Drawn,
}

/// How a step's losses are weighed: the gradient is that of the means over the whole step, however it is cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weights {
    /// Micro-batches of the step.
    pub(super) n_micro: f64,
    /// Tokens with a target in the step.
    pub(super) tokens: f64,
    /// Rows without candidates in the step.
    pub(super) open_rows: f64,
    /// Of the language model's loss where no candidates are listed.
    pub(super) open_lm: f64,
    /// Of the head's loss; 0 without a head.
    pub(super) head: f64,
}

/// What all micro-batches of a step share.
pub(super) struct Step<'a> {
    pub(super) teacher: &'a Teacher,
    pub(super) setup: &'a TeacherSetup<'a>,
    pub(super) rows: &'a TrainRows<'a>,
    /// Encoder states of all training rows `[N,d]`.
    pub(super) states: &'a Tensor,
    pub(super) epoch: u64,
    pub(super) weights: Weights,
}

/// Sums over the micro-batches of a step.
#[derive(Debug, Clone, Default)]
pub(super) struct Sums {
    pub(super) lm_loss: f64,
    pub(super) lm_targets: u64,
    pub(super) head_loss: f64,
    pub(super) head_rows: u64,
    /// Sum of the rows' `KL(list ‖ head)`.
    pub(super) soft_kl: f64,
    pub(super) balance: f64,
    pub(super) tokens: u64,
    pub(super) rows: u64,
    pub(super) hybrid: u64,
    pub(super) choice: u64,
    pub(super) lm_seconds: f64,
    pub(super) gates: GateStats,
}

impl Micro {
    /// Whether the language model's loss counts here.
    pub(super) fn learns_answer(&self, open_lm: f64) -> bool {
        self.drawn.choice || open_lm > 0.0
    }

    /// Adds this micro-batch's gradients.
    pub(super) fn run(&self, step: &Step<'_>, gradients: &mut Gradients, sums: &mut Sums) -> Result<()> {
        let &Step { teacher, setup, rows, states, epoch, ref weights } = step;
        let places: Vec<i64> = self.ids.iter().map(|&id| i64::from(id)).collect();
        let own = states.f_index_select(0, &Tensor::f_from_slice(&places)?)?; // [B,d]
        let keys: Vec<u64> = self.ids.iter().map(|&id| row_key(rows.history(id as usize))).collect();
        let noise = seed::derive(setup.seed ^ GATE, Stream::Dropout, epoch, self.number);
        let gate = teacher.gate(&own, &keys, GateMode::Train(noise))?; // [B,E]
        let answers = self.learns_answer(weights.open_lm);
        let sequences: Vec<Sequence<'_>> = self
            .ids
            .iter()
            .zip(&self.prompts)
            .map(|(&id, prompt)| Sequence {
                prompt,
                answer: if answers { setup.prompts.answer(rows.target(id as usize)) } else { &[] },
            })
            .collect();
        let prepared = teacher.prepare(&sequences, Side::Right)?;
        let targets: Vec<u32> = self.ids.iter().map(|&id| rows.target(id as usize)).collect();
        let stream = DropoutStream::new(seed::derive(setup.seed, Stream::Dropout, epoch, self.number));
        let started = Instant::now();
        let head_seed = seed::derive(setup.seed ^ HEAD, Stream::Dropout, epoch, self.number);
        let aim = setup.soft.map(|soft| soft.aim(self.ids.iter().map(|&id| rows.row(id as usize))));
        let (prepared, targets) = (&prepared, &targets);
        let work = Work { micro: self, teacher, prepared, targets, aim, weights, head_seed };
        let (loss, grads) = match setup.config.train.checkpointing {
            true => work.checkpointed(gate.as_ref(), stream, sums)?,
            false => work.plain(gate.as_ref(), stream, sums)?,
        };
        sums.lm_seconds += started.elapsed().as_secs_f64();
        gradients.add_given(&Tensor::from(loss * weights.n_micro), 1.0, grads)?;
        if let Some(gate) = &gate {
            sums.gates.add(gate)?;
        }
        sums.tokens += prepared.layout.n_tokens as u64;
        sums.rows += self.ids.len() as u64;
        sums.hybrid += u64::from(self.drawn.mode == PromptMode::Hybrid);
        sums.choice += u64::from(self.drawn.choice);
        Ok(())
    }
}

/// Loss and gradients of one prepared micro-batch.
struct Work<'a> {
    micro: &'a Micro,
    teacher: &'a Teacher,
    prepared: &'a Prepared,
    targets: &'a [u32],
    aim: Option<Aim<'a>>,
    weights: &'a Weights,
    head_seed: u64,
}

/// Places with a target, and the last of each prompt where the head ranks.
struct Wanted {
    /// Flat places `[P]`, ascending.
    places: Vec<i64>,
    /// Their targets, [`IGNORE`] where none.
    targets: Vec<i64>,
    /// Which of them are the last of a prompt `[B]`; empty where the head has nothing to do.
    last: Vec<i64>,
}

/// The loss's share of the step's mean, and the gradient of each trainable weight times the number of micro-batches, as
/// [`Gradients`] wants the means of equally large parts.
type Found = (f64, Vec<Option<Tensor>>);

impl Work<'_> {
    fn inputs(&self) -> Vec<Tensor> {
        self.teacher.params().trainable().map(|(_, t)| t.shallow_clone()).collect()
    }

    /// Everything recorded by autograd.
    fn plain(&self, gate: Option<&Tensor>, stream: DropoutStream, sums: &mut Sums) -> Result<Found> {
        let wanted = self.wanted();
        let states = self.teacher.states_at(self.prepared, gate, Some(stream), &wanted.places)?; // [P,D]
        let (mut loss, mut roots) = self.losses(&states, &wanted, sums)?;
        self.balance(gate, &mut loss, &mut roots, sums)?;
        Ok((loss, backward(&roots, &self.inputs())?))
    }

    /// Each layer computed again in the backward pass: autograd sees one layer at a time, then the losses' heads, and at the
    /// end what made the embedded input and the gate.
    fn checkpointed(&self, gate: Option<&Tensor>, stream: DropoutStream, sums: &mut Sums) -> Result<Found> {
        let lm = self.teacher.lm();
        let leaf = gate.map(|g| g.f_detach()?.f_set_requires_grad(true)).transpose()?;
        let pass = Pass { dropout: Some(stream), gate: leaf.as_ref(), ..Pass::default() };
        let saved = lm.forward_checkpointed(&self.prepared.input, &pass)?;
        let width = lm.config().hidden_size as i64;
        let hidden = saved.hidden.shallow_clone();
        let wanted = self.wanted();
        let states = hidden.f_reshape([-1, width])?.f_index_select(0, &self.teacher.places(&wanted.places)?)?;
        let (mut loss, roots) = self.losses(&states, &wanted, sums)?;
        let inputs = self.inputs();
        let own = inputs.iter().chain([&hidden]).map(Tensor::shallow_clone).collect::<Vec<_>>();
        let mut grads = backward(&roots, &own)?;
        let Some(at_hidden) = grads.pop().flatten() else { return Ok((loss, grads)) };
        let wanted: Vec<Tensor> = inputs.iter().chain(&leaf).map(Tensor::shallow_clone).collect();
        let (mut through, at_input) = lm.backward_from(saved, &at_hidden, &wanted, &pass)?;
        let at_gate = if leaf.is_some() { through.pop().flatten() } else { None };
        let mut roots = Vec::new();
        if let Some(embedded) = self.prepared.input.embeddings.as_ref().filter(|e| e.requires_grad()) {
            roots.push(embedded.f_reshape(-1)?.f_dot(&at_input.f_reshape(-1)?)?.f_to_kind(Kind::Float)?);
        }
        if let (Some(gate), Some(at_gate)) = (gate.filter(|g| g.requires_grad()), at_gate) {
            roots.push(gate.f_reshape(-1)?.f_dot(&at_gate.f_reshape(-1)?)?);
        }
        self.balance(gate, &mut loss, &mut roots, sums)?;
        let last = backward(&roots, &inputs)?;
        for found in [through, last] {
            for (sum, grad) in grads.iter_mut().zip(found) {
                *sum = match (sum.take(), grad) {
                    (Some(a), Some(b)) => Some(a.f_add(&b)?),
                    (a, b) => a.or(b),
                };
            }
        }
        Ok((loss, grads))
    }

    /// The places that a loss reads.
    fn wanted(&self) -> Wanted {
        let layout = &self.prepared.layout;
        let ranks = self.teacher.head().is_some() && !self.micro.drawn.choice && self.weights.head > 0.0;
        let mut wanted = Wanted { places: Vec::new(), targets: Vec::new(), last: Vec::new() };
        for (place, &target) in (0i64..).zip(&layout.targets) {
            // `last` ascends with the rows.
            let is_last = ranks && layout.last.get(wanted.last.len()) == Some(&place);
            if is_last {
                wanted.last.push(wanted.places.len() as i64);
            }
            if is_last || target != IGNORE {
                wanted.places.push(place);
                wanted.targets.push(target);
            }
        }
        wanted
    }

    /// Both losses on the states `[P,D]` of the wanted places: their share of the step's mean, and what to differentiate.
    fn losses(&self, states: &Tensor, wanted: &Wanted, sums: &mut Sums) -> Result<(f64, Vec<Tensor>)> {
        let (layout, w) = (&self.prepared.layout, self.weights);
        let (mut loss, mut roots) = (0.0, Vec::new());
        if layout.n_targets > 0 && w.tokens > 0.0 {
            let weight = if self.micro.drawn.choice { 1.0 } else { w.open_lm };
            let scale = weight * w.n_micro / w.tokens;
            let found = self.token_loss(states, &wanted.targets, scale)?;
            let sum = found.sum.f_double_value(&[])?;
            loss += sum * weight / w.tokens;
            sums.lm_loss += sum;
            sums.lm_targets += layout.n_targets as u64;
            roots.push(found.surrogate(states, None)?.f_to_kind(Kind::Float)?);
        }
        if let Some(head) = self.teacher.head().filter(|_| !self.micro.drawn.choice && w.head > 0.0) {
            let last = states.f_index_select(0, &self.teacher.places(&wanted.last)?)?; // [B,D]
            let scale = w.head * w.n_micro / w.open_rows;
            let found = head.loss(&last, self.targets, self.aim.as_ref(), scale, self.head_seed)?;
            let sum = found.sum.f_double_value(&[])?;
            loss += sum * w.head / w.open_rows;
            sums.head_loss += sum;
            sums.soft_kl += found.kl.unwrap_or(0.0);
            sums.head_rows += self.targets.len() as u64;
            roots.push(found.surrogate);
        }
        Ok((loss, roots))
    }

    fn token_loss(&self, states: &Tensor, targets: &[i64], scale: f64) -> Result<TokenLoss> {
        let (loss, lm) = (CrossEntropy::plain(), self.teacher.lm());
        match self.teacher.lm_head() {
            HeadWeight::Dense(weight) => loss.grad(states, weight, targets, scale, false),
            HeadWeight::Model => loss.grad_through(states, targets, &[], scale, lm.vocab_size(), |x| lm.logits(x)),
        }
    }

    fn balance(&self, gate: Option<&Tensor>, loss: &mut f64, roots: &mut Vec<Tensor>, sums: &mut Sums) -> Result<()> {
        let weight = self.teacher.balance_weight();
        if let Some(gate) = gate.filter(|g| weight > 0.0 && g.requires_grad()) {
            let term = Gate::load_balance(gate)?;
            let value = term.f_double_value(&[])?;
            *loss += weight * value / self.weights.n_micro;
            sums.balance += value;
            roots.push(term.f_mul_scalar(weight)?);
        }
        Ok(())
    }
}

/// Gradients of the sum of `roots`; `None` where there is none.
fn backward(roots: &[Tensor], inputs: &[Tensor]) -> Result<Vec<Option<Tensor>>> {
    let mut total: Option<Tensor> = None;
    for root in roots.iter().filter(|root| root.requires_grad()) {
        total = Some(match total {
            Some(total) => total.f_add(root)?,
            None => root.shallow_clone(),
        });
    }
    let Some(total) = total else { return Ok(inputs.iter().map(|_| None).collect()) };
    let found = Tensor::f_run_backward(&[total], inputs, false, false)?;
    Ok(found.into_iter().map(|g| g.defined().then_some(g)).collect())
}

//! A student as a TorchScript program, made by recording the operations of one pass.

use std::collections::BTreeMap;

use anyo_core::{Error, Result};
use tch::{CModule, Device, Kind, Tensor};

use super::{
    networks::{Weights, newest, pad_of},
    window::{Window, add_to_seen, real_lengths},
};
use crate::{config::StudentConfig, loss::Head, student::Student};

/// What a program answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Scores of all items, `[B, n_items]`.
    Scores,
    /// The state that is multiplied with the item matrix, `[B, D]`.
    State,
}

/// A student's weights and head on the CPU without gradients, ready to be recorded.
pub(super) struct Recorder<'a> {
    config: &'a StudentConfig,
    n_items: i64,
    max_len: i64,
    weights: Weights,
    head: Head,
    seen_value: Option<f32>,
}

impl<'a> Recorder<'a> {
    /// # Errors
    /// For a recommender without weights.
    pub(super) fn new(config: &'a StudentConfig, student: &Student, n_items: usize) -> Result<Self> {
        let recipe = config.recipe().ok_or_else(|| super::networks::no_weights(config))?;
        let plain = |t: &Tensor| -> Result<Tensor> { Ok(t.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?) };
        let mut weights = BTreeMap::new();
        let head = student.network.head();
        let mut head_weight = None;
        for (name, tensor) in student.params.named() {
            let copy = plain(tensor)?;
            if tensor.data_ptr() == head.weight.data_ptr() && tensor.size() == head.weight.size() {
                // one tensor for both uses: it is stored once
                head_weight = Some(copy.shallow_clone());
            }
            weights.insert(name.to_owned(), copy);
        }
        let seen_value = head.seen_value();
        let weight = head_weight.map_or_else(|| plain(&head.weight), Ok)?;
        let head = Head { weight, bias: head.bias.as_ref().map(plain).transpose()?, seen_bias: None };
        let max_len = recipe.max_len as i64;
        Ok(Self { config, n_items: n_items as i64, max_len, weights: Weights(weights), head, seen_value })
    }

    /// The item matrix and the items' biases.
    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    /// What is added to the score of an item that the history holds.
    pub(super) fn seen_value(&self) -> Option<f32> {
        self.seen_value
    }

    /// ids `[B, W]`, lengths `[B]`, both int64.
    fn answer(&self, ids: &Tensor, lengths: &Tensor, answer: Answer) -> Result<Tensor> {
        let lengths = real_lengths(ids, lengths);
        let pad = pad_of(self.config, self.n_items)?;
        let window = Window::new(ids, &lengths, self.max_len, pad);
        let states = newest(self.config, &self.weights, &window)?;
        if answer == Answer::State {
            return Ok(states);
        }
        let scores = self.head.scores(&states);
        Ok(match self.seen_value {
            Some(value) => add_to_seen(&scores, ids, &lengths, self.n_items, value),
            None => scores,
        })
    }

    /// The program, with the method `forward(item_ids, lengths)`.
    ///
    /// # Errors
    /// When libtorch cannot record it.
    pub(super) fn record(&self, answer: Answer) -> Result<CModule> {
        let _guard = tch::no_grad_guard();
        let ids = Tensor::zeros([2, 3], (Kind::Int64, Device::Cpu));
        let lengths = Tensor::from_slice(&[3i64, 1]);
        // once without recording: a mistake must not leave a recording half begun
        let _ = self.answer(&ids, &lengths, answer)?;
        let mut failed = None;
        let mut body = |inputs: &[Tensor]| match self.answer(&inputs[0], &inputs[1], answer) {
            Ok(out) => vec![out],
            Err(error) => {
                failed = Some(error);
                Vec::new()
            }
        };
        let mut module = CModule::create_by_tracing("AnyoStudent", "forward", &[ids, lengths], &mut body)?;
        if let Some(error) = failed {
            return Err(error);
        }
        module.f_set_eval()?;
        Ok(module)
    }
}

/// Histories as a program takes them, padded at the end with `pad_id`: ids `[B, W]` and lengths `[B]`.
pub(super) fn program_input(histories: &[&[u32]], pad_id: i64) -> Result<[Tensor; 2]> {
    let width = histories.iter().map(|h| h.len()).max().unwrap_or(0).max(1);
    let mut ids = vec![pad_id; histories.len() * width];
    for (row, history) in ids.chunks_exact_mut(width).zip(histories) {
        row.iter_mut().zip(*history).for_each(|(id, &item)| *id = i64::from(item));
    }
    let lengths: Vec<i64> = histories.iter().map(|h| h.len() as i64).collect();
    let ids = Tensor::f_from_slice(&ids)?.f_view([histories.len() as i64, width as i64])?;
    Ok([ids, Tensor::f_from_slice(&lengths)?])
}

/// The largest difference of two answers of one shape, in units of the larger of 1 and the largest number of `want`.
pub(super) fn difference(got: &Tensor, want: &Tensor) -> Result<f64> {
    if got.size() != want.size() {
        return Err(Error::invalid(format!("shape {:?}, wanted {:?}", got.size(), want.size())));
    }
    let largest = |x: &Tensor| -> Result<f64> { Ok(x.f_abs()?.f_max()?.f_double_value(&[])?) };
    if want.numel() == 0 {
        return Ok(0.0);
    }
    // NaN is neither below nor above a limit: say infinity
    let gap = largest(&got.f_sub(want)?)? / largest(want)?.max(1.0);
    Ok(if gap.is_nan() { f64::INFINITY } else { gap })
}

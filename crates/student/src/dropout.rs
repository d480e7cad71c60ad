//! Whether a pass trains, and its dropout.

use anyo_core::torch::DropoutStream;
use tch::Tensor;

/// Whether a forward pass trains.
#[derive(Debug)]
pub enum Mode {
    /// No dropout.
    Eval,
    /// Dropout from this stream.
    Train(DropoutStream),
}

impl Mode {
    /// Training with masks derived from `seed`.
    pub fn train(seed: u64) -> Self {
        Self::Train(DropoutStream::new(seed))
    }

    /// Zeroes each element of `x` with probability `p` and scales the others by `1 / (1 - p)`.
    pub fn dropout(&self, x: &Tensor, p: f64) -> Tensor {
        match self.mask(x, p) {
            Some(mask) => x * mask,
            None => x.shallow_clone(),
        }
    }

    /// `residual` plus the dropout of `x`, in one pass over both.
    pub fn add_dropped(&self, residual: &Tensor, x: &Tensor, p: f64) -> Tensor {
        match self.mask(x, p) {
            Some(mask) => residual.addcmul(x, &mask),
            None => residual + x,
        }
    }

    /// The factors that [`Self::dropout`] would multiply by; `None` when nothing is dropped.
    pub fn mask(&self, like: &Tensor, p: f64) -> Option<Tensor> {
        let Self::Train(stream) = self else { return None };
        (p > 0.0).then(|| stream.mask(like, p))
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn both_forms_drop_the_same_and_eval_nothing() {
        let x = Tensor::ones([1000, 100], (Kind::Float, Device::Cpu));
        for p in [0.1, 0.5, 0.9] {
            let mode = Mode::train(7);
            let (first, second) = (mode.dropout(&x, p), mode.dropout(&x, p));
            let mean = first.mean(Kind::Double).double_value(&[]);
            assert!((mean - 1.0).abs() < 0.02, "{p}: {mean}");
            assert_ne!(first, second);
            assert_eq!(Mode::train(7).dropout(&x, p), first);
            assert_eq!(Mode::train(7).add_dropped(&x, &x, p), &x + &first);
        }
        assert_eq!(Mode::train(7).dropout(&x, 0.0), x);
        assert_eq!(Mode::Eval.dropout(&x, 0.5), x);
        assert_eq!(Mode::Eval.add_dropped(&x, &x, 0.5), &x + &x);
    }
}

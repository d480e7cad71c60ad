//! The weights that a training changes: f32 masters for the optimizer, and the tensors the model computes with.

use std::collections::HashMap;

use anyo_core::{Error, Result, torch::Params};
use tch::{Device, Kind, Tensor, no_grad};

/// Trainable weights in a fixed order.
///
/// For f32 tensors master and model share their memory. For bf16 and f16 tensors the master is an f32 copy, written back
/// after each update, so that changes below the half precision's last digit add up instead of being lost.
#[derive(Debug)]
pub struct Trainable {
    params: Params,
    /// What the model computes with, in the order of [`Params::trainable`].
    leaves: Vec<Tensor>,
}

impl Trainable {
    /// Makes `tensors`, handles of a model's or adapter's weights, trainable in place.
    ///
    /// The handles must be those that the model uses (`shallow_clone` keeps that): f32 ones are moved to the masters'
    /// memory through them.
    ///
    /// # Errors
    /// When a name comes twice, two names share memory, or a tensor is not of a floating type.
    pub fn adopt(tensors: impl IntoIterator<Item = (String, Tensor)>, device: Device) -> Result<Self> {
        let tensors: Vec<(String, Tensor)> = tensors.into_iter().collect();
        // Before anything moves: afterwards two handles of one tensor show the same new memory.
        let mut seen = HashMap::new();
        for (name, leaf) in tensors.iter().filter(|(_, leaf)| leaf.numel() > 0) {
            if let Some(other) = seen.insert(leaf.data_ptr() as usize, name) {
                return Err(Error::invalid(format!(
                    "`{name}` and `{other}` are the same memory; name tied weights once"
                )));
            }
        }
        let (mut params, mut leaves) = (Params::new(device), Vec::with_capacity(tensors.len()));
        for (name, mut leaf) in tensors {
            if !matches!(leaf.kind(), Kind::Float | Kind::BFloat16 | Kind::Half) {
                let message = format!("`{name}` of type {:?} cannot be trained; wanted f32, bf16 or f16", leaf.kind());
                return Err(Error::Invalid { message, hint: Some("train adapters on a quantised base".into()) });
            }
            let master = params.add(name, leaf.f_detach()?.f_to_kind(Kind::Float)?, true)?;
            if leaf.kind() == Kind::Float {
                no_grad(|| leaf.f_set_data(&master.f_detach()?))?;
            }
            leaves.push(leaf.f_set_requires_grad(true)?);
        }
        Ok(Self { params, leaves })
    }

    /// Weights whose model already holds the handles that [`Params::add`] gave it.
    pub fn of_params(params: Params) -> Self {
        let leaves = params.trainable().map(|(_, tensor)| tensor.shallow_clone()).collect();
        Self { params, leaves }
    }

    /// The masters, for optimizers and checkpoints.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// What gradients are taken by.
    pub fn leaves(&self) -> &[Tensor] {
        &self.leaves
    }

    /// Number of trainable elements.
    pub fn n_parameters(&self) -> usize {
        self.leaves.iter().map(Tensor::numel).sum()
    }

    /// Writes the masters into those leaves that are copies; call after masters changed.
    ///
    /// # Errors
    /// When a copy fails.
    pub fn sync(&self) -> Result<()> {
        no_grad(|| {
            for ((_, master), leaf) in self.params.trainable().zip(&self.leaves) {
                if leaf.data_ptr() != master.data_ptr() {
                    leaf.shallow_clone().f_copy_(master)?;
                }
            }
            Ok(())
        })
    }

    /// Ends the training: the leaves ask for no gradients any more.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn freeze(self) -> Result<()> {
        for leaf in &self.leaves {
            leaf.f_set_requires_grad(false).map(drop)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f32_shares_memory_and_bf16_has_a_master() {
        let model = Tensor::from_slice(&[1f32, 2.0]);
        let half = Tensor::from_slice(&[1f32]).to_kind(Kind::BFloat16);
        let all = [("a".to_owned(), model.shallow_clone()), ("b".to_owned(), half.shallow_clone())];
        let trainable = Trainable::adopt(all, Device::Cpu).unwrap();
        assert!(model.requires_grad() && half.requires_grad());
        assert_eq!(trainable.n_parameters(), 3);
        no_grad(|| {
            for (_, master) in trainable.params().trainable() {
                let _ = master.shallow_clone().f_add_scalar_(1e-3).unwrap();
            }
        });
        assert!((model.double_value(&[0]) - 1.001).abs() < 1e-6);
        trainable.sync().unwrap();
        // One step of bf16 at 1 is 2^-7: the change is lost in the leaf, but not in the master.
        assert_eq!(half.double_value(&[0]), 1.0);
        no_grad(|| {
            for _ in 0..7 {
                let _ = trainable.params().get("b").unwrap().shallow_clone().f_add_scalar_(1e-3).unwrap();
            }
        });
        trainable.sync().unwrap();
        assert_eq!(half.double_value(&[0]), 1.007_812_5);
        trainable.freeze().unwrap();
        assert!(!model.requires_grad());
    }

    #[test]
    fn shared_memory_and_codes_are_refused() {
        let model = Tensor::from_slice(&[1f32, 2.0]);
        let twice = ["a", "b"].map(|name| (name.to_owned(), model.shallow_clone()));
        assert!(Trainable::adopt(twice, Device::Cpu).unwrap_err().to_string().contains("same memory"));
        let codes = [("q".to_owned(), Tensor::from_slice(&[1u8]))];
        assert!(Trainable::adopt(codes, Device::Cpu).unwrap_err().to_string().contains("Uint8"));
    }
}

//! Named parameters and buffers in a fixed order.

use std::collections::{BTreeMap, HashMap};

use tch::{Device, Kind, Tensor, no_grad};

use super::Init;
use crate::{Error, Result};

/// What a named tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The optimizer changes it.
    Trainable,
    /// A weight that stays as it is.
    Frozen,
    /// Not a weight, but saved with them: running statistics.
    Buffer,
}

#[derive(Debug)]
struct Entry {
    name: String,
    tensor: Tensor,
    role: Role,
}

/// The weights of a model in the order in which they were added.
///
/// Models keep the [`Tensor`] handle that [`Params::add`] returns. Loading, restoring and the optimizer write into the
/// same memory, so handles stay valid for the life of the model.
#[derive(Debug)]
pub struct Params {
    device: Device,
    entries: Vec<Entry>,
    index: HashMap<String, usize>,
}

impl Params {
    /// No parameters yet; those added are moved to `device`.
    pub fn new(device: Device) -> Self {
        Self { device, entries: Vec::new(), index: HashMap::new() }
    }

    /// Where the parameters are.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Adds a weight and returns a handle to the same memory; `trainable` asks for gradients.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn add(&mut self, name: impl Into<String>, tensor: Tensor, trainable: bool) -> Result<Tensor> {
        self.push(name.into(), tensor, if trainable { Role::Trainable } else { Role::Frozen })
    }

    /// Adds a buffer: saved and loaded, never trained, not counted.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn add_buffer(&mut self, name: impl Into<String>, tensor: Tensor) -> Result<Tensor> {
        self.push(name.into(), tensor, Role::Buffer)
    }

    /// Adds a trainable weight of `shape`, drawn from `init` with a stream that depends on `seed` and the name only.
    ///
    /// # Errors
    /// When the name is taken or `init` does not fit the shape.
    pub fn create(&mut self, name: impl Into<String>, shape: &[i64], init: Init, seed: u64) -> Result<Tensor> {
        let name = name.into();
        let tensor = init.tensor(&name, shape, seed)?;
        self.push(name, tensor, Role::Trainable)
    }

    fn push(&mut self, name: String, tensor: Tensor, role: Role) -> Result<Tensor> {
        if self.index.contains_key(&name) {
            return Err(Error::invalid(format!("parameter `{name}` was added twice")));
        }
        // A copy of its own: two names must never share memory, or the optimizer would update it twice.
        let tensor = tensor
            .f_detach()?
            .f_to_device(self.device)?
            .f_contiguous()?
            .f_detach_copy()?
            .f_set_requires_grad(role == Role::Trainable)?;
        let handle = tensor.shallow_clone();
        self.index.insert(name.clone(), self.entries.len());
        self.entries.push(Entry { name, tensor, role });
        Ok(handle)
    }

    /// A handle to the tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.index.get(name).map(|&i| &self.entries[i].tensor)
    }

    /// All tensors, weights and buffers, with their names, in the order added.
    pub fn named(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|e| (e.name.as_str(), &e.tensor))
    }

    /// The trainable weights with their names, in the order added; optimizers and gradients use this order.
    pub fn trainable(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().filter(|e| e.role == Role::Trainable).map(|e| (e.name.as_str(), &e.tensor))
    }

    /// Role of the tensor called `name`.
    pub fn role(&self, name: &str) -> Option<Role> {
        self.index.get(name).map(|&i| self.entries[i].role)
    }

    /// Number of elements in all weights, trainable or frozen; buffers do not count.
    pub fn n_parameters(&self) -> usize {
        self.entries.iter().filter(|e| e.role != Role::Buffer).map(|e| e.tensor.numel()).sum()
    }

    /// Sets to zero what `backward()` left in the weights. Not needed with [`super::Gradients`], which never fills it.
    pub fn zero_grad(&self) {
        for entry in self.entries.iter().filter(|e| e.role == Role::Trainable) {
            entry.tensor.shallow_clone().zero_grad();
        }
    }

    /// Deep copy of all tensors on their device, for keeping the best weights.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn snapshot(&self) -> Result<BTreeMap<String, Tensor>> {
        no_grad(|| self.named().map(|(name, tensor)| Ok((name.to_owned(), tensor.f_detach()?.f_copy_out()?))).collect())
    }

    /// Overwrites every tensor with the one of the same name in `tensors`, on any device, of any float type.
    ///
    /// # Errors
    /// When names or shapes differ: one message lists every missing, unexpected and misshapen tensor; nothing is changed then.
    pub fn load(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        let mut lines = Vec::new();
        for (name, want) in self.named() {
            match tensors.get(name) {
                None => lines.push(format!("missing tensor `{name}`, shape {:?}", want.size())),
                Some(got) if got.size() != want.size() => lines.push(format!(
                    "tensor `{name}` has shape {:?}, the model needs {:?}",
                    got.size(),
                    want.size()
                )),
                Some(_) => {}
            }
        }
        let unexpected = tensors.iter().filter(|(name, _)| !self.index.contains_key(*name));
        lines.extend(unexpected.map(|(name, t)| format!("unexpected tensor `{name}`, shape {:?}", t.size())));
        if !lines.is_empty() {
            return Err(Error::Invalid {
                message: format!("the weights do not fit the model:\n  {}", lines.join("\n  ")),
                hint: Some("they were made with another dataset or other model settings; see their config.yaml".into()),
            });
        }
        no_grad(|| {
            for entry in &self.entries {
                if let Some(source) = tensors.get(&entry.name) {
                    entry.tensor.shallow_clone().f_copy_(source)?;
                }
            }
            Ok(())
        })
    }

    /// Copies all values from `other`, which must have the same names and shapes.
    ///
    /// # Errors
    /// As [`Params::load`].
    pub fn copy_from(&self, other: &Params) -> Result<()> {
        self.load(&other.named().map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone())).collect())
    }
}

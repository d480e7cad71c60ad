//! Named parameters and buffers in a fixed order.

use std::collections::{BTreeMap, HashMap};

use tch::{Device, Tensor, no_grad};

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
        no_grad(|| self.named().map(|(name, tensor)| Ok((name.to_owned(), tensor.f_detach_copy()?))).collect())
    }

    /// Overwrites every tensor with the one of the same name in `tensors`, on any device, of any float type.
    ///
    /// # Errors
    /// When names or shapes differ: one message lists every missing, unexpected and misshapen tensor; nothing is changed then.
    pub fn load(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        let lines = mismatches(self.named().map(|(name, tensor)| (name.to_owned(), tensor.size())), tensors);
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

/// One line for each tensor that is missing from `got`, unexpected in it, or of another shape than wanted.
pub(super) fn mismatches(
    want: impl Iterator<Item = (String, Vec<i64>)>,
    got: &BTreeMap<String, Tensor>,
) -> Vec<String> {
    let want: Vec<_> = want.collect();
    let mut lines = Vec::new();
    for (name, shape) in &want {
        match got.get(name).map(Tensor::size) {
            None => lines.push(format!("missing tensor `{name}`, shape {shape:?}")),
            Some(size) if size != *shape => {
                lines.push(format!("tensor `{name}` has shape {size:?}, the model needs {shape:?}"));
            }
            Some(_) => {}
        }
    }
    let known: std::collections::HashSet<&str> = want.iter().map(|(name, _)| name.as_str()).collect();
    let unexpected = got.iter().filter(|(name, _)| !known.contains(name.as_str()));
    lines.extend(unexpected.map(|(name, tensor)| format!("unexpected tensor `{name}`, shape {:?}", tensor.size())));
    lines
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    fn ones(shape: &[i64]) -> Tensor {
        Tensor::ones(shape, (Kind::Float, Device::Cpu))
    }

    fn two() -> Params {
        let mut params = Params::new(Device::Cpu);
        let _ = params.add("zeta", ones(&[2, 3]), true).unwrap();
        let _ = params.add("alpha", ones(&[4]), false).unwrap();
        let _ = params.add_buffer("mean", ones(&[5])).unwrap();
        params
    }

    #[test]
    fn order_roles_and_counts() {
        let params = two();
        let names: Vec<_> = params.named().map(|(name, _)| name).collect();
        assert_eq!(names, ["zeta", "alpha", "mean"]);
        assert_eq!(params.trainable().map(|(name, _)| name).collect::<Vec<_>>(), ["zeta"]);
        assert_eq!(params.n_parameters(), 10);
        assert_eq!(params.role("mean"), Some(Role::Buffer));
        assert!(params.get("zeta").unwrap().requires_grad() && !params.get("alpha").unwrap().requires_grad());
        assert!(params.get("nothing").is_none());
    }

    #[test]
    fn a_name_twice_is_an_error() {
        let mut params = two();
        assert!(params.add("zeta", ones(&[1]), true).unwrap_err().to_string().contains("`zeta` was added twice"));
    }

    #[test]
    fn names_never_share_memory_but_handles_do() {
        let (mut params, shared) = (Params::new(Device::Cpu), ones(&[3]));
        let a = params.add("a", shared.shallow_clone(), true).unwrap();
        let b = params.add("b", shared.shallow_clone(), true).unwrap();
        let _ = no_grad(|| a.shallow_clone().fill_(7.0));
        assert_eq!(b.double_value(&[0]), 1.0);
        assert_eq!(shared.double_value(&[0]), 1.0);
        assert_eq!(params.get("a").unwrap().double_value(&[0]), 7.0);
    }

    #[test]
    fn a_snapshot_does_not_move_and_loads_back() {
        let params = two();
        let before = params.snapshot().unwrap();
        let handle = params.get("zeta").unwrap().shallow_clone();
        let _ = no_grad(|| handle.shallow_clone().fill_(9.0));
        assert_eq!(before["zeta"].double_value(&[0, 0]), 1.0);
        params.load(&before).unwrap();
        assert_eq!(handle.double_value(&[1, 2]), 1.0);
        assert!(handle.requires_grad());
    }

    #[test]
    fn strict_load_lists_every_problem_and_changes_nothing() {
        let params = two();
        let wrong = BTreeMap::from([
            ("zeta".to_owned(), ones(&[3, 3])),
            ("mean".to_owned(), ones(&[5]) * 2.0),
            ("other".to_owned(), ones(&[1])),
        ]);
        let message = params.load(&wrong).unwrap_err().to_string();
        for part in [
            "tensor `zeta` has shape [3, 3], the model needs [2, 3]",
            "missing tensor `alpha`, shape [4]",
            "unexpected tensor `other`, shape [1]",
        ] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(params.get("mean").unwrap().double_value(&[0]), 1.0);
    }

    #[test]
    fn copy_from_another_store() {
        let (a, b) = (two(), two());
        let _ = no_grad(|| a.get("zeta").unwrap().shallow_clone().fill_(3.0));
        b.copy_from(&a).unwrap();
        assert_eq!(b.get("zeta").unwrap().double_value(&[1, 1]), 3.0);
    }

    #[test]
    fn zero_grad_clears_what_backward_left() {
        let params = two();
        let zeta = params.get("zeta").unwrap();
        (zeta * 2.0).sum(Kind::Float).backward();
        assert_eq!(zeta.grad().double_value(&[0, 0]), 2.0);
        params.zero_grad();
        assert_eq!(zeta.grad().double_value(&[0, 0]), 0.0);
    }
}

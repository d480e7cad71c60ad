//! Which candidates were in the student's own list when it was last looked at.

use std::sync::atomic::{AtomicU64, Ordering};

use anyo_core::Result;
use anyo_student::{EXTRA_PREFIX, Student};
use tch::{Device, Kind, Tensor};

/// A bit for each candidate of each target, kept from look to look where a look costs a pass over the catalogue.
///
/// A target has its turn in every `every`-th epoch, by its number: an n-th of the targets in each epoch. (If all had it
/// in the same epoch, the weights of the whole data would jump with it.) Before its first turn none of its candidates is
/// in the student's list.
#[derive(Debug)]
pub(crate) struct Overlap {
    /// `[targets]`, in the checkpoints.
    bits: Tensor,
    every: u64,
}

impl Overlap {
    /// Nothing seen yet; becomes one of the student's buffers.
    ///
    /// # Errors
    /// When libtorch has no memory.
    pub(crate) fn new(n_targets: usize, every: u64, student: &mut Student) -> Result<Self> {
        let zeros = Tensor::f_zeros([n_targets as i64], (Kind::Int64, Device::Cpu))?;
        Ok(Self { bits: student.params.add_buffer(format!("{EXTRA_PREFIX}overlap"), zeros)?, every })
    }

    /// Places in the batch of the targets whose turn it is.
    pub(crate) fn due(&self, epoch: u64, numbers: &[u32]) -> Vec<usize> {
        let turn = |number: u32| u64::from(number) % self.every == epoch % self.every;
        (0..numbers.len()).filter(|&at| turn(numbers[at])).collect()
    }

    /// What was last seen of each target, `[N]`.
    ///
    /// # Errors
    /// When libtorch has no memory.
    pub(crate) fn recall(&self, numbers: &[u32]) -> Result<Vec<AtomicU64>> {
        let bits = self.bits.f_index_select(0, &self.places(numbers.iter()))?.f_to_device(Device::Cpu)?;
        Ok(Vec::<i64>::try_from(&bits)?.into_iter().map(|bits| AtomicU64::new(bits as u64)).collect())
    }

    /// Keeps what was seen of the targets at these places of the batch.
    ///
    /// # Errors
    /// When libtorch has no memory.
    pub(crate) fn remember(&mut self, numbers: &[u32], at: &[usize], both: &[AtomicU64]) -> Result<()> {
        let bits: Vec<i64> = at.iter().map(|&at| both[at].load(Ordering::Relaxed) as i64).collect();
        let places = self.places(at.iter().map(|&at| &numbers[at]));
        let _ = self.bits.f_index_copy_(0, &places, &Tensor::from_slice(&bits).to_device(self.bits.device()))?;
        Ok(())
    }

    fn places<'a>(&self, numbers: impl Iterator<Item = &'a u32>) -> Tensor {
        let places: Vec<i64> = numbers.map(|&number| i64::from(number)).collect();
        Tensor::from_slice(&places).to_device(self.bits.device())
    }
}

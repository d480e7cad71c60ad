//! The memory of tensors as slices.

use tch::{Device, Kind, Tensor, kind::Element};

use crate::{Result, parallel::SendPtr};

/// Whether [`slice()`] can see this tensor's elements as numbers of type `T`.
///
/// tch 0.24 says that `half::bf16` is of [`Kind::Half`]: either half type is accepted for both kinds.
pub fn is_plain<T: Element>(tensor: &Tensor) -> bool {
    let same = match tensor.kind() {
        Kind::BFloat16 => T::KIND == Kind::Half,
        kind => T::KIND == kind,
    };
    same && tensor.device() == Device::Cpu && !tensor.is_sparse() && tensor.is_contiguous()
}

/// The elements of a tensor for which [`is_plain`] holds, in row-major order.
///
/// Nobody may write to the tensor meanwhile, through another handle of its memory either.
///
/// # Panics
/// When [`is_plain`] does not hold.
pub fn slice<T: Element>(tensor: &Tensor) -> &[T] {
    assert!(is_plain::<T>(tensor));
    match tensor.numel() {
        0 => &[],
        // SAFETY: contiguous CPU memory of `n` elements of that type, kept alive by the borrowed tensor.
        n => unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<T>(), n) },
    }
}

/// As [`slice()`], to write to; no other handle may use the tensor's memory meanwhile.
///
/// # Panics
/// When [`is_plain`] does not hold.
pub fn slice_mut<T: Element>(tensor: &mut Tensor) -> &mut [T] {
    assert!(is_plain::<T>(tensor));
    match tensor.numel() {
        0 => &mut [],
        // SAFETY: as above; the callers made the tensor or know that they alone use it.
        n => unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<T>(), n) },
    }
}

/// Pointer to the first element of an f32 tensor for which [`is_plain`] holds; the caller must not let writes overlap.
///
/// # Panics
/// When [`is_plain`] does not hold.
pub fn f32_ptr(tensor: &Tensor) -> SendPtr<f32> {
    assert!(is_plain::<f32>(tensor));
    SendPtr(tensor.data_ptr().cast::<f32>())
}

/// Calls `body` with the tensor's elements as bytes in row-major order; copies only what is not so on the CPU already.
///
/// # Errors
/// When libtorch cannot make the copy, and those of `body`.
pub fn with_bytes<T>(tensor: &Tensor, body: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
    let plain = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
    let n_bytes = plain.numel() * plain.kind().elt_size_in_bytes();
    if n_bytes == 0 {
        return body(&[]);
    }
    // SAFETY: contiguous CPU memory of that many bytes, alive until `plain` is dropped after the call.
    body(unsafe { std::slice::from_raw_parts(plain.data_ptr().cast::<u8>(), n_bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_memory_of_the_type_is_a_slice() {
        let mut x = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0]).view([2, 2]);
        slice_mut::<f32>(&mut x)[2] = 7.0;
        assert_eq!(slice::<f32>(&x), [1.0, 2.0, 7.0, 4.0]);
        assert!(!is_plain::<f64>(&x) && !is_plain::<i32>(&x) && !is_plain::<f32>(&x.tr()));
        assert!(is_plain::<f32>(&x.narrow(0, 1, 1)) && !is_plain::<f32>(&x.to_kind(Kind::BFloat16)));
        let mut empty = Tensor::empty([0, 3], (Kind::Uint8, Device::Cpu));
        assert!(slice::<u8>(&empty).is_empty() && slice_mut::<u8>(&mut empty).is_empty());
    }
}

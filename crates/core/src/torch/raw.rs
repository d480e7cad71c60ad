//! The memory of tensors as slices.

use tch::{Device, Tensor, kind::Element};

use crate::{Result, parallel::SendPtr};

/// Whether [`slice`] can see this tensor's elements as numbers of type `T`.
pub fn is_plain<T: Element>(tensor: &Tensor) -> bool {
    tensor.device() == Device::Cpu && tensor.kind() == T::KIND && !tensor.is_sparse() && tensor.is_contiguous()
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

/// As [`slice`], to write to; no other handle may use the tensor's memory meanwhile.
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
pub(super) fn f32_ptr(tensor: &Tensor) -> SendPtr<f32> {
    assert!(is_plain::<f32>(tensor));
    SendPtr(tensor.data_ptr().cast::<f32>())
}

/// Calls `body` with the tensor's elements as bytes in row-major order; copies only what is not so on the CPU already.
///
/// # Errors
/// When libtorch cannot make the copy, and those of `body`.
pub(super) fn with_bytes<T>(tensor: &Tensor, body: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
    let plain = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
    let n_bytes = plain.numel() * plain.kind().elt_size_in_bytes();
    if n_bytes == 0 {
        return body(&[]);
    }
    // SAFETY: contiguous CPU memory of that many bytes, alive until `plain` is dropped after the call.
    body(unsafe { std::slice::from_raw_parts(plain.data_ptr().cast::<u8>(), n_bytes) })
}

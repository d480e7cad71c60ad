//! The memory of tensors as slices: the only place that reads tensor pointers.

use tch::{Device, Kind, Tensor};

use crate::{Result, parallel::SendPtr};

/// Whether the fast loops may work on this tensor's memory.
pub(super) fn is_plain_f32(tensor: &Tensor) -> bool {
    tensor.device() == Device::Cpu && tensor.kind() == Kind::Float && !tensor.is_sparse() && tensor.is_contiguous()
}

/// The elements of a tensor for which [`is_plain_f32`] holds.
pub(super) fn f32s(tensor: &Tensor) -> &[f32] {
    assert!(is_plain_f32(tensor));
    match tensor.numel() {
        0 => &[],
        // SAFETY: contiguous f32 CPU memory of `n` elements, kept alive by the borrowed tensor.
        n => unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<f32>(), n) },
    }
}

/// Pointer to the first element of a tensor for which [`is_plain_f32`] holds; the caller must not let writes overlap.
pub(super) fn f32_ptr(tensor: &Tensor) -> SendPtr<f32> {
    assert!(is_plain_f32(tensor));
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

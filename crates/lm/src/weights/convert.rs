//! The bytes of one tensor to a tensor of the wanted type, looking for NaN and infinity on the way.

use std::{
    ops::Range,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use anyo_core::{
    Error, Result,
    parallel::{SendPtr, for_each_part},
};
use safetensors::Dtype;
use tch::{Device, Kind, Tensor, no_grad};

use super::TensorInfo;

/// Bytes that one thread takes at a time.
const PIECE: usize = 4 << 20;
/// Bytes of the file that are in memory beside the tensor made of them.
const BLOCK: usize = 8 * PIECE;

/// The floating types that weights come in.
fn kind_of(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F32 => Some(Kind::Float),
        Dtype::BF16 => Some(Kind::BFloat16),
        Dtype::F16 => Some(Kind::Half),
        _ => None,
    }
}

/// Number of values that are NaN or infinite: those whose exponent bits are all set.
fn n_not_finite(bytes: &[u8], kind: Kind) -> u64 {
    fn count<const N: usize>(bytes: &[u8], bad: impl Fn([u8; N]) -> bool) -> u64 {
        bytes.as_chunks::<N>().0.iter().map(|&x| u64::from(bad(x))).sum()
    }
    match kind {
        Kind::Float => count(bytes, |x| u32::from_le_bytes(x) & 0x7f80_0000 == 0x7f80_0000),
        Kind::BFloat16 => count(bytes, |x| u16::from_le_bytes(x) & 0x7f80 == 0x7f80),
        _ => count(bytes, |x| u16::from_le_bytes(x) & 0x7c00 == 0x7c00),
    }
}

/// A tensor of `info.shape` from its `bytes` in the file at `path`. After each block `release` learns which bytes were
/// read and are not needed any more.
pub(crate) fn tensor(
    path: &Path,
    name: &str,
    bytes: &[u8],
    info: &TensorInfo,
    (kind, device): (Kind, Device),
    release: &dyn Fn(Range<usize>),
) -> Result<Tensor> {
    let failed =
        |message: String, hint: &str| Error::Checkpoint { path: path.to_owned(), message, hint: Some(hint.to_owned()) };
    let Some(stored) = kind_of(info.dtype) else {
        let message = format!("tensor `{name}` has the number type {:?}, wanted F32, BF16 or F16", info.dtype);
        return Err(failed(message, "use the folder of the model with plain weights"));
    };
    let size = stored.elt_size_in_bytes();
    let result = Tensor::f_empty(&info.shape, (kind, device))?;
    let flat = result.f_view(-1)?;
    // The common case reads the file once: each piece is checked and copied while it is in the cache.
    let target = (kind == stored && device == Device::Cpu).then(|| SendPtr(result.data_ptr().cast::<u8>()));
    let bad = AtomicU64::new(0);
    for (i, block) in bytes.chunks(BLOCK).enumerate() {
        let start = i * BLOCK;
        for_each_part(block.len().div_ceil(PIECE), |part| {
            let at = part * PIECE;
            let piece = &block[at..block.len().min(at + PIECE)];
            let _ = bad.fetch_add(n_not_finite(piece, stored), Ordering::Relaxed);
            if let Some(target) = &target {
                // SAFETY: `result` is new, contiguous and as long as `bytes`; pieces are disjoint.
                unsafe { std::ptr::copy_nonoverlapping(piece.as_ptr(), target.at(start + at), piece.len()) };
            }
        });
        if target.is_none() {
            no_grad(|| convert_block(block, &flat, start / size, stored))?;
        }
        release(start..start + block.len());
    }
    let bad = bad.into_inner();
    if bad > 0 {
        let n = bytes.len() / size;
        let message =
            format!("tensor `{name}` of shape {:?} has {bad} of {n} values that are NaN or infinite", info.shape);
        return Err(failed(message, "the training that wrote it had diverged, or the file is damaged"));
    }
    // Only f16 has a smaller range than the other two.
    if kind == Kind::Half && stored != Kind::Half && !bytes.is_empty() {
        let finite = result.f_isfinite()?.f_all()?.f_int64_value(&[])?;
        if finite == 0 {
            let message = format!("tensor `{name}` has values above 65504, too large for f16");
            return Err(failed(message, "load it with dtype bf16 or f32"));
        }
    }
    Ok(result)
}

/// Writes the values of `block` into `flat` from element `first` on.
fn convert_block(block: &[u8], flat: &Tensor, first: usize, stored: Kind) -> Result<()> {
    let mut at = first as i64;
    for piece in block.chunks(PIECE) {
        let n = (piece.len() / stored.elt_size_in_bytes()) as i64;
        // A copy: the file promises no alignment.
        let values = Tensor::f_from_data_size(piece, &[n], stored)?;
        flat.f_narrow(0, at, n)?.f_copy_(&values)?;
        at += n;
    }
    Ok(())
}

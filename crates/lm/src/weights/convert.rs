//! The bytes of one tensor to a tensor of the wanted type, looking for NaN and infinity on the way.

use std::{
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

/// Bytes that are converted at a time: what is held twice.
const PIECE: usize = 4 << 20;

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

pub(crate) fn tensor(
    path: &Path,
    name: &str,
    bytes: &[u8],
    info: &TensorInfo,
    kind: Kind,
    device: Device,
) -> Result<Tensor> {
    let failed =
        |message: String, hint: &str| Error::Checkpoint { path: path.to_owned(), message, hint: Some(hint.to_owned()) };
    let Some(stored) = kind_of(info.dtype) else {
        let message = format!("tensor `{name}` has the number type {:?}, wanted F32, BF16 or F16", info.dtype);
        return Err(failed(message, "use the folder of the model with plain weights"));
    };
    let size = stored.elt_size_in_bytes();
    let pieces: Vec<&[u8]> = bytes.chunks(PIECE).collect();
    let result = Tensor::f_empty(&info.shape, (kind, device))?;
    // The common case reads the file once: each piece is checked and copied while it is in the cache.
    let target = (kind == stored && device == Device::Cpu).then(|| SendPtr(result.data_ptr().cast::<u8>()));
    let bad = AtomicU64::new(0);
    for_each_part(pieces.len(), |i| {
        let _ = bad.fetch_add(n_not_finite(pieces[i], stored), Ordering::Relaxed);
        if let Some(target) = &target {
            // SAFETY: `result` is new, contiguous and as long as `bytes`; pieces are disjoint.
            unsafe { std::ptr::copy_nonoverlapping(pieces[i].as_ptr(), target.at(i * PIECE), pieces[i].len()) };
        }
    });
    let bad = bad.into_inner();
    if bad > 0 {
        let message = format!(
            "tensor `{name}` of shape {:?} has {bad} of {} values that are NaN or infinite",
            info.shape,
            bytes.len() / size
        );
        return Err(failed(message, "the training that wrote it had diverged, or the file is damaged"));
    }
    if target.is_some() {
        return Ok(result);
    }
    no_grad(|| {
        let flat = result.f_view(-1)?;
        let mut start = 0;
        for piece in pieces {
            let n = (piece.len() / size) as i64;
            // A copy: the file promises no alignment.
            let values = Tensor::f_from_data_size(piece, &[n], stored)?;
            flat.f_narrow(0, start, n)?.f_copy_(&values)?;
            start += n;
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
    })
}

//! The bytes of one tensor to a tensor of the wanted type, looking for NaN and infinity on the way.

use std::{
    fs::File,
    io,
    ops::Range,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use anyo_core::{
    Error, Result, memory,
    parallel::{SendPtr, for_each_part},
};
use safetensors::Dtype;
use tch::{Device, Kind, Tensor, no_grad};

use super::TensorInfo;

/// Bytes that one thread takes at a time.
const PIECE: usize = 4 << 20;
/// Bytes of the file that are in memory beside the tensor made of them.
const BLOCK: usize = 8 * PIECE;
/// The same where bytes go from the file into the tensor: they are checked while they are in the core's own cache.
const SMALL_PIECE: usize = 256 << 10;

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
    /// So many that a count fits the width of the values, which keeps the loop in full vectors.
    const RUN: usize = 1 << 12;
    fn halves(bytes: &[u8], exponent: u16) -> u64 {
        let count = |run: &[[u8; 2]]| -> u16 {
            run.iter().map(|&x| u16::from(u16::from_le_bytes(x) & exponent == exponent)).sum()
        };
        bytes.as_chunks::<2>().0.chunks(RUN).map(|run| u64::from(count(run))).sum()
    }
    match kind {
        Kind::Float => {
            let count = |run: &[[u8; 4]]| -> u32 {
                run.iter().map(|&x| u32::from(u32::from_le_bytes(x) & 0x7f80_0000 == 0x7f80_0000)).sum()
            };
            bytes.as_chunks::<4>().0.chunks(RUN).map(|run| u64::from(count(run))).sum()
        }
        Kind::BFloat16 => halves(bytes, 0x7f80),
        _ => halves(bytes, 0x7c00),
    }
}

/// Where the bytes of a tensor are.
pub(crate) struct Source<'a> {
    /// Mapped, or in memory.
    pub(crate) bytes: &'a [u8],
    /// The file that has them too, and where they begin there.
    pub(crate) file: Option<(&'a File, u64)>,
}

impl Source<'_> {
    /// Copies the bytes into `target`, which has as many, and counts values that are not finite. From the file where
    /// that can be read at a place: faster than the mapping, whose pages would have to be looked up one by one.
    fn copy_into(&self, target: SendPtr<u8>, kind: Kind) -> io::Result<u64> {
        let (bad, failure) = (AtomicU64::new(0), Mutex::new(None));
        for_each_part(self.bytes.len().div_ceil(SMALL_PIECE), |part| {
            let at = part * SMALL_PIECE;
            let n = SMALL_PIECE.min(self.bytes.len() - at);
            // SAFETY: the caller's tensor is new and as long as the bytes, libtorch's memory may be overwritten with
            // anything, and pieces are disjoint.
            let piece = unsafe { std::slice::from_raw_parts_mut(target.at(at), n) };
            match self.read(at, piece) {
                Ok(()) => drop(bad.fetch_add(n_not_finite(piece, kind), Ordering::Relaxed)),
                Err(error) => drop(failure.lock().map(|mut first| *first = Some(error))),
            }
        });
        failure.into_inner().unwrap_or_default().map_or(Ok(bad.into_inner()), Err)
    }

    fn read(&self, at: usize, piece: &mut [u8]) -> io::Result<()> {
        #[cfg(unix)]
        if let Some((file, start)) = self.file {
            return std::os::unix::fs::FileExt::read_exact_at(file, piece, start + at as u64);
        }
        piece.copy_from_slice(&self.bytes[at..at + piece.len()]);
        Ok(())
    }
}

/// A tensor of `info.shape` from its `source` in the file at `path`. After each block of the mapping `release` learns which
/// bytes were read and are not needed any more.
pub(crate) fn tensor(
    path: &Path,
    name: &str,
    source: &Source<'_>,
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
    let (bytes, size) = (source.bytes, stored.elt_size_in_bytes());
    let result = Tensor::f_empty(&info.shape, (kind, device))?;
    let flat = result.f_view(-1)?;
    if device == Device::Cpu && !bytes.is_empty() {
        memory::prefer_huge_pages(result.data_ptr().cast(), result.numel() * kind.elt_size_in_bytes());
    }
    // The common case reads the file once: each piece is checked and copied while it is in the cache.
    let target = (kind == stored && device == Device::Cpu).then(|| SendPtr(result.data_ptr().cast::<u8>()));
    let bad = match target {
        Some(target) => source.copy_into(target, stored).map_err(Error::io(path, "read the weights"))?,
        None => {
            let bad = AtomicU64::new(0);
            for (i, block) in bytes.chunks(BLOCK).enumerate() {
                let start = i * BLOCK;
                for_each_part(block.len().div_ceil(PIECE), |part| {
                    let at = part * PIECE;
                    let piece = &block[at..block.len().min(at + PIECE)];
                    let _ = bad.fetch_add(n_not_finite(piece, stored), Ordering::Relaxed);
                });
                no_grad(|| convert_block(block, &flat, start / size, stored))?;
                release(start..start + block.len());
            }
            bad.into_inner()
        }
    };
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

//! Work in progress: the lists of some batches in one small checked file, so that an export can be killed at any moment.
//!
//! Layout, little-endian: 8 bytes `ANYOBP01`; u64 first batch, u64 batch after the last, u64 rows, u64 K; the arrays
//! rows, items, distances, true ranks, true distances (4 bytes a value); the SHA-256 of everything before.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::Lists;
use crate::{Error, Result, run::write_atomic};

const MAGIC: &[u8; 8] = b"ANYOBP01";

/// File of part `number` in the working folder.
pub(super) fn file(work: &Path, number: usize) -> PathBuf {
    work.join(format!("part_{number:06}.bin"))
}

/// Writes a part, beside and renamed.
pub(super) fn write(path: &Path, batches: (u64, u64), lists: &Lists) -> Result<()> {
    let mut out = Vec::with_capacity(72 + 4 * (lists.items.len() * 2 + lists.len() * 3));
    out.extend(MAGIC);
    for number in [batches.0, batches.1, lists.len() as u64, lists.top_n as u64] {
        out.extend(number.to_le_bytes());
    }
    for values in [&lists.rows, &lists.items] {
        out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    }
    out.extend(lists.distances.iter().flat_map(|v| v.to_le_bytes()));
    out.extend(lists.true_ranks.iter().flat_map(|v| v.to_le_bytes()));
    out.extend(lists.true_distances.iter().flat_map(|v| v.to_le_bytes()));
    let checksum = Sha256::digest(&out);
    out.extend(checksum);
    write_atomic(path, &out)
}

/// The batches `first..end` and their lists, or what is wrong with them in a sentence without the path.
type Part = std::result::Result<((u64, u64), Lists), String>;

/// Reads a part.
pub(super) fn read(path: &Path, top_n: usize) -> Result<Part> {
    let bytes = fs::read(path).map_err(Error::io(path, "read a part of the export"))?;
    Ok(parse(&bytes, top_n))
}

fn parse(bytes: &[u8], top_n: usize) -> Part {
    let body = bytes.len().checked_sub(32).filter(|&n| n >= 40).ok_or("is truncated")?;
    let (body, checksum) = bytes.split_at(body);
    if Sha256::digest(body)[..] != *checksum || !body.starts_with(MAGIC) {
        return Err("is damaged".into());
    }
    let number = |at: usize| body[at..at + 8].iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b));
    let (first, end, rows, k) = (number(8), number(16), number(24) as usize, number(32) as usize);
    let values = rows.checked_mul(k).and_then(|n| n.checked_mul(2)).and_then(|n| n.checked_add(rows.checked_mul(3)?));
    if k != top_n || values.and_then(|n| n.checked_mul(4)) != Some(body.len() - 40) {
        return Err("has other sizes than it says".into());
    }
    let mut rest = body[40..].chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let mut take = |n: usize| -> Vec<u32> { rest.by_ref().take(n).collect() };
    let float = |values: Vec<u32>| values.into_iter().map(f32::from_bits).collect();
    let (numbers, items, distances) = (take(rows), take(rows * k), float(take(rows * k)));
    let (true_ranks, true_distances) = (take(rows), float(take(rows)));
    Ok(((first, end), Lists { top_n: k, rows: numbers, items, distances, true_ranks, true_distances }))
}

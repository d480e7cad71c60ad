//! The processed form of a data set as one checked file.
//!
//! Layout, little-endian: 8 bytes `ANYODS01`; u64 length of the header; the header (JSON: names, items, users, hashes,
//! provenance and the lengths of the arrays); the arrays one after another (u32, but u64 for offsets and counts);
//! the SHA-256 of everything before.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Dataset, Item, Rows, sources::write_atomically};

const MAGIC: &[u8; 8] = b"ANYODS01";

#[derive(Serialize, Deserialize)]
struct Header {
    name: String,
    hash: String,
    items_hash: String,
    protocol: String,
    provenance: serde_json::Value,
    users: Vec<String>,
    items: Vec<(String, String, String)>,
    /// Rows and items of train, valid and test.
    rows: [(usize, usize); 3],
    n_order: usize,
}

/// Reads the file; `Ok(None)` when it is not there.
///
/// # Errors
/// A sentence that says what is wrong with the file.
pub(super) fn read(path: &Path, hash: &str) -> Result<Option<Dataset>, String> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot be read: {error}")),
    };
    let body = bytes.len().checked_sub(32).filter(|n| *n >= 16).ok_or("is truncated")?;
    let (body, checksum) = bytes.split_at(body);
    if !body.starts_with(MAGIC) {
        return Err("is no processed data set of this version".into());
    }
    if Sha256::digest(body)[..] != *checksum {
        return Err("is damaged (its checksum differs)".into());
    }
    let mut rest = &body[8..];
    let header_len = take_u64(&mut rest, 1)?[0] as usize;
    let header = rest.get(..header_len).ok_or("is truncated")?;
    rest = &rest[header_len..];
    let header: Header = serde_json::from_slice(header).map_err(|error| format!("has a wrong header: {error}"))?;
    if header.hash != hash {
        return Err("belongs to other sources or options".into());
    }
    let mut rows = Vec::new();
    for (n, n_items) in header.rows {
        let users = take_u32(&mut rest, n)?;
        let offsets = take_u64(&mut rest, n + 1)?.into_iter().map(|offset| offset as usize).collect();
        let (items, first) = (take_u32(&mut rest, n_items)?, take_u32(&mut rest, n)?);
        let in_range = items.iter().all(|item| (*item as usize) < header.items.len());
        let in_range = in_range && users.iter().all(|user| (*user as usize) < header.users.len());
        rows.push(
            Rows::from_parts(users, offsets, items, first).filter(|_| in_range).ok_or("has rows that do not fit")?,
        );
    }
    let train_counts = take_u64(&mut rest, header.items.len())?;
    let train_order = take_u32(&mut rest, header.n_order)?;
    let (Some(test), Some(valid), Some(train)) = (rows.pop(), rows.pop(), rows.pop()) else {
        return Err("is truncated".into());
    };
    Ok(Some(Dataset {
        name: header.name,
        items: header.items.into_iter().map(|(id, title, text)| Item { id, title, text }).collect(),
        users: header.users,
        train,
        valid,
        test,
        train_counts,
        train_order,
        hash: header.hash,
        items_hash: header.items_hash,
        provenance: header.provenance,
        protocol: header.protocol,
    }))
}

/// Writes the file beside its place and renames it.
///
/// # Errors
/// When the folder cannot be written.
pub(super) fn write(path: &Path, data: &Dataset) -> std::io::Result<()> {
    let parts = [&data.train, &data.valid, &data.test];
    let header = Header {
        name: data.name.clone(),
        hash: data.hash.clone(),
        items_hash: data.items_hash.clone(),
        protocol: data.protocol.clone(),
        provenance: data.provenance.clone(),
        users: data.users.clone(),
        items: data.items.iter().map(|i| (i.id.clone(), i.title.clone(), i.text.clone())).collect(),
        rows: parts.map(|rows| (rows.len(), rows.parts().2.len())),
        n_order: data.train_order.len(),
    };
    let header = serde_json::to_vec(&header)?;
    let mut out = Vec::from(MAGIC);
    out.extend((header.len() as u64).to_le_bytes());
    out.extend(header);
    let put_u32 = |out: &mut Vec<u8>, values: &[u32]| out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    for rows in parts {
        let (users, offsets, items, first) = rows.parts();
        put_u32(&mut out, users);
        // an empty `Rows` may have been made without its first offset
        let offsets = if offsets.is_empty() { &[0][..] } else { offsets };
        out.extend(offsets.iter().flat_map(|v| (*v as u64).to_le_bytes()));
        put_u32(&mut out, items);
        put_u32(&mut out, first);
    }
    out.extend(data.train_counts.iter().flat_map(|v| v.to_le_bytes()));
    put_u32(&mut out, &data.train_order);
    let checksum = Sha256::digest(&out);
    out.extend(checksum);
    write_atomically(path, &out)
}

fn take_u32(rest: &mut &[u8], n: usize) -> Result<Vec<u32>, String> {
    let bytes = take(rest, n, 4)?;
    Ok(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

fn take_u64(rest: &mut &[u8], n: usize) -> Result<Vec<u64>, String> {
    let bytes = take(rest, n, 8)?;
    let value = |b: &[u8]| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
    Ok(bytes.chunks_exact(8).map(value).collect())
}

fn take<'a>(rest: &mut &'a [u8], n: usize, width: usize) -> Result<&'a [u8], String> {
    let (bytes, after) = n.checked_mul(width).and_then(|n| rest.split_at_checked(n)).ok_or("is truncated")?;
    *rest = after;
    Ok(bytes)
}

//! Entry points of the fuzz targets (`fuzz/`) and of the test that replays their corpus: what a file's bytes may do.
//!
//! Each reads `bytes` as one kind of file and panics where a promise is broken. Refusing the bytes is fine.

use std::path::Path;

use crate::{llama2c, weights};

/// Tensors of an accepted safetensors file lie inside it, one behind the other.
pub fn safetensors_header(bytes: &[u8]) {
    let Ok((data, infos)) = weights::parse_header(Path::new("fuzz"), bytes) else { return };
    let mut ranges: Vec<_> = infos.values().map(|info| (info.start, info.end)).collect();
    ranges.sort_unstable();
    let mut at = 0;
    for (start, end) in ranges {
        assert!(start == at && start <= end, "{start} {end} at {at}");
        at = end;
    }
    assert_eq!(data + at, bytes.len(), "the data fills the file");
}

/// Shards of an accepted index are plain names inside the folder.
pub fn safetensors_index(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(map) = weights::parse_index(Path::new("fuzz"), text) else { return };
    assert!(!map.is_empty());
    for file in map.values() {
        assert!(!file.is_empty() && file != ".." && !file.contains(['/', '\\', '\0']), "{file}");
    }
}

/// The sizes in an accepted llama2.c header need exactly the bytes that the file has.
pub fn llama2c_header(bytes: &[u8]) {
    let Ok(header) = llama2c::parse_header(Path::new("fuzz"), bytes) else { return };
    let h = |n: usize| n as u128;
    assert!(header.dim.is_multiple_of(2 * header.n_heads) && header.n_heads.is_multiple_of(header.n_kv_heads));
    let (d, kv) = (h(header.dim), h(header.dim / header.n_heads * header.n_kv_heads));
    let layer = 2 * d + 2 * d * d + 2 * kv * d + 3 * h(header.hidden_dim) * d;
    let heads = h(if header.tied { 1 } else { 2 });
    let tables = h(header.seq_len) * h(header.dim / header.n_heads);
    let floats = h(header.n_layers) * layer + heads * h(header.vocab_size) * d + d + tables;
    assert_eq!(28 + 4 * floats, h(bytes.len()), "{header:?}");
}

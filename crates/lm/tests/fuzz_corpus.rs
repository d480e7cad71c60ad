//! Replays the corpus of the fuzz targets (`fuzz/corpus`) and fixed-seed mutations of it through the same entry points, and
//! counts what they allocate. `cargo fuzz` goes further, but needs a nightly compiler.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use anyo_lm::fuzz;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// The system's allocator, remembering the largest request.
struct Counting;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands everything to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Relaxed);
        // SAFETY: the caller's promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What messages and the nodes of maps may take beside the file.
const SLACK: usize = 4096;
const MUTATIONS: usize = 3000;

type Target = (&'static str, fn(&[u8]));
const TARGETS: [Target; 3] = [
    ("safetensors_header", fuzz::safetensors_header),
    ("safetensors_index", fuzz::safetensors_index),
    ("llama2c_header", fuzz::llama2c_header),
];

/// Bytes changed, cut out, repeated, joined with another seed, and numbers put in.
fn mutate(seeds: &[Vec<u8>], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut below = |n: usize| (rng.next_u64() % n.max(1) as u64) as usize;
    let mut bytes = seeds[below(seeds.len())].clone();
    for _ in 0..=below(6) {
        let (at, len) = (below(bytes.len()), below(40));
        let end = (at + len).min(bytes.len());
        match below(7) {
            0 if !bytes.is_empty() => bytes[at] = below(256) as u8,
            1 if !bytes.is_empty() => bytes[at] ^= 1 << below(8),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let part = bytes[at..end].repeat(1 + below(20));
                bytes.splice(at..at, part);
            }
            4 => {
                let other = &seeds[below(seeds.len())];
                let from = below(other.len());
                bytes.splice(at.., other[from..].iter().copied());
            }
            5 => {
                let words =
                    [&b"\\u0000"[..], b"18446744073709551615", b"-1", b"[", b"{\"a\":", b"\"", b"1e9", b"null", b"]}"];
                bytes.splice(at..at, words[below(words.len())].iter().copied());
            }
            _ if bytes.len() >= 8 => {
                // A header length that is right again: what follows is read.
                let length = (bytes.len() as u64 - 8).to_le_bytes();
                bytes[..8].copy_from_slice(&length);
            }
            _ => bytes.push(0xff),
        }
    }
    bytes
}

#[test]
fn corpus_and_mutations_keep_the_promises() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, target) in TARGETS {
        let mut paths: Vec<_> = fs::read_dir(corpus.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let seeds: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
        assert!(seeds.len() >= 4, "{name}");
        let mut rng = ChaCha8Rng::seed_from_u64(20_261_121);
        let (mut most, mut above) = (0f64, 0);
        for i in 0..seeds.len() + MUTATIONS {
            let bytes = seeds.get(i).cloned().unwrap_or_else(|| mutate(&seeds, &mut rng));
            LARGEST.store(0, Relaxed);
            target(&bytes);
            let largest = LARGEST.load(Relaxed);
            above += usize::from(largest > bytes.len() + SLACK);
            most = most.max(largest as f64 / (bytes.len() + SLACK) as f64);
            // Twice: a message that quotes a text, or a name with escapes, grows by doubling.
            assert!(largest <= 2 * bytes.len() + SLACK, "{name} {i}: {largest} for {} bytes", bytes.len());
        }
        println!("{name}: largest allocation {most:.3} of file + {SLACK}, {above} of them above");
    }
}

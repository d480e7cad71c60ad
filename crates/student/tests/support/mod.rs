//! Shared by the tests of the students.

#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod data;
pub(crate) mod student;
pub(crate) mod watch;

use std::path::{Path, PathBuf};

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name)
}

/// Real data beside the repository, or a printed reason to skip.
pub(crate) fn shared_data() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("skipped: {} is not there", path.display());
    None
}

/// Histories of a LLaRA file, pads cut off, ratings dropped.
pub(crate) fn windows(path: &Path) -> Vec<Vec<u32>> {
    let text = std::fs::read_to_string(path).unwrap();
    let row = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let len: usize = fields[1].parse().unwrap();
        fields[0].split(' ').take(len).map(|id| id.split(':').next().unwrap().parse().unwrap()).collect()
    };
    text.lines().skip(1).map(row).collect()
}

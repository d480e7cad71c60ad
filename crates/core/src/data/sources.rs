//! Source files: where they are, and their content hashes, remembered so that unchanged files are not read again.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{config::DatasetConfig, read::data_error};
use crate::{Error, Result};

/// A file that a data set is made of.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// What it is for: `interactions`, `items`, `train`, `valid`, `test`.
    pub(super) role: &'static str,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// Of its content, hex.
    pub(super) sha256: String,
}

/// The file: an absolute path as it is; else below the root; else relative to the working folder.
pub(super) fn locate(root: &Path, path: &str) -> Option<PathBuf> {
    let below = root.join(path);
    if below.exists() {
        return Some(below);
    }
    Some(PathBuf::from(path)).filter(|path| path.exists())
}

/// The error for a file that [`locate`] did not find.
pub(super) fn not_found(root: &Path, path: &str, config: &DatasetConfig) -> Error {
    let below = root.join(path);
    let message = match below == Path::new(path) {
        true => "not found".to_owned(),
        false => format!("not found, nor `{path}` in the working folder"),
    };
    let hint = match &config.download {
        Some(name) => {
            format!("get it with `cmd/download_data.sh {name}`, or say where the data is with data.root=PATH")
        }
        None => "say where the data is with data.root=PATH, or name the file with its whole path".to_owned(),
    };
    data_error(&below, None, message, &hint)
}

#[derive(Serialize, Deserialize, PartialEq, Clone)]
struct Known {
    bytes: u64,
    modified_ns: u64,
    sha256: String,
}

/// The content hashes of files by path, size and time of change.
pub(super) struct HashIndex {
    file: Option<PathBuf>,
    known: BTreeMap<PathBuf, Known>,
    changed: bool,
}

impl HashIndex {
    /// Opens the index in the cache folder; a missing or broken one is an empty one.
    pub(super) fn open(cache: Option<&Path>) -> Self {
        let file = cache.map(|folder| folder.join("sources.json"));
        let known =
            file.as_ref().and_then(|file| fs::read(file).ok()).and_then(|text| serde_json::from_slice(&text).ok());
        Self { file, known: known.unwrap_or_default(), changed: false }
    }

    /// Hashes a file, or remembers its hash.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn source(&mut self, role: &'static str, path: PathBuf) -> Result<Source> {
        let meta = fs::metadata(&path).map_err(Error::io(&path, "read"))?;
        if !meta.is_file() {
            return Err(data_error(&path, None, "is a folder, wanted a file", "name the file itself"));
        }
        let modified_ns = meta.modified().ok().and_then(since_epoch);
        let key = fs::canonicalize(&path).map_err(Error::io(&path, "read"))?;
        if let (Some(known), Some(modified_ns)) = (self.known.get(&key), modified_ns)
            && known.bytes == meta.len()
            && known.modified_ns == modified_ns
        {
            return Ok(Source { role, path, bytes: known.bytes, sha256: known.sha256.clone() });
        }
        let sha256 = hash_file(&path)?;
        // a file changed a moment ago could change again without its time changing, so it is not remembered yet
        let settled =
            modified_ns.filter(|ns| since_epoch(SystemTime::now()).is_some_and(|now| now > ns + 2_000_000_000));
        if let Some(modified_ns) = settled {
            self.known.insert(key, Known { bytes: meta.len(), modified_ns, sha256: sha256.clone() });
            self.changed = true;
        }
        Ok(Source { role, path, bytes: meta.len(), sha256 })
    }

    /// Writes the index, if anything is new.
    ///
    /// # Errors
    /// When the cache folder cannot be written.
    pub(super) fn save(&self) -> std::io::Result<()> {
        match &self.file {
            Some(file) if self.changed => write_atomically(file, &serde_json::to_vec_pretty(&self.known)?),
            _ => Ok(()),
        }
    }
}

fn since_epoch(time: SystemTime) -> Option<u64> {
    time.duration_since(UNIX_EPOCH).ok().and_then(|d| u64::try_from(d.as_nanos()).ok())
}

fn hash_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io(path, "read"))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).map_err(Error::io(path, "read"))?;
        if n == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..n]);
    }
}

/// Writes a file beside its place and renames it, so that it is there whole or not at all.
pub(super) fn write_atomically(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("file");
    let beside = folder.join(format!(".{name}.{}.part", std::process::id()));
    let written = fs::write(&beside, content).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // the half-written file is of no use; that it may stay is no reason for another error
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

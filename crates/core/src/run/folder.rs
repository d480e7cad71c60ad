//! Making run folders: atomically, never reused.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// Makes `dir`, or `dir-2`, `dir-3` … when it exists: `create_dir` fails for the second of two processes, so two runs
/// started in the same second get two folders.
///
/// # Errors
/// [`Error::Io`] when the place cannot be written.
pub fn create(dir: &Path) -> Result<PathBuf> {
    make_parents(dir)?;
    for n in 1.. {
        let path = if n == 1 { dir.to_owned() } else { numbered(dir, n) };
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Error::io(path, "make the run folder")(e)),
        }
    }
    Err(Error::invalid(format!("{}: no free folder name", dir.display())))
}

/// Makes exactly `dir`.
///
/// # Errors
/// [`Error::Io`], also when it exists.
pub(crate) fn create_exactly(dir: &Path) -> Result<PathBuf> {
    make_parents(dir)?;
    fs::create_dir(dir).map_err(Error::io(dir, "make the run folder"))?;
    Ok(dir.to_owned())
}

fn make_parents(dir: &Path) -> Result<()> {
    match dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        Some(parent) => fs::create_dir_all(parent).map_err(Error::io(parent, "make the folder for runs")),
        None => Ok(()),
    }
}

fn numbered(dir: &Path, n: u32) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(format!("-{n}"));
    dir.with_file_name(name)
}

/// Writes a file beside and renames it: a reader sees the old content or the new one, never half of it.
///
/// # Errors
/// [`Error::Io`] naming the file.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let beside = path.with_file_name(name);
    let write = || -> io::Result<()> {
        let mut file = fs::File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&beside);
        Error::io(path, "write the file")(e)
    })
}

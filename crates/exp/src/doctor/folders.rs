//! The folders that runs write to: writable, and how much room they have.

use std::{
    ffi::CString,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::Report;

/// Below this a run may fill the disk.
const LITTLE: u64 = 1 << 30;

pub(super) fn check(report: &mut Report, data: &Path, result: &Path) {
    check_one(report, "result", result, "run.dir=PATH chooses another folder");
    check_one(report, "data", data, "data.root=PATH chooses another folder; only the processed form is written there");
}

fn check_one(report: &mut Report, topic: &str, folder: &Path, other: &str) {
    let place = nearest(folder);
    let shown = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    if let Err(error) = try_write(&place) {
        return report.problem(topic, format!("{} cannot be written: {error}", shown.display()), other);
    }
    let new = if folder.exists() { "" } else { " (made when needed)" };
    match free_bytes(&place) {
        Ok(free) if free < LITTLE => report.problem(
            topic,
            format!("{}: only {} MiB free", shown.display(), free >> 20),
            format!("free some space, or {other}"),
        ),
        Ok(free) => report.ok(topic, format!("{}{new}: writable, {} GiB free", shown.display(), free >> 30)),
        Err(error) => report.note(topic, format!("{}: writable; free space unknown: {error}", shown.display()), None),
    }
}

/// `folder` itself or the nearest parent that exists: there the first run makes the folder.
fn nearest(folder: &Path) -> PathBuf {
    let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    whole.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_owned()
}

fn try_write(folder: &Path) -> io::Result<()> {
    if !folder.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is a file"));
    }
    let probe = folder.join(format!(".anyo-doctor-{}", std::process::id()));
    fs::OpenOptions::new().write(true).create_new(true).open(&probe)?;
    fs::remove_file(&probe)
}

/// Bytes that this user may still write on the file system of `folder`.
fn free_bytes(folder: &Path) -> io::Result<u64> {
    let name = CString::new(folder.as_os_str().as_bytes())?;
    let mut stats = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `name` ends in a zero byte, and statvfs fills the whole struct when it returns 0.
    let stats = unsafe {
        if libc::statvfs(name.as_ptr(), stats.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        stats.assume_init()
    };
    // the field types differ between systems
    #[allow(clippy::unnecessary_cast)]
    Ok(stats.f_bavail as u64 * stats.f_frsize as u64)
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

    fn line(folder: &Path) -> (Level, String) {
        let mut report = Report::default();
        check_one(&mut report, "result", folder, "choose another");
        (report.lines[0].level, report.lines[0].message.clone())
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_fine() {
        let base = tempfile::tempdir().unwrap();
        let (level, message) = line(&base.path().join("a/b"));
        assert_eq!(level, Level::Ok, "{message}");
        assert!(message.contains("made when needed"), "{message}");
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0, "the probe is removed");
    }

    #[test]
    fn a_file_in_the_way_is_a_problem() {
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("result");
        fs::write(&file, "").unwrap();
        let (level, message) = line(&file);
        assert_eq!(level, Level::Problem);
        assert!(message.ends_with("cannot be written: it is a file"), "{message}");
    }
}

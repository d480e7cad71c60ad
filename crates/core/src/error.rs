//! The one error type of the libraries: each variant holds what a person needs to act on it.

use std::{io, path::PathBuf};

/// Result of everything in this workspace's libraries.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong: the message is lower case and names path, key, wanted and got; [`Error::hint`] says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The command line or the configuration is wrong; nothing was started.
    #[error("{0}")]
    Config(crate::config::Report),
    /// The operating system refused `action` on `path`.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a verb phrase: "read the interactions".
        action: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A data file does not say what it should.
    #[error("{}{}: {message}", path.display(), line.map_or(String::new(), |l| format!(" line {l}")))]
    Data {
        /// The file.
        path: PathBuf,
        /// 1-based line, where there is one.
        line: Option<u64>,
        /// Wanted and got.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A checkpoint cannot be used.
    #[error("{}: {message}", path.display())]
    Checkpoint {
        /// The checkpoint's folder or file.
        path: PathBuf,
        /// Wanted and got.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A value that the caller gave cannot be used.
    #[error("{message}")]
    Invalid {
        /// Wanted and got.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The computation failed: NaN loss, no memory.
    #[error("{message}")]
    Run {
        /// What happened, with the step.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// SIGINT or SIGTERM; what was done is saved.
    #[error("interrupted{}", if detail.is_empty() { String::new() } else { format!(": {detail}") })]
    Interrupted {
        /// Where the work was saved.
        detail: String,
    },
    /// libtorch refused an operation.
    #[cfg(feature = "torch")]
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

impl Error {
    /// An [`Error::Io`] maker for `map_err`.
    pub fn io(path: impl Into<PathBuf>, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, action, source }
    }

    /// An [`Error::Invalid`] without a hint.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), hint: None }
    }

    /// What the user can do about it, if anything is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Data { hint, .. }
            | Self::Checkpoint { hint, .. }
            | Self::Invalid { hint, .. }
            | Self::Run { hint, .. } => hint.clone(),
            Self::Io { source, .. } => io_hint(source).map(str::to_owned),
            Self::Config(_) | Self::Interrupted { .. } => None,
            #[cfg(feature = "torch")]
            Self::Torch(_) => None,
        }
    }

    /// 1 the run failed, 2 bad command or configuration, 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Interrupted { .. } => 130,
            _ => 1,
        }
    }
}

fn io_hint(source: &io::Error) -> Option<&'static str> {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("the disk is full; free some space, then continue with --resume")
        }
        io::ErrorKind::FileTooLarge => Some("the limit for the size of a file is reached (ulimit -f)"),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Some("the folder cannot be written; choose another with run.dir=PATH")
        }
        _ => None,
    }
}

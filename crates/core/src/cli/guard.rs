//! A panic is our bug: the user reads one line, `run.log` gets the place and the backtrace.

use std::{
    backtrace::Backtrace,
    cell::RefCell,
    panic::{self, AssertUnwindSafe, UnwindSafe},
    path::Path,
    sync::Once,
};

thread_local! {
    /// What the hook saw of the last panic of this thread.
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A caught panic.
pub(crate) struct Panic {
    /// Its text, on one line.
    pub(crate) message: String,
    /// Text, place and backtrace.
    pub(crate) details: String,
}

/// Replaces the default hook, which would print a block for developers.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let details = format!("{info}\n{}", Backtrace::force_capture());
            LAST.with(|last| *last.borrow_mut() = Some(details));
        }));
    });
}

/// Runs `work`; a panic comes back as a value.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Panic> {
    fn caught<T>(work: impl FnOnce() -> T + UnwindSafe) -> Result<T, Panic> {
        panic::catch_unwind(work).map_err(|payload| {
            let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
            let text =
                text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "unknown panic".into());
            let message = text.lines().next().unwrap_or_default().to_owned();
            let details = LAST.with(|last| last.borrow_mut().take()).unwrap_or(text);
            Panic { message, details }
        })
    }
    caught(AssertUnwindSafe(work))
}

/// The line for the user; returns the exit code.
pub(crate) fn tell(panic: &Panic, log: Option<&Path>) -> u8 {
    let place = match log {
        Some(log) => format!("see {}", log.display()),
        None => panic.details.lines().take(2).collect::<Vec<_>>().join(" "),
    };
    let line = format!("error: internal error: {}; this is a bug, {place}\n", panic.message);
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    1
}

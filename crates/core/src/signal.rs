//! SIGINT and SIGTERM: the first one asks for an orderly stop, the second one ends the process at once with 130.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use signal_hook::consts::{SIGINT, SIGTERM};

static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// A flag that the first signal sets; safe to call more than once.
pub(crate) fn stop_flag() -> Arc<AtomicBool> {
    let install = || {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The shutdown looks at the flag before the second handler sets it, so the order matters. Registering can
            // only fail for signals that cannot be caught.
            let _ = signal_hook::flag::register_conditional_shutdown(signal, 130, flag.clone());
            let _ = signal_hook::flag::register(signal, flag.clone());
        }
        flag
    };
    STOP.get_or_init(install).clone()
}

/// Whether a stop has been asked for.
pub(crate) fn stopped() -> bool {
    STOP.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

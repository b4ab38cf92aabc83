//! Ctrl-C and requests to end, as a flag that long work looks at.
//!
//! Knows no work. The first signal sets the flag, so that the work can be undone; the second ends the process
//! at once, for users who do not want to wait.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Signals that ask for an end.
const SIGNALS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// Set once a signal has come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Starts to watch; holds for the rest of the process.
    pub(crate) fn watch() -> io::Result<Self> {
        let this = Self::default();
        for signal in SIGNALS {
            // Handlers run in this order: at the first signal the flag is still unset, so only the second ends it.
            let code = i32::from(crate::exit::Exit::Interrupted.number());
            flag::register_conditional_shutdown(signal, code, Arc::clone(&this.0))?;
            flag::register(signal, Arc::clone(&this.0))?;
        }
        Ok(this)
    }

    /// Whether a signal has come.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
impl Interrupt {
    /// As if a signal had come.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

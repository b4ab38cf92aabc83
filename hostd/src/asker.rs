//! Whether somebody still waits for the answer of a verb.
//!
//! Owns one flag. Must not know connections nor verbs. Flow: `control` makes one for a request and drops the
//! [`Waiting`] with it, be it answered or cut off; a verb that takes long asks [`Asker::is_gone`] now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Who asked for a verb.
#[derive(Debug, Clone, Default)]
pub struct Asker {
    gone: Arc<AtomicBool>,
}

/// They wait until this is dropped.
#[derive(Debug)]
pub struct Waiting(Asker);

impl Asker {
    /// They begin to wait.
    #[must_use]
    pub fn waits(&self) -> Waiting {
        Waiting(self.clone())
    }

    /// Whether they have left.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::Relaxed);
    }
}

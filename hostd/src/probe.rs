//! Whether a file system answers at all.
//!
//! Owns the one thread that may hang in its place; must not know what the file system is for. A call that hangs, as on
//! a hard NFS mount whose server is gone, cannot be given up by whoever made it. Flow: [`Probe::answers`] asks on a
//! thread of its own and waits for a while; until that thread is back, everybody else is told at once.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

/// How long an answer may take. Storage that is busy takes less, one that is gone never answers.
const WAIT: Duration = Duration::from_secs(2);

/// Stack of a thread that asks: it makes one call, each verb makes one, and the process locks its memory.
const STACK: usize = 256 * 1024;

/// Asks one file system, with one question at a time.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// When the question was asked that has no answer yet.
    asked: Mutex<Option<Instant>>,
    answered: Condvar,
}

impl Probe {
    /// Whether the file system of `path` answers, be it by an error.
    pub(crate) fn answers(&self, path: &Path) -> bool {
        let mut asked = self.shared.lock();
        let since = match *asked {
            Some(since) => since,
            None => {
                let since = *asked.insert(Instant::now());
                let (shared, path) = (Arc::clone(&self.shared), path.to_owned());
                let asking =
                    Builder::new().name("probe".into()).stack_size(STACK).spawn(move || {
                        // Never answered from a cache of names, as stat(2) may be.
                        let _ = rustix::fs::statvfs(&path);
                        *shared.lock() = None;
                        shared.answered.notify_all();
                    });
                if let Err(e) = asking {
                    tracing::warn!("no thread to ask a datastore: {e}");
                    *asked = None;
                    return true;
                }
                since
            }
        };
        while asked.is_some() {
            let left = WAIT.saturating_sub(since.elapsed());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.answered.wait_timeout(asked, left);
            asked = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_answers_and_so_does_what_is_not() {
        let probe = Probe::default();
        for path in ["/", "/proc", "/nowhere/at/all"] {
            assert!(probe.answers(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn a_question_without_an_answer_is_not_asked_again() {
        let probe = Probe::default();
        let long_ago = Instant::now().checked_sub(WAIT * 2).unwrap();
        *probe.shared.lock() = Some(long_ago);
        assert!(!probe.answers(Path::new("/")));
        assert_eq!(*probe.shared.lock(), Some(long_ago));
        *probe.shared.lock() = None;
        assert!(probe.answers(Path::new("/")));
    }
}

//! How many verbs may be at work on one datastore.
//!
//! Owns a count and its limit; must not know verbs nor storage. Each verb holds one of the threads that answer requests,
//! and one that has gone into storage that hangs holds it until the storage is back. Flow: a verb asks for a [`Pass`]
//! and drops it at its end; while there is none it waits, as long as the storage answers.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a verb waits for others to end while the storage answers; as long as it waits for another verb of its VM.
const WAIT: Duration = Duration::from_secs(90);

/// How often it is asked meanwhile whether the storage still answers.
const STEP: Duration = Duration::from_millis(500);

/// Verbs at work.
#[derive(Debug)]
pub(crate) struct Gate {
    most: usize,
    inside: Mutex<usize>,
    changed: Condvar,
}

/// The right to be at work; given back when dropped.
#[derive(Debug)]
pub(crate) struct Pass<'a>(&'a Gate);

/// Why there was no pass.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Shut {
    /// The storage does not answer.
    Silent,
    /// So many verbs are at work, and none ends.
    Full(usize),
}

impl Gate {
    /// For at most `most` verbs at a time.
    pub(crate) fn new(most: usize) -> Self {
        Self { most: most.max(1), inside: Mutex::new(0), changed: Condvar::new() }
    }

    /// Waits for a pass while the storage answers.
    ///
    /// # Errors
    /// [`Shut`].
    pub(crate) fn pass(&self, answers: impl Fn() -> bool) -> Result<Pass<'_>, Shut> {
        let end = Instant::now() + WAIT;
        let mut inside = self.inside();
        while *inside >= self.most {
            let waited = self.changed.wait_timeout(inside, STEP);
            let (guard, step) = waited.unwrap_or_else(PoisonError::into_inner);
            inside = guard;
            if *inside < self.most || !step.timed_out() {
                continue;
            }
            drop(inside);
            if !answers() {
                return Err(Shut::Silent);
            }
            if Instant::now() >= end {
                return Err(Shut::Full(self.most));
            }
            inside = self.inside();
        }
        *inside += 1;
        Ok(Pass(self))
    }

    /// The count changes by one statement, so a panic elsewhere leaves it right.
    fn inside(&self) -> MutexGuard<'_, usize> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        *self.0.inside() -= 1;
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_too_many_is_told_when_the_storage_hangs() {
        let gate = Gate::new(2);
        let held = [gate.pass(|| true).unwrap(), gate.pass(|| false).unwrap()];
        assert_eq!(gate.pass(|| false).unwrap_err(), Shut::Silent);
        drop(held);
        assert!(gate.pass(|| false).is_ok());
    }

    #[test]
    fn one_too_many_waits_while_the_storage_answers() {
        let gate = Gate::new(1);
        let held = gate.pass(|| true).unwrap();
        let (asked, answered) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let waits = || gate.pass(|| asked.send(()).is_ok()).map(drop);
            let other = scope.spawn(waits);
            answered.recv_timeout(Duration::from_secs(30)).unwrap();
            assert!(!other.is_finished());
            drop(held);
            other.join().unwrap().unwrap();
        });
        assert_eq!(*gate.inside(), 0);
    }
}

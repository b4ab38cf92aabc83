//! Flushing for many at once, and keeping the first failure.
//!
//! Owns who flushes, who waits and what failed; must not know what is flushed. Flow: a flush that is asked
//! for while another runs waits for the end of that one, which may have begun too early, and then one of
//! the waiting does it for all of them. After a failure all that follow fail.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Lets one thread flush for all that asked before it began.
#[derive(Default)]
pub(crate) struct Flusher {
    state: Mutex<State>,
    finished: Condvar,
}

#[derive(Default)]
struct State {
    running: bool,
    /// Number of flushes begun.
    begun: u64,
    /// Number of the last flush that ended well.
    done: u64,
    failed: Option<Failure>,
}

/// The first failure, kept for good: Linux tells a lost page to one flush only and then takes it for
/// written, so a later flush that succeeds proves nothing.
#[derive(Clone, Copy)]
struct Failure {
    kind: io::ErrorKind,
    errno: Option<i32>,
}

/// What a call asks of the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Durable data; any flush that began later serves as well.
    Shared,
    /// More than that: it must be done itself, and serves those who wait too.
    Own,
    /// Only the storage's verdict on earlier writes; nobody is served by it.
    Verdict,
}

impl Flusher {
    /// Returns once a `sync` that began after this call has ended well.
    pub(crate) fn flush(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.run(Kind::Shared, sync)
    }

    /// [`Flusher::flush`] by a `sync` that does more than that of the others, and so cannot be left to them.
    pub(crate) fn flush_myself(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.run(Kind::Own, sync)
    }

    /// Runs a `call` that may fetch the failure of an earlier write, but makes nothing durable.
    pub(crate) fn ask(&self, call: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.run(Kind::Verdict, call)
    }

    /// The first failure, if there was one.
    pub(crate) fn verdict(&self) -> io::Result<()> {
        self.state().failed.map_or(Ok(()), |failure| Err(failure.into()))
    }

    /// One at a time: of two that run together the system may tell the failure to one and success to the
    /// other, before the first can note it.
    fn run(&self, kind: Kind, call: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state();
        let needed = state.begun + 1;
        let served = |state: &State| kind == Kind::Shared && state.done >= needed;
        while state.running && !served(&state) {
            state = self.finished.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(failure) = state.failed {
            return Err(failure.into());
        }
        if served(&state) {
            return Ok(());
        }
        if kind != Kind::Verdict {
            state.begun += 1;
        }
        state.running = true;
        let number = state.begun;
        drop(state);
        let result = call();
        let mut state = self.state();
        state.running = false;
        match &result {
            Ok(()) if kind == Kind::Verdict => {}
            Ok(()) => state.done = number,
            Err(error) => state.failed = Some(Failure::of(error)),
        }
        drop(state);
        self.finished.notify_all();
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failure {
    fn of(error: &io::Error) -> Self {
        Self { kind: error.kind(), errno: error.raw_os_error() }
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        failure.errno.map_or_else(|| failure.kind.into(), Self::from_raw_os_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn every_flush_alone_syncs() {
        let (flusher, syncs) = (Flusher::default(), AtomicU32::new(0));
        for _ in 0..3 {
            flusher
                .flush(|| {
                    syncs.fetch_add(1, Ordering::Relaxed);
                    Ok(())
                })
                .unwrap();
        }
        assert_eq!(syncs.into_inner(), 3);
    }

    #[test]
    fn one_sync_serves_all_that_wait() {
        let (flusher, syncs) = (Flusher::default(), AtomicU32::new(0));
        let (begun, has_begun) = mpsc::channel();
        let (end, may_end) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let (flusher, syncs) = (&flusher, &syncs);
            scope.spawn(move || {
                flusher
                    .flush(|| {
                        begun.send(()).unwrap();
                        may_end.recv().unwrap();
                        Ok(())
                    })
                    .unwrap();
            });
            has_begun.recv().unwrap();
            for _ in 0..8 {
                scope.spawn(|| {
                    flusher
                        .flush(|| {
                            syncs.fetch_add(1, Ordering::Relaxed);
                            Ok(())
                        })
                        .unwrap();
                });
            }
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(syncs.load(Ordering::Relaxed), 0, "they wait for the one that runs");
            end.send(()).unwrap();
        });
        // All eight asked while the first ran, so the next one, whoever does it, serves them all; a
        // thread that was slow to start may have needed one of its own.
        assert!((1..=8).contains(&syncs.load(Ordering::Relaxed)));
        assert_eq!(flusher.state().begun, 1 + u64::from(syncs.into_inner()));
    }

    #[test]
    fn a_verdict_makes_nothing_durable_and_its_failure_stays() {
        let flusher = Flusher::default();
        flusher.ask(|| Ok(())).unwrap();
        assert_eq!(flusher.state().done, 0);
        assert!(flusher.ask(|| Err(io::Error::from_raw_os_error(28))).is_err());
        for result in [flusher.flush(|| Ok(())), flusher.flush_myself(|| Ok(())), flusher.verdict()]
        {
            assert_eq!(result.unwrap_err().raw_os_error(), Some(28));
        }
    }

    #[test]
    fn a_failure_stays() {
        let flusher = Flusher::default();
        let failed = || Err(io::Error::from_raw_os_error(5));
        assert_eq!(flusher.flush(failed).unwrap_err().raw_os_error(), Some(5));
        assert_eq!(flusher.flush(|| Ok(())).unwrap_err().raw_os_error(), Some(5));
    }
}

//! The threads of one connection, and whose turn it is to receive.
//!
//! Owns the desk (what goes with receiving), its passing from hand to hand, and the number of threads. It must not
//! know the protocol. Flow: the thread at the desk takes requests one after the other and works on them itself, as
//! long as that takes no time to speak of; before it waits for the storage, or works on a long request while others
//! are at hand, it gives the desk away by [`Crew::lend`], and comes back for it by [`Crew::take`]. So a request never
//! moves to another thread, a connection with one request at a time never wakes one, and one with many has up
//! to [`MAX_THREADS`] in the storage at once (leaders and followers: Schmidt et al., "Leader/Followers", 2000).

use super::connection::ConnectionError;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Threads of one connection at most: as many requests as QEMU has in flight, and enough to keep a drive busy.
pub(super) const MAX_THREADS: usize = 16;

/// A thread that nobody has needed for this long ends.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// Why the desk is given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lend {
    /// To share work that keeps a processor busy: to as many threads as there are processors.
    Work,
    /// To wait for the storage: to a new thread if need be.
    Wait,
}

/// What [`Crew::take`] found.
pub(super) enum Turn<D> {
    /// The desk.
    Desk(D),
    /// Nothing for a while.
    Nothing,
    /// The end of the connection.
    Over,
}

/// The threads of a connection around the desk `D`.
pub(super) struct Crew<D> {
    state: Mutex<State<D>>,
    changed: Condvar,
}

struct State<D> {
    /// The desk, while nobody sits at it.
    desk: Option<D>,
    threads: usize,
    /// Of those, the ones that wait for the desk.
    waiting: usize,
    outcome: Option<Result<(), ConnectionError>>,
}

impl<D> Crew<D> {
    /// One thread, the caller's, that is to take `desk`.
    pub(super) fn new(desk: D) -> Self {
        let state = State { desk: Some(desk), threads: 1, waiting: 0, outcome: None };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Leaves the desk to others, and calls one. True when there is none to call and the caller is to make a thread,
    /// which is counted already.
    pub(super) fn lend(&self, desk: D, why: Lend) -> bool {
        let mut state = self.state();
        state.desk = Some(desk);
        self.call(state, why)
    }

    /// Calls a thread to the desk if nobody sits at it: the caller had lent it to share work, and must now wait
    /// for the storage. True as for [`Crew::lend`].
    pub(super) fn urge(&self) -> bool {
        let state = self.state();
        state.desk.is_some() && self.call(state, Lend::Wait)
    }

    fn call(&self, mut state: MutexGuard<'_, State<D>>, why: Lend) -> bool {
        let working = state.threads - state.waiting;
        if why == Lend::Work && working >= processors() {
            // Whoever has done its request first comes back to it.
            return false;
        }
        if state.waiting > 0 {
            drop(state);
            self.changed.notify_one();
            return false;
        }
        let another = state.threads < MAX_THREADS;
        state.threads += usize::from(another);
        another
    }

    /// Waits for the desk, for a while or, with `patient`, until something happens.
    pub(super) fn take(&self, patient: bool) -> Turn<D> {
        let mut state = self.state();
        loop {
            if state.outcome.is_some() {
                return Turn::Over;
            }
            if let Some(desk) = state.desk.take() {
                return Turn::Desk(desk);
            }
            state.waiting += 1;
            let timed_out;
            if patient {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                timed_out = false;
            } else {
                let woken = self.changed.wait_timeout(state, IDLE_AFTER);
                let (guard, result) = woken.unwrap_or_else(PoisonError::into_inner);
                (state, timed_out) = (guard, result.timed_out());
            }
            state.waiting -= 1;
            if timed_out && state.desk.is_none() && state.outcome.is_none() {
                return Turn::Nothing;
            }
        }
    }

    /// A thread ends, or could not be made.
    pub(super) fn leave(&self) {
        self.state().threads -= 1;
    }

    /// The connection is over: nobody takes the desk any more. The first outcome counts.
    pub(super) fn end(&self, outcome: Result<(), ConnectionError>) {
        let mut state = self.state();
        state.desk = None;
        if state.outcome.is_none() {
            state.outcome = Some(outcome);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// How the connection ended, once all threads have.
    pub(super) fn outcome(self) -> Result<(), ConnectionError> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.outcome.unwrap_or(Ok(()))
    }

    /// Whether the caller is the only thread that works.
    pub(super) fn is_alone(&self) -> bool {
        let state = self.state();
        state.threads - state.waiting <= 1
    }

    /// The state is whole after every statement, so a panic elsewhere does not spoil it.
    fn state(&self) -> MutexGuard<'_, State<D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Processors that this process may use.
fn processors() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

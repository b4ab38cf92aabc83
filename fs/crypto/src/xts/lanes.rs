//! Owns the AWS-LC contexts of one key: a few lanes, so that threads do not wait for each other.
//!
//! It must not know XTS. Flow: a thread tries the lane of its hint, then the others, and waits for
//! its own only when all are busy; a lane makes its context of a direction on first use.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use super::aws_lc::Context;
use super::{Direction, XtsError};
use crate::keys::Dek;

/// Lanes of one disk. A disk's NBD connections and home workers are at most this many busy threads
/// at once on the hosts we know; a context takes about 1 KiB, made only when needed.
const LANES: usize = 8;

/// The key and its contexts. Dropping it wipes both.
pub(super) struct Lanes {
    key: Dek,
    lanes: Box<[Lane; LANES]>,
}

/// On its own pair of cache lines, so that two threads' locks do not share one.
#[repr(align(128))]
struct Lane(Mutex<Contexts>);

#[derive(Default)]
struct Contexts {
    encrypt: Option<Context>,
    decrypt: Option<Context>,
}

impl Lanes {
    pub(super) fn new(key: Dek) -> Self {
        Self { key, lanes: Box::new(std::array::from_fn(|_| Lane(Mutex::default()))) }
    }

    /// Runs `work` with a context of this direction that no other thread uses meanwhile.
    #[inline]
    pub(super) fn with(
        &self,
        direction: Direction,
        work: impl FnOnce(&mut Context) -> Result<(), XtsError>,
    ) -> Result<(), XtsError> {
        let mut lane = self.lane();
        let context = match direction {
            Direction::Encrypt => &mut lane.encrypt,
            Direction::Decrypt => &mut lane.decrypt,
        };
        match context {
            Some(context) => work(context),
            None => work(context.insert(Context::new(&self.key, direction)?)),
        }
    }

    /// A free lane, or this thread's own as soon as it is free. A poisoned lane is usable: each unit
    /// sets its tweak anew.
    #[inline]
    fn lane(&self) -> MutexGuard<'_, Contexts> {
        let own = thread_hint() % LANES;
        for step in 0..LANES {
            match self.lanes[(own + step) % LANES].0.try_lock() {
                Ok(lane) => return lane,
                Err(TryLockError::Poisoned(lane)) => return lane.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        self.lanes[own].0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number of this thread, given on first use in turn.
#[inline]
fn thread_hint() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static HINT: Cell<Option<usize>> = const { Cell::new(None) };
    }
    HINT.get().unwrap_or_else(|| {
        let hint = NEXT.fetch_add(1, Ordering::Relaxed);
        HINT.set(Some(hint));
        hint
    })
}

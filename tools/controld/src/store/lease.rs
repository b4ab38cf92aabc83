//! A lease that a thread keeps alive: the sign of life of one controld.
//!
//! Owns that thread and the time until which the lease is surely ours. Must not know what is kept under it.

use super::{LEASE_LIFE, Lease, Store, StoreError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The lease is kept alive this many times in its life, so that two failures in a row do not end it.
const BEATS: u32 = 4;

/// A lease in use.
pub struct Session {
    store: Arc<dyn Store>,
    lease: Lease,
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Until then it is ours, as counted from before the last call that kept it.
    sure_until: Instant,
    stop: bool,
}

impl Session {
    /// Takes a lease, and keeps it until the session is dropped.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn begin(store: Arc<dyn Store>, life: Duration) -> Result<Self, StoreError> {
        let asked = Instant::now();
        let lease = store.grant(life)?;
        let state = Mutex::new(State { sure_until: asked + life, stop: false });
        let shared = Arc::new(Shared { state, changed: Condvar::new() });
        let keeper = std::thread::Builder::new().name("lease".into()).spawn({
            let (store, shared) = (Arc::clone(&store), Arc::clone(&shared));
            move || keep(store.as_ref(), lease, life, &shared)
        });
        let keeper = keeper.map_err(|e| StoreError::Unavailable {
            reason: format!("no thread can be started to keep the lease: {e}"),
        })?;
        Ok(Self { store, lease, shared, keeper: Some(keeper) })
    }

    /// The lease.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.lease
    }

    /// Whether the lease is surely ours now. When it is not any more, begin another session.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.shared.state().sure_until > Instant::now()
    }
}

impl Drop for Session {
    /// Gives the lease back, so that others need not wait for its end.
    fn drop(&mut self) {
        self.shared.state().stop = true;
        self.shared.changed.notify_all();
        if let Some(keeper) = self.keeper.take() {
            // It ended by itself, or by a panic that its thread has reported.
            let _ended = keeper.join();
        }
        if let Err(e) = self.store.revoke(self.lease) {
            tracing::debug!("a lease was not given back, and ends by itself: {e}");
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep(store: &dyn Store, lease: Lease, life: Duration, shared: &Shared) {
    loop {
        let state = shared.state();
        let wait = shared.changed.wait_timeout_while(state, life / BEATS, |state| !state.stop);
        if wait.unwrap_or_else(PoisonError::into_inner).0.stop {
            return;
        }
        let asked = Instant::now();
        match store.keep_alive(lease) {
            Ok(()) => shared.state().sure_until = asked + life,
            Err(StoreError::LeaseLost { .. }) => {
                shared.state().sure_until = asked;
                tracing::warn!("the lease of this controld has ended; others may do its work now");
                return;
            }
            Err(e) => tracing::warn!("the lease of this controld was not renewed: {e}"),
        }
    }
}

/// Holds the life of a lease against its bounds.
pub(super) fn check_life(life: Duration) -> Result<(), StoreError> {
    if LEASE_LIFE.contains(&life) {
        return Ok(());
    }
    let (least, most) = (LEASE_LIFE.start().as_secs(), LEASE_LIFE.end().as_secs());
    Err(StoreError::Limit(format!(
        "a lease of {} s; leases last {least} to {most} s",
        life.as_secs_f32()
    )))
}

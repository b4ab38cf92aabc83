//! How many operations run at a time, and one fetch for everybody who wants the same key.
//!
//! Owns two ways to wait. It must not know what is waited for. Flow: [`Gate::enter`] lets so many in; [`Flights::join`] makes the
//! first who asks for a key the pilot, and the others wait for what it brings.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most keys that are fetched in one message: as many as fit with their states.
pub(super) const MAX_TOGETHER: usize = super::request::MAX_BATCH / 2;

/// Most fetches of a provider at a time, and most keys that are made. After a start of the host all its VMs ask at once; more connections would not make
/// a server faster, and the hosts of a cluster start together.
pub(super) const MAX_AT_ONCE: usize = 4;

/// How long an operation waits for its turn. The time of the operation itself begins after that: a thousand keys take seconds,
/// and none of them may fail for having been the last.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(60);

/// Lets a bounded number in.
pub(crate) struct Gate {
    free: Mutex<usize>,
    left: Condvar,
}

/// A place inside; given back when dropped.
pub(crate) struct Place<'a>(&'a Gate);

impl Gate {
    pub(crate) fn new(places: usize) -> Self {
        Self { free: Mutex::new(places), left: Condvar::new() }
    }

    /// Waits for a place, at most until `end`.
    pub(crate) fn enter(&self, end: Instant) -> Option<Place<'_>> {
        let mut free = lock(&self.free);
        while *free == 0 {
            let wait = end.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return None;
            }
            free = self.left.wait_timeout(free, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        *free -= 1;
        Some(Place(self))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.left.notify_one();
    }
}

/// Fetches under way, by the id of the key.
pub(super) struct Flights<T> {
    under_way: Mutex<BTreeMap<String, Arc<Flight<T>>>>,
}

struct Flight<T> {
    brought: Mutex<Option<T>>,
    landed: Condvar,
}

impl<T: Clone> Flights<T> {
    pub(super) fn new() -> Self {
        Self { under_way: Mutex::default() }
    }

    /// What `fetch` brings, by this caller or by one who was first, waited for until `end`. `None` when the other did not
    /// land in time, or crashed.
    pub(super) fn join(&self, key: &str, end: Instant, fetch: impl FnOnce() -> T) -> Option<T> {
        let mut under_way = lock(&self.under_way);
        if let Some(flight) = under_way.get(key).cloned() {
            drop(under_way);
            return flight.wait(end);
        }
        let flight = Arc::new(Flight { brought: Mutex::new(None), landed: Condvar::new() });
        under_way.insert(key.to_owned(), Arc::clone(&flight));
        drop(under_way);
        // Also when the fetch panics: nobody may wait for a pilot who is gone.
        let end = Landing { flights: self, flight: &flight, key };
        let brought = fetch();
        *lock(&flight.brought) = Some(brought.clone());
        drop(end);
        Some(brought)
    }
}

impl<T: Clone> Flight<T> {
    fn wait(&self, end: Instant) -> Option<T> {
        let mut brought = lock(&self.brought);
        loop {
            if let Some(brought) = brought.as_ref() {
                return Some(brought.clone());
            }
            let wait = end.saturating_duration_since(Instant::now());
            // The list and the pilot hold a flight that is under way; only waiters hold one whose pilot crashed.
            if wait.is_zero() {
                return None;
            }
            brought =
                self.landed.wait_timeout(brought, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

struct Landing<'a, T: Clone> {
    flights: &'a Flights<T>,
    flight: &'a Flight<T>,
    key: &'a str,
}

impl<T: Clone> Drop for Landing<'_, T> {
    fn drop(&mut self) {
        lock(&self.flights.under_way).remove(self.key);
        self.flight.landed.notify_all();
    }
}

/// The values are changed by single assignments, so a panic elsewhere cannot leave them half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn no_more_than_the_places_are_inside() {
        let (gate, inside, most) = (Gate::new(3), AtomicUsize::new(0), AtomicUsize::new(0));
        let end = Instant::now() + Duration::from_secs(30);
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    let _place = gate.enter(end).expect("a place in time");
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(2));
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert!((1..=3).contains(&most.into_inner()));
        let places: Vec<_> = (0..3).map(|_| gate.enter(end)).collect();
        assert!(gate.enter(Instant::now()).is_none());
        drop(places);
    }

    #[test]
    fn one_fetches_for_all_who_wait() {
        let (flights, fetches) = (Flights::new(), AtomicUsize::new(0));
        let end = Instant::now() + Duration::from_secs(30);
        let ready = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    ready.wait();
                    let brought = flights.join("7", end, || {
                        // Long enough for the others to come.
                        std::thread::sleep(Duration::from_millis(200));
                        fetches.fetch_add(1, Ordering::SeqCst) + 1
                    });
                    assert!(brought.is_some());
                });
            }
        });
        assert!(fetches.load(Ordering::SeqCst) < 8, "nobody waited for another");
        assert_eq!(flights.join("7", end, || 99), Some(99), "a landed flight is over");
    }
}

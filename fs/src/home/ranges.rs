//! Byte-range locks inside one file: shared for readers, exclusive for writers.
//!
//! Owns who may touch which sectors now; must not know files or ciphers. Aligned writers of disjoint ranges
//! never wait for each other; a writer that has to read its edge sectors first keeps others off these
//! sectors, and a reader never sees half a cipher block. Flow: [`RangeLock::acquire`] queues, waits for
//! conflicting ranges queued earlier, and the guard leaves the queue.

use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Room for this many requests in one file before the queue allocates: twice the threads of a large host.
const ROOM: usize = 64;

/// What a holder does with its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    range: Range<u64>,
    access: Access,
}

impl Entry {
    fn conflicts(&self, other: &Entry) -> bool {
        (self.access == Access::Write || other.access == Access::Write)
            && self.range.start < other.range.end
            && other.range.start < self.range.end
    }
}

#[derive(Debug)]
struct Queue {
    entries: Vec<Entry>,
    next_id: u64,
    /// Requests that wait. Waking is a system call, also when there is none.
    waiting: usize,
}

/// First come, first served locks on byte ranges.
#[derive(Debug)]
pub(crate) struct RangeLock {
    queue: Mutex<Queue>,
    left: Condvar,
}

impl RangeLock {
    pub(crate) fn new() -> Self {
        let queue = Queue { entries: Vec::with_capacity(ROOM), next_id: 0, waiting: 0 };
        RangeLock { queue: Mutex::new(queue), left: Condvar::new() }
    }

    /// Waits until no earlier request conflicts. A thread must hold one range of a file at a time.
    pub(crate) fn acquire(&self, range: Range<u64>, access: Access) -> RangeGuard<'_> {
        let mut queue = self.lock();
        let id = queue.next_id;
        queue.next_id += 1;
        queue.entries.push(Entry { id, range, access });
        while blocked(&queue, id) {
            queue.waiting += 1;
            queue = self.left.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.waiting -= 1;
        }
        RangeGuard { lock: self, id }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // The queue is changed by single pushes and removals, so it is whole even after a panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn blocked(queue: &Queue, id: u64) -> bool {
    let Some(own) = queue.entries.iter().position(|entry| entry.id == id) else { return false };
    queue.entries[..own].iter().any(|earlier| earlier.conflicts(&queue.entries[own]))
}

/// A range held until it is dropped.
#[derive(Debug)]
pub(crate) struct RangeGuard<'a> {
    lock: &'a RangeLock,
    id: u64,
}

impl Drop for RangeGuard<'_> {
    fn drop(&mut self) {
        let mut queue = self.lock.lock();
        // `remove`, not `swap_remove`: the order is who came first.
        if let Some(at) = queue.entries.iter().position(|entry| entry.id == self.id) {
            queue.entries.remove(at);
        }
        let awaited = queue.waiting > 0;
        drop(queue);
        if awaited {
            self.lock.left.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    /// Does a second request get through while the first is held?
    fn passes(first: (Range<u64>, Access), second: (Range<u64>, Access)) -> bool {
        let lock = Arc::new(RangeLock::new());
        let held = lock.acquire(first.0, first.1);
        let (done, waited) = mpsc::channel();
        let other = Arc::clone(&lock);
        let thread = std::thread::spawn(move || {
            drop(other.acquire(second.0, second.1));
            done.send(()).unwrap();
        });
        let passed = waited.recv_timeout(Duration::from_millis(50)).is_ok();
        drop(held);
        thread.join().unwrap();
        assert!(lock.lock().entries.is_empty());
        passed
    }

    #[test]
    fn only_overlaps_with_a_writer_wait() {
        assert!(passes((0..512, Access::Write), (512..1024, Access::Write)));
        assert!(passes((0..512, Access::Read), (0..512, Access::Read)));
        assert!(!passes((0..1024, Access::Write), (512..1024, Access::Read)));
        assert!(!passes((0..1024, Access::Read), (0..512, Access::Write)));
        assert!(!passes((0..1024, Access::Write), (1023..4096, Access::Write)));
    }

    #[test]
    fn writers_of_one_range_are_alone() {
        let lock = RangeLock::new();
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for worker in 0..4_u64 {
                let (lock, inside) = (&lock, &inside);
                scope.spawn(move || {
                    for round in 0..500 {
                        let start = (worker + round) % 3 * 100;
                        let _held = lock.acquire(start..start + 250, Access::Write);
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(lock.lock().entries.is_empty());
    }
}

//! Keys that are wanted at the same time, fetched together.
//!
//! Owns the queue of ids and the places of those who fetch. It must not know what a fetch is. Flow: [`Gather::bring`] puts an id
//! into the queue; whoever finds a free place takes some ids from its front, its own or others', fetches them in one go, and lays down
//! what came for those who wait. One who comes alone fetches at once and alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The queue, and what was brought.
pub(super) struct Gather<T> {
    books: Mutex<Books<T>>,
    changed: Condvar,
    places: usize,
    together: usize,
}

struct Books<T> {
    queue: VecDeque<String>,
    /// Ids whose caller waits; one that is no more in here and was not brought will never be.
    waited_for: BTreeSet<String>,
    brought: BTreeMap<String, T>,
    free: usize,
}

impl<T> Gather<T> {
    /// `places` fetch at a time, each up to `together` ids.
    pub(super) fn new(places: usize, together: usize) -> Self {
        let books = Books {
            queue: VecDeque::new(),
            waited_for: BTreeSet::new(),
            brought: BTreeMap::new(),
            free: places,
        };
        Self { books: Mutex::new(books), changed: Condvar::new(), places, together }
    }

    /// What `fetch` brings for `id`, waited for until `end`. `fetch` gets ids that nobody else is fetching, and answers in
    /// their order. No id may be asked for twice at the same time. `None` when the time was over, or the one who fetched
    /// crashed.
    pub(super) fn bring(
        &self,
        id: &str,
        end: Instant,
        fetch: impl Fn(&[String]) -> Vec<T>,
    ) -> Option<T> {
        let mut books = self.books();
        books.queue.push_back(id.to_owned());
        books.waited_for.insert(id.to_owned());
        loop {
            if let Some(brought) = books.brought.remove(id) {
                return Some(brought);
            }
            if !books.waited_for.contains(id) {
                return None;
            }
            if books.free > 0 && !books.queue.is_empty() {
                let ids = books.take(self.places, self.together);
                drop(books);
                let turn = Turn { gather: self, ids: &ids };
                let brought = fetch(&ids);
                turn.end(brought);
                books = self.books();
                continue;
            }
            let wait = end.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                books.waited_for.remove(id);
                books.queue.retain(|queued| queued != id);
                return None;
            }
            let waited = self.changed.wait_timeout(books, wait);
            books = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The books are changed by single insertions and removals, so a panic elsewhere cannot leave them half changed.
    fn books(&self) -> MutexGuard<'_, Books<T>> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Books<T> {
    /// Takes a place, and ids for it: as many as leave the other places some.
    fn take(&mut self, places: usize, together: usize) -> Vec<String> {
        self.free -= 1;
        let share = self.queue.len().div_ceil(places).min(together);
        self.queue.drain(..share).collect()
    }
}

/// One who fetches. However it ends, the place is free again, and nobody waits for what will not come.
struct Turn<'a, T> {
    gather: &'a Gather<T>,
    ids: &'a [String],
}

impl<T> Turn<'_, T> {
    fn end(self, brought: Vec<T>) {
        let mut books = self.gather.books();
        for (id, brought) in self.ids.iter().zip(brought) {
            // One who waits no more left without it.
            if books.waited_for.remove(id) {
                books.brought.insert(id.clone(), brought);
            }
        }
    }
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        let mut books = self.gather.books();
        books.free += 1;
        for id in self.ids {
            books.waited_for.remove(id);
        }
        drop(books);
        self.gather.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[test]
    fn all_get_their_own_by_few_fetches() {
        let gather = Gather::new(3, 8);
        let (turns, inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for id in 0..40 {
                let (gather, turns, inside, most) = (&gather, &turns, &inside, &most);
                scope.spawn(move || {
                    let brought = gather.bring(&id.to_string(), later(), |ids| {
                        assert!((1..=8).contains(&ids.len()));
                        turns.fetch_add(1, Ordering::SeqCst);
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        // Long enough for the others to come.
                        std::thread::sleep(Duration::from_millis(50));
                        inside.fetch_sub(1, Ordering::SeqCst);
                        ids.iter().map(|id| format!("key {id}")).collect()
                    });
                    assert_eq!(brought, Some(format!("key {id}")));
                });
            }
        });
        assert!(most.into_inner() <= 3, "no more at a time than there are places");
        assert!(turns.into_inner() < 40, "nothing was fetched together");
        let books = gather.books();
        assert!(books.queue.is_empty() && books.brought.is_empty() && books.waited_for.is_empty());
        assert_eq!(books.free, 3);
    }

    #[test]
    fn nobody_waits_for_one_who_crashed() {
        let gather = Gather::<u32>::new(1, 8);
        std::thread::scope(|scope| {
            let crash = || gather.bring("1", later(), |_| panic!("as a test"));
            assert!(scope.spawn(crash).join().is_err());
        });
        assert_eq!(gather.bring("1", later(), |ids| vec![7; ids.len()]), Some(7));
        // Too few answers are the same as none.
        assert_eq!(gather.bring("1", later(), |_| Vec::new()), None);
    }

    #[test]
    fn one_who_is_late_leaves_nothing_behind() {
        let gather = Gather::new(1, 8);
        std::thread::scope(|scope| {
            let (begun, wait_begun) = std::sync::mpsc::channel();
            let gather = &gather;
            let slow = scope.spawn(move || {
                gather.bring("1", later(), |ids| {
                    begun.send(()).unwrap();
                    std::thread::sleep(Duration::from_millis(100));
                    vec![1; ids.len()]
                })
            });
            wait_begun.recv().unwrap();
            assert_eq!(gather.bring("2", Instant::now(), |_| vec![2]), None);
            assert_eq!(slow.join().unwrap(), Some(1));
        });
        assert!(gather.books().queue.is_empty() && gather.books().brought.is_empty());
    }
}

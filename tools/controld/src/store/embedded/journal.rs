//! The latest changes of an embedded store, for its watches.
//!
//! Owns a bounded list in memory; must not know the file. A watch that falls behind its beginning is told so.

use crate::store::{Change, Event, EventKind, Revision, StoreError};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Most events that are kept: a watch that is slower than that by a few seconds reads everything again.
const KEPT: usize = 10_000;

/// The changes since the process began, or the last ones of them.
#[derive(Debug)]
pub(super) struct Journal {
    state: Mutex<State>,
    grown: Condvar,
}

#[derive(Debug)]
struct State {
    events: VecDeque<Event>,
    /// Everything after this revision is there.
    floor: Revision,
    latest: Revision,
}

impl Journal {
    /// Begins after a revision.
    pub(super) fn new(at: Revision) -> Self {
        let state = State { events: VecDeque::new(), floor: at, latest: at };
        Self { state: Mutex::new(state), grown: Condvar::new() }
    }

    /// The last revision.
    pub(super) fn latest(&self) -> Revision {
        self.state().latest
    }

    /// Adds the events of one commit.
    pub(super) fn add(&self, revision: Revision, events: Vec<Event>) {
        let mut state = self.state();
        state.latest = revision;
        state.events.extend(events);
        while state.events.len() > KEPT
            && let Some(dropped) = state.events.pop_front()
        {
            state.floor = dropped.revision;
        }
        drop(state);
        self.grown.notify_all();
    }

    /// A panic elsewhere leaves it whole: events are added in one go.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far a watch has read.
#[derive(Debug)]
pub(super) struct JournalWatch {
    prefix: String,
    after: Revision,
}

impl JournalWatch {
    pub(super) fn new(prefix: &str, after: Revision) -> Self {
        Self { prefix: prefix.to_owned(), after }
    }

    /// Events that were not seen yet; waits for them until `end`.
    pub(super) fn wait(
        &mut self,
        journal: &Journal,
        end: Instant,
    ) -> Result<Vec<Event>, StoreError> {
        let mut state = journal.state();
        loop {
            if self.after < state.floor {
                return Err(StoreError::Compacted { after: self.after });
            }
            let new = state.events.iter().filter(|event| event.revision > self.after);
            let new: Vec<Event> =
                new.filter(|event| event.key.starts_with(&self.prefix)).cloned().collect();
            self.after = self.after.max(state.latest);
            let left = end.saturating_duration_since(Instant::now());
            if !new.is_empty() || left.is_zero() {
                return Ok(new);
            }
            let waited = journal.grown.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The event of a change.
pub(super) fn event(change: &Change, revision: Revision) -> Event {
    let kind = match change {
        Change::Put { .. } => EventKind::Put,
        Change::Delete { .. } => EventKind::Deleted,
    };
    Event { key: change.key().to_owned(), revision, kind }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_watch_that_falls_behind_is_told() {
        let journal = Journal::new(Revision(5));
        let mut slow = JournalWatch::new("k", Revision(5));
        let mut quick = JournalWatch::new("k", Revision(5));
        let now = Instant::now();
        let put = |n: usize| Change::Put { key: format!("k{n}"), value: Vec::new(), lease: None };
        for n in 0..KEPT + 1 {
            let revision = Revision(6 + u64::try_from(n).unwrap());
            journal.add(revision, vec![event(&put(n), revision)]);
            if n == KEPT / 2 {
                assert_eq!(quick.wait(&journal, now).unwrap().len(), KEPT / 2 + 1);
            }
        }
        assert!(matches!(
            slow.wait(&journal, now),
            Err(StoreError::Compacted { after: Revision(5) })
        ));
        assert_eq!(quick.wait(&journal, now).unwrap().len(), KEPT / 2);
        assert!(quick.wait(&journal, now + Duration::from_millis(1)).unwrap().is_empty());
        let early = JournalWatch::new("k", Revision(4)).wait(&journal, now);
        assert!(matches!(early, Err(StoreError::Compacted { .. })));
    }
}

//! What is known of the keys that went through this process.
//!
//! Owns states of keys and notes for the operator, both bounded, in memory alone. It must not know servers. Flow: each fetch and each
//! new key is noted; lists, alarms and the leave to wrap are read from here, without asking anybody.

use super::values::State;
use crate::{KeyState, KmsError};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most keys that are remembered: as many as VMs that a host may have, and then some.
const MAX_KEYS: usize = 16_384;

/// Most notes that are kept; they serve a person, who reads a page.
const MAX_NOTES: usize = 16;

/// The ledger.
#[derive(Default)]
pub(super) struct Ledger {
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    keys: BTreeMap<String, Entry>,
    notes: VecDeque<String>,
}

/// What is known of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) state: KeyState,
    /// When this process made it, seconds since 1970.
    pub(super) made: Option<u64>,
}

impl Ledger {
    /// A key was fetched, and has this state on the server that gave it.
    pub(super) fn fetched(&self, uid: &str, state: Option<State>) {
        let state = match state {
            Some(State::Deactivated) => KeyState::Deactivated,
            Some(State::Compromised) => KeyState::Compromised,
            _ => KeyState::Active,
        };
        self.enter(uid, state, None);
    }

    /// A key was made at `now`.
    pub(super) fn made(&self, uid: &str, now: u64) {
        self.enter(uid, KeyState::Active, Some(now));
    }

    fn enter(&self, uid: &str, state: KeyState, made: Option<u64>) {
        let mut books = self.books();
        if books.keys.len() >= MAX_KEYS && !books.keys.contains_key(uid) {
            books.keys.pop_first();
        }
        let entry = books.keys.entry(uid.to_owned()).or_insert(Entry { state, made });
        entry.state = state;
        entry.made = entry.made.or(made);
    }

    /// Notes something that an operator should know; the oldest note makes room.
    pub(super) fn note(&self, text: String) {
        let mut books = self.books();
        if books.notes.contains(&text) {
            return;
        }
        if books.notes.len() == MAX_NOTES {
            books.notes.pop_front();
        }
        books.notes.push_back(text);
    }

    /// Whether a key may wrap anything new, as far as is known.
    pub(super) fn may_wrap(&self, provider: &str, uid: &str) -> Result<(), KmsError> {
        let state = self.books().keys.get(uid).map_or(KeyState::Active, |entry| entry.state);
        if state == KeyState::Active {
            return Ok(());
        }
        let reason = format!(
            "key {provider}/{uid} is {} on the server, so it encrypts nothing new; give the VM another \
             one by `coffer key rotate`",
            word(state)
        );
        Err(KmsError::Denied { provider: provider.to_owned(), reason })
    }

    /// The keys, by id.
    pub(super) fn keys(&self) -> Vec<(String, Entry)> {
        self.books().keys.iter().map(|(uid, entry)| (uid.clone(), *entry)).collect()
    }

    /// What an operator should act on.
    pub(super) fn alarms(&self, provider: &str) -> Vec<String> {
        let books = self.books();
        let bad = books.keys.iter().filter(|(_, entry)| entry.state != KeyState::Active);
        let sentence = |(uid, entry): (&String, &Entry)| {
            format!(
                "key {provider}/{uid} is {} on the server and still in use: run `coffer key rotate`",
                word(entry.state)
            )
        };
        bad.take(MAX_NOTES).map(sentence).chain(books.notes.iter().cloned()).collect()
    }

    /// The books are changed by single insertions, so a panic elsewhere cannot leave them half changed.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn word(state: KeyState) -> &'static str {
    match state {
        KeyState::Active => "active",
        KeyState::Deactivated => "deactivated",
        KeyState::Compromised => "compromised",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_were_taken_back_wrap_nothing_and_are_alarms() {
        let ledger = Ledger::default();
        ledger.made("1", 7);
        ledger.fetched("1", Some(State::Active));
        ledger.fetched("2", Some(State::Deactivated));
        ledger.fetched("3", Some(State::Compromised));
        assert!(ledger.may_wrap("kmip", "1").is_ok());
        assert!(ledger.may_wrap("kmip", "never-seen").is_ok());
        for (uid, state) in [("2", "deactivated"), ("3", "compromised")] {
            let refused = ledger.may_wrap("kmip", uid).unwrap_err().to_string();
            assert!(refused.contains(state) && refused.contains("key rotate"), "{refused}");
        }
        assert_eq!(ledger.alarms("kmip").len(), 2);
        assert_eq!(
            ledger.keys()[0],
            ("1".into(), Entry { state: KeyState::Active, made: Some(7) })
        );
        // It was made active again, or the state was told wrongly before.
        ledger.fetched("2", Some(State::Active));
        assert!(ledger.may_wrap("kmip", "2").is_ok());
    }

    #[test]
    fn notes_are_few_and_said_once() {
        let ledger = Ledger::default();
        for count in 0..40 {
            ledger.note(format!("note {}", count % 20));
        }
        let notes = ledger.alarms("kmip");
        assert_eq!((notes.len(), notes[15].as_str()), (MAX_NOTES, "note 19"));
    }
}

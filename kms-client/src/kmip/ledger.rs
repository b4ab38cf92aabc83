//! What is known of the keys that this process uses.
//!
//! Owns what each server said of each key, and notes for the operator, both bounded, in memory alone. It must not know how servers are
//! asked. Flow: each fetch, each new key and each check is noted; lists, alarms and the leave to wrap are read from here, without
//! asking anybody. What follows from what servers said is in `said`.

use super::said::{Discord, Said, latest, ruling};
use super::values::State;
use crate::{KeyDifference, KeyState, KmsError};
use crypto::KeyId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most keys that are remembered: as many as VMs that a host may have, and then some.
const MAX_KEYS: usize = 16_384;

/// Most notes that are kept; they serve a person, who reads a page.
const MAX_NOTES: usize = 16;

/// Most keys whose servers differ that are shown; when all servers differ about all keys, some tell as much.
const MAX_DIFFERENCES: usize = 64;

/// How long a new key is remembered that nothing is encrypted by yet, in seconds: its VM is being made.
const NEW: u64 = 3600;

/// The ledger.
pub(super) struct Ledger {
    provider: String,
    /// Addresses of the servers, in their order.
    servers: Vec<String>,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    keys: BTreeMap<String, Entry>,
    notes: VecDeque<String>,
    /// The key that was asked for last.
    asked: String,
}

/// What is known of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// What each server said last; `None` for one that was not asked or gave no answer.
    said: Vec<Option<Said>>,
    /// When this process made it, seconds since 1970.
    pub(super) made: Option<u64>,
    /// Since when the servers have been seen to differ.
    differs: Option<u64>,
}

impl Entry {
    /// What counts for encrypting.
    pub(super) fn state(&self) -> KeyState {
        ruling(&self.said)
    }
}

impl Ledger {
    pub(super) fn new(provider: &str, servers: Vec<String>) -> Self {
        Self { provider: provider.to_owned(), servers, books: Mutex::default() }
    }

    /// A server said this of a key.
    pub(super) fn said(&self, uid: &str, server: usize, said: Said, now: u64) {
        let mut books = self.books();
        let servers = self.servers.len();
        let entry = books.entry(uid);
        entry.said.resize(servers, None);
        if let Some(place) = entry.said.get_mut(server) {
            *place = Some(said.after(*place));
        }
        entry.differs = Discord::of(&entry.said).map(|_| entry.differs.unwrap_or(now));
    }

    /// A server gave a key, and told this state of it.
    pub(super) fn fetched(&self, uid: &str, server: usize, state: Option<State>, now: u64) {
        self.said(uid, server, state.map_or(Said::Untold, Said::State), now);
    }

    /// The server with this address said this of a key that is in use.
    pub(super) fn said_by(&self, uid: &str, address: &str, said: Said, now: u64) {
        let server = self.servers.iter().position(|known| known == address);
        if let Some(server) = server.filter(|_| self.books().keys.contains_key(uid)) {
            self.said(uid, server, said, now);
        }
    }

    /// A key was made at `now`.
    pub(super) fn made(&self, uid: &str, now: u64) {
        self.books().entry(uid).made = Some(now);
    }

    /// These keys are in use, and others are forgotten, but for new ones.
    pub(super) fn watch(&self, uids: &BTreeSet<&str>, now: u64) {
        let mut books = self.books();
        let new = |entry: &Entry| entry.made.is_some_and(|made| now.saturating_sub(made) < NEW);
        books.keys.retain(|uid, entry| uids.contains(uid.as_str()) || new(entry));
        for uid in uids {
            books.entry(uid);
        }
    }

    /// The next keys to ask about, `most` at most; each call goes on where the last one ended.
    pub(super) fn next(&self, most: usize) -> Vec<String> {
        let mut books = self.books();
        let after = (Excluded(books.asked.clone()), Unbounded);
        let rest = books.keys.range::<String, _>(after).map(|(uid, _)| uid);
        let next = rest.chain(books.keys.keys()).take(most.min(books.keys.len()));
        let next: Vec<String> = next.cloned().collect();
        if let Some(last) = next.last() {
            books.asked.clone_from(last);
        }
        next
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

    /// The latest state of a key, as far as any server told one.
    pub(super) fn latest(&self, uid: &str) -> Option<State> {
        latest(&self.books().keys.get(uid)?.said)
    }

    /// Whether a key may wrap anything new, as far as is known.
    pub(super) fn may_wrap(&self, uid: &str) -> Result<(), KmsError> {
        let books = self.books();
        let Some(entry) = books.keys.get(uid) else { return Ok(()) };
        let provider = self.provider.clone();
        let why = match (entry.state(), Discord::of(&entry.said)) {
            (KeyState::Active, Some(Discord::Lost)) => {
                format!("was lost or destroyed on a server ({})", self.listed(entry))
            }
            (KeyState::Active, _) => return Ok(()),
            (state, Some(_)) => format!("is {} on a server ({})", word(state), self.listed(entry)),
            (state, None) => format!("is {} on the server", word(state)),
        };
        let reason = format!(
            "key {provider}/{uid} {why}, so it encrypts nothing new; give the VM another one by `coffer key \
             rotate`"
        );
        Err(KmsError::Inactive { provider, reason })
    }

    /// The keys, by id.
    pub(super) fn keys(&self) -> Vec<(String, Entry)> {
        self.books().keys.iter().map(|(uid, entry)| (uid.clone(), entry.clone())).collect()
    }

    /// What an operator should act on.
    pub(super) fn alarms(&self, now: u64) -> Vec<String> {
        let differing = self.differences(now).into_iter();
        let standing = differing.filter(|difference| !difference.may_be_lag);
        let standing = standing.take(MAX_NOTES).map(|difference| difference.detail);
        let books = self.books();
        let bad = books.keys.iter().filter(|(_, entry)| entry.state() != KeyState::Active);
        let sentence = |(uid, entry): (&String, &Entry)| {
            format!(
                "key {}/{uid} is {} on the server and still in use: run `coffer key rotate`",
                self.provider,
                word(entry.state())
            )
        };
        let bad: Vec<_> = bad.take(MAX_NOTES).map(sentence).collect();
        bad.into_iter().chain(standing).chain(books.notes.iter().cloned()).collect()
    }

    /// The keys that servers do not agree on.
    pub(super) fn differences(&self, now: u64) -> Vec<KeyDifference> {
        let books = self.books();
        let found = books.keys.iter().filter_map(|(uid, entry)| self.difference(uid, entry, now));
        found.take(MAX_DIFFERENCES).collect()
    }

    fn difference(&self, uid: &str, entry: &Entry, now: u64) -> Option<KeyDifference> {
        let discord = Discord::of(&entry.said)?;
        let since = entry.differs?;
        let age = entry.made.map(|made| now.saturating_sub(made));
        let may_be_lag = discord.may_be_lag(now.saturating_sub(since), age);
        let what = match discord {
            Discord::States => "is in another state on another server",
            Discord::Lacking => "is not on every server",
            Discord::Lost => "was lost by a server, or destroyed there",
        };
        let remedy = if may_be_lag {
            "the servers may still be telling each other"
        } else {
            "see that the servers replicate"
        };
        let detail = format!(
            "key {}/{uid} {what} ({}; {}): {remedy}",
            self.provider,
            self.listed(entry),
            discord.reason()
        );
        Some(KeyDifference {
            key: KeyId::new(&self.provider, uid).ok()?,
            said: self.each(entry).collect(),
            counts: entry.state(),
            reason: discord.reason(),
            since,
            may_be_lag,
            detail,
        })
    }

    /// What each server that answered says.
    fn each(&self, entry: &Entry) -> impl Iterator<Item = crate::Said> {
        let pairs = self.servers.iter().zip(&entry.said);
        pairs.filter_map(|(server, said)| {
            Some(crate::Said { server: server.clone(), state: said.as_ref()?.to_string() })
        })
    }

    fn listed(&self, entry: &Entry) -> String {
        let each = self.each(entry).map(|said| format!("{}: {}", said.server, said.state));
        each.collect::<Vec<_>>().join(", ")
    }

    /// The books are changed by single insertions, so a panic elsewhere cannot leave them half changed.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn entry(&mut self, uid: &str) -> &mut Entry {
        if self.keys.len() >= MAX_KEYS && !self.keys.contains_key(uid) {
            self.keys.pop_first();
        }
        self.keys.entry(uid.to_owned()).or_default()
    }
}

pub(super) fn word(state: KeyState) -> &'static str {
    match state {
        KeyState::Active => "active",
        KeyState::Deactivated => "deactivated",
        KeyState::Compromised => "compromised",
        KeyState::Destroyed => "destroyed",
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;

//! States of one key in the keyring, and every transition between them.
//!
//! Owns [`Slot`]; must not know providers, threads or crypto (the key is a type parameter), reads no clock
//! and takes no lock.
//!
//! ```text
//!              acquire             fetched           last release
//!   (Absent) ---------> Fetching ----------> Present <-----------> Expiring
//!      ^  ^                | fetch_failed    |         acquire        |
//!      |  +----------------+                 | evict (unused/forced)  | evict
//!      |                                     v                        v
//!      +--------------- readmit --------- Evicted <-------------------+
//!      +----------------------------------- expire -------------------+
//! ```
//!
//! Absent is no entry in the keyring, so that ids nobody uses cost nothing.

use hostd_api::types::KeyringState;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Who uses a key, and how often.
pub(super) type Users = BTreeMap<String, u32>;

/// One key in the keyring.
#[derive(Debug)]
pub(super) enum Slot<K> {
    /// Somebody is fetching it.
    Fetching,
    /// Here and used.
    Present {
        /// The key.
        key: K,
        /// Its users; never empty.
        users: Users,
    },
    /// Here, unused, and dropped at a set time.
    Expiring {
        /// The key.
        key: K,
        /// When it is dropped.
        until: Instant,
    },
    /// Dropped on request; not fetched again until readmitted.
    Evicted,
}

/// What a user who asked for a key gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Acquired<K> {
    /// The key; its use has been counted.
    Key(K),
    /// Somebody else is fetching it: wait and ask again.
    Wait,
    /// It was evicted.
    Evicted,
}

impl<K: Clone> Slot<K> {
    /// A user asks for the key.
    pub(super) fn acquire(&mut self, user: &str) -> Acquired<K> {
        match self {
            Self::Fetching => Acquired::Wait,
            Self::Evicted => Acquired::Evicted,
            Self::Present { key, users } => {
                *users.entry(user.to_owned()).or_insert(0) += 1;
                Acquired::Key(key.clone())
            }
            Self::Expiring { key, .. } => {
                let key = key.clone();
                *self = Self::present(key.clone(), user);
                Acquired::Key(key)
            }
        }
    }

    /// The fetch ended well; the fetcher is the first user. `false` when the slot was not being fetched
    /// (evicted meanwhile): the key must then be dropped.
    pub(super) fn fetched(&mut self, key: K, user: &str) -> bool {
        let fetching = matches!(self, Self::Fetching);
        if fetching {
            *self = Self::present(key, user);
        }
        fetching
    }

    /// A user is done. The last one starts the clock.
    pub(super) fn release(&mut self, user: &str, now: Instant, idle: Duration) {
        let Self::Present { key, users } = self else { return };
        if let Some(count) = users.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                users.remove(user);
            }
        }
        if users.is_empty() {
            *self = Self::Expiring { key: key.clone(), until: now + idle };
        }
    }

    /// Whether an unused key has reached its time; the caller then removes the slot (Absent).
    #[must_use]
    pub(super) fn expired(&self, now: Instant) -> bool {
        matches!(self, Self::Expiring { until, .. } if *until <= now)
    }

    /// Drops the key for good. With users it is refused, unless forced; the users are returned either way.
    ///
    /// # Errors
    /// The users, when there are some and it was not forced.
    pub(super) fn evict(&mut self, force: bool) -> Result<Users, Users> {
        let users = self.users();
        if !users.is_empty() && !force {
            return Err(users);
        }
        *self = Self::Evicted;
        Ok(users)
    }

    /// The key, where it is here.
    #[must_use]
    pub(super) fn key(&self) -> Option<&K> {
        match self {
            Self::Present { key, .. } | Self::Expiring { key, .. } => Some(key),
            Self::Fetching | Self::Evicted => None,
        }
    }

    /// Who uses it.
    pub(super) fn users(&self) -> Users {
        match self {
            Self::Present { users, .. } => users.clone(),
            Self::Fetching | Self::Expiring { .. } | Self::Evicted => Users::new(),
        }
    }

    /// The state as the API names it.
    #[must_use]
    pub(super) fn state(&self) -> KeyringState {
        match self {
            Self::Fetching => KeyringState::Fetching,
            Self::Present { .. } => KeyringState::Present,
            Self::Expiring { .. } => KeyringState::Expiring,
            Self::Evicted => KeyringState::Evicted,
        }
    }

    fn present(key: K, user: &str) -> Self {
        Self::Present { key, users: Users::from([(user.to_owned(), 1)]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(10);

    fn present(user: &str) -> Slot<u8> {
        let mut slot = Slot::Fetching;
        assert!(slot.fetched(7, user));
        slot
    }

    #[test]
    fn a_fetch_makes_the_key_present_for_its_fetcher() {
        let mut slot: Slot<u8> = Slot::Fetching;
        assert_eq!(slot.acquire("b"), Acquired::Wait);
        assert!(slot.fetched(7, "a"));
        assert_eq!(slot.state(), KeyringState::Present);
        assert_eq!(slot.acquire("b"), Acquired::Key(7));
        assert!(!slot.fetched(8, "a"), "a present key is not replaced");
    }

    #[test]
    fn the_last_release_starts_the_clock_and_a_use_stops_it() {
        let now = Instant::now();
        let mut slot = present("a");
        assert_eq!(slot.acquire("a"), Acquired::Key(7));
        slot.release("a", now, IDLE);
        assert_eq!(slot.state(), KeyringState::Present, "used twice, released once");
        slot.release("a", now, IDLE);
        assert_eq!(slot.state(), KeyringState::Expiring);
        assert!(!slot.expired(now + IDLE / 2));
        assert!(slot.expired(now + IDLE));
        assert_eq!(slot.acquire("b"), Acquired::Key(7));
        assert!(!slot.expired(now + IDLE));
    }

    #[test]
    fn a_release_by_a_stranger_changes_nothing() {
        let mut slot = present("a");
        slot.release("b", Instant::now(), IDLE);
        assert_eq!(slot.state(), KeyringState::Present);
    }

    #[test]
    fn eviction_of_a_used_key_needs_force() {
        let mut slot = present("a");
        assert_eq!(slot.evict(false), Err(Users::from([("a".to_owned(), 1)])));
        assert_eq!(slot.acquire("a"), Acquired::Key(7), "a refused eviction changes nothing");
        assert_eq!(slot.evict(true), Ok(Users::from([("a".to_owned(), 2)])));
        assert_eq!(slot.state(), KeyringState::Evicted);
        assert_eq!(slot.acquire("a"), Acquired::Evicted);
        slot.release("a", Instant::now(), IDLE);
        assert_eq!(slot.state(), KeyringState::Evicted, "a late release brings nothing back");
    }

    #[test]
    fn eviction_wins_over_a_fetch_in_flight() {
        let mut slot: Slot<u8> = Slot::Fetching;
        assert_eq!(slot.evict(false), Ok(Users::new()));
        assert!(!slot.fetched(7, "a"));
        assert_eq!(slot.state(), KeyringState::Evicted);
    }
}

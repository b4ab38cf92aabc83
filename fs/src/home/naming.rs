//! How the names of one home are stored, and what is told of names that it did not make.
//!
//! Owns the key of names, if they are encrypted, and the memory of which foreign names were logged; the form of
//! encrypted names is in `names`. Must not know nodes. Flow: [`Naming::stored`] for a name that a request brings,
//! [`Naming::plain`] for one that the storage lists; a listed one that is not of this home goes to [`Naming::stray`].

use super::error::HomeError;
use super::names::{self, Encoded, KEY_INFO, Room};
use crate::fsck::shown_path;
use crate::safe::Names;
use crypto::{Arena, HomeKey, KeyError, SivKey};
use rustix::io::Errno;
use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::ffi::{OsStr, OsString};
use std::hash::BuildHasher;
use std::ops::Deref;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::{Mutex, PoisonError};

/// Most foreign names that are logged while a home is open. Whoever has so many needs a check of the VM, which names
/// all, not a longer log.
const MAX_LOGGED: usize = 1000;

/// The way from plain names to stored ones and back.
pub(crate) struct Naming {
    /// `None`: names are stored as they are.
    key: Option<SivKey>,
    logged: Mutex<HashSet<u64>>,
    hasher: RandomState,
}

impl std::fmt::Debug for Naming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Naming").field("encrypted", &self.is_encrypted()).finish_non_exhaustive()
    }
}

/// A name as the storage has it.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "it lives on the stack for the time of one request")]
pub(crate) enum StoredName<'a> {
    /// There already: a plain one of a home with plain names, or one that the storage gave.
    AsIs(&'a OsStr),
    /// Made of a plain one.
    Encoded(Encoded),
}

impl Deref for StoredName<'_> {
    type Target = OsStr;

    fn deref(&self) -> &OsStr {
        match self {
            StoredName::AsIs(name) => name,
            StoredName::Encoded(encoded) => OsStr::from_bytes(encoded.as_bytes()),
        }
    }
}

impl Naming {
    pub(crate) fn new(home: &HomeKey, arena: &Arena, names: Names) -> Result<Naming, KeyError> {
        let key = match names {
            Names::Plain => None,
            Names::Encrypted => Some(SivKey::derive(home, arena, KEY_INFO)?),
        };
        Ok(Naming { key, logged: Mutex::default(), hasher: RandomState::new() })
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.key.is_some()
    }

    /// What the storage calls a name.
    ///
    /// # Errors
    /// `ENAMETOOLONG` when its stored form would be longer than any storage allows.
    pub(crate) fn stored<'a>(&self, plain: &'a OsStr) -> Result<StoredName<'a>, HomeError> {
        match &self.key {
            None => Ok(StoredName::AsIs(plain)),
            Some(key) => names::encode(plain.as_bytes(), key)
                .map(StoredName::Encoded)
                .ok_or_else(|| HomeError::io("encryption of a name")(Errno::NAMETOOLONG)),
        }
    }

    /// The name behind a stored one; `None` for one that was not made in this home.
    pub(crate) fn plain<'a>(&self, stored: &'a [u8], room: &'a mut Room) -> Option<&'a OsStr> {
        match &self.key {
            None => Some(OsStr::from_bytes(stored)),
            Some(key) => names::decode(stored, key, room).map(OsStr::from_bytes),
        }
    }

    /// The name behind a stored one that was made here.
    pub(crate) fn plain_owned(&self, stored: OsString) -> OsString {
        let mut room = Room::new();
        match self.key.as_ref().map(|key| names::decode(stored.as_bytes(), key, &mut room)) {
            Some(Some(plain)) => OsString::from_vec(plain.to_vec()),
            _ => stored,
        }
    }

    /// Longest name that fits where stored ones have at most `stored` bytes.
    pub(crate) fn limit(&self, stored: u64) -> u64 {
        if !self.is_encrypted() {
            return stored;
        }
        let limit = names::plain_limit(usize::try_from(stored).unwrap_or(usize::MAX));
        u64::try_from(limit).unwrap_or(u64::MAX)
    }

    /// Logs a name of the storage that is not one of this home, the first time it is met. `folder` is an identity,
    /// `label` a name for people.
    pub(crate) fn stray(&self, folder: (u64, u64), label: impl FnOnce() -> String, stored: &[u8]) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() >= MAX_LOGGED || !logged.insert(self.hasher.hash_one((folder, stored))) {
            return;
        }
        let full = logged.len() >= MAX_LOGGED;
        drop(logged);
        tracing::warn!(
            "folder {:?} holds {:?} on the storage, which is no name of this home and is not shown: see `coffer vm fsck`",
            label(),
            shown_path(stored)
        );
        if full {
            tracing::warn!("{MAX_LOGGED} such names were logged, and no more will be");
        }
    }
}

#[cfg(test)]
#[path = "naming_tests.rs"]
mod tests;

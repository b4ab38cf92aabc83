//! Keys that a control plane pushed.
//!
//! Owns them from the push to the eviction, or the end of the process. It must not know how they came, nor who uses them:
//! a lease takes a pushed key as it takes one of a provider, and counts its users in the same slot. Flow:
//! [`Keyring::take_pushed`] checks and keeps, [`Keyring::evict_pushed`] forgets.

use super::slot::{Slot, Users};
use super::{Keyring, names};
use crypto::{Kek, KeyId};
use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};

/// Most pushed keys at a time: more than a host has VMs. How many fit depends on the arena, too.
const MAX_PUSHED: usize = 20_000;

/// The pushed keys.
pub(super) type Pushed = BTreeMap<KeyId, Arc<Kek>>;

/// What became of a pushed key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// It is here now.
    Taken,
    /// It was here already.
    Present,
    /// Another key is here under its id.
    OtherKey,
    /// A provider of this host has the name in its id, and is open.
    OwnProvider,
    /// It was dropped here by an operator.
    Evicted,
    /// There are too many.
    Full,
}

/// What an eviction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evicted {
    /// Whether the key was here.
    pub was_here: bool,
    /// Who used it.
    pub users: Vec<String>,
}

impl Keyring {
    /// Keeps a pushed key, unless something speaks against it.
    pub fn take_pushed(&self, id: &KeyId, kek: Kek) -> Take {
        if self.is_open(id.provider()) {
            return Take::OwnProvider;
        }
        let slots = self.slots();
        if matches!(slots.get(id), Some(Slot::Evicted)) {
            return Take::Evicted;
        }
        let mut pushed = self.pushed();
        match pushed.get(id) {
            Some(old) if old.check_value() == kek.check_value() => Take::Present,
            Some(_) => Take::OtherKey,
            None if pushed.len() >= MAX_PUSHED => Take::Full,
            None => {
                pushed.insert(id.clone(), Arc::new(kek));
                Take::Taken
            }
        }
    }

    /// Forgets a pushed key. VMs that run with it go on with their data keys.
    ///
    /// # Errors
    /// The names of its users, when there are some and it is not forced.
    pub fn evict_pushed(&self, id: &KeyId, force: bool) -> Result<Evicted, Vec<String>> {
        let mut slots = self.slots();
        let mut pushed = self.pushed();
        if !pushed.contains_key(id) {
            return Ok(Evicted { was_here: false, users: Vec::new() });
        }
        let users = names(slots.get(id).map_or_else(Users::new, Slot::users));
        if !users.is_empty() && !force {
            return Err(users);
        }
        pushed.remove(id);
        slots.remove(id);
        self.fetched.notify_all();
        Ok(Evicted { was_here: true, users })
    }

    /// Ids of the pushed keys that are here.
    #[must_use]
    pub fn pushed_ids(&self) -> Vec<KeyId> {
        self.pushed().keys().cloned().collect()
    }

    /// Whether this key was pushed and is here.
    #[must_use]
    pub fn is_pushed(&self, id: &KeyId) -> bool {
        self.pushed().contains_key(id)
    }

    /// The pushed keys; locked after the slots where both are. Each change is one call, so that a panic elsewhere leaves
    /// them whole.
    pub(super) fn pushed(&self) -> MutexGuard<'_, Pushed> {
        self.pushed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

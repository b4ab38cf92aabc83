//! The KEKs of this host: fetched once, counted, dropped when unused.
//!
//! Owns every KEK in memory, those that a control plane pushed (`pushed`), and the providers that the others come from; must
//! not know safes, VMs or the API. A verb asks for a [`Lease`]; the first one fetches through the provider while others of
//! the same key wait, and the last one to end starts the clock of expiry. What must only be counted as a user, and needs the
//! key itself no more, keeps a [`Usage`]. A key that its provider keeps is leased and counted all the same, but nothing is
//! fetched: who uses the lease asks the provider each time.

mod lease;
mod pushed;
mod slot;

pub use lease::{Held, Lease, Usage};
pub use pushed::{Evicted, Take};

use crypto::{Arena, KeyId};
use hostd_api::types::KeyringState;
use kms_client::{Custody, KeyProvider, KmsError};
use lease::Mark;
use pushed::Pushed;
use slot::{Acquired, Slot};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;

/// How long a verb waits for a fetch that another verb began. Providers bound their own fetches well below.
const FETCH_WAIT: Duration = Duration::from_secs(60);

/// Why a key cannot be had. Each names the exact key.
#[derive(Debug, Error)]
pub enum KeyringError {
    /// This host has no provider of that name.
    #[error("the key provider of key {0} is not configured on this host")]
    NotConfigured(KeyId),
    /// It is of none of this host's providers, and the control plane has not pushed it.
    #[error("key {0} was not pushed to this host since it started")]
    NotPushed(KeyId),
    /// The provider of that name is not open on this host.
    #[error("the key provider of key {key} is not open: {reason}")]
    Closed {
        /// The key.
        key: KeyId,
        /// Why it is not open.
        reason: String,
    },
    /// It was dropped on request.
    #[error("key {0} was evicted on this host")]
    Evicted(KeyId),
    /// Another verb's fetch of the same key did not end.
    #[error("fetching key {0} takes too long")]
    Slow(KeyId),
    /// The provider does not give it.
    #[error("key {key}: {source}")]
    Provider {
        /// The key.
        key: KeyId,
        /// What the provider said.
        source: Box<KmsError>,
    },
}

impl KeyringError {
    /// What the provider of a key said.
    #[must_use]
    pub fn of(key: &KeyId, source: KmsError) -> Self {
        Self::Provider { key: key.clone(), source: source.into() }
    }
}

/// A provider that is configured, but could not be opened.
#[derive(Debug, Clone)]
pub struct ClosedProvider {
    /// Its name.
    pub name: String,
    /// Why, in one sentence.
    pub reason: String,
}

/// The keyring.
pub struct Keyring {
    arena: Arena,
    providers: Vec<Arc<dyn KeyProvider>>,
    closed: Vec<ClosedProvider>,
    idle: Duration,
    source: Source,
    slots: Mutex<BTreeMap<KeyId, Slot<Held>>>,
    pushed: Mutex<Pushed>,
    fetched: Condvar,
}

/// Where keys come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The providers of this host.
    Providers,
    /// Those, and a control plane that pushes.
    ControlPlaneToo,
}

impl Keyring {
    /// A keyring over these providers (the first is the default); unused keys are dropped after `idle`.
    #[must_use]
    pub fn new(
        arena: Arena,
        providers: Vec<Arc<dyn KeyProvider>>,
        closed: Vec<ClosedProvider>,
        idle: Duration,
        source: Source,
    ) -> Self {
        Self {
            arena,
            providers,
            closed,
            idle,
            source,
            slots: Mutex::default(),
            pushed: Mutex::default(),
            fetched: Condvar::new(),
        }
    }

    /// The arena that keys live in.
    #[must_use]
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// The providers; the first is the default.
    #[must_use]
    pub fn providers(&self) -> &[Arc<dyn KeyProvider>] {
        &self.providers
    }

    /// The providers that are configured, but not open.
    #[must_use]
    pub fn closed(&self) -> &[ClosedProvider] {
        &self.closed
    }

    /// Why a key cannot be had at all: its provider cannot be asked, nor was it pushed. `None` when it can.
    #[must_use]
    pub fn unreachable(&self, id: &KeyId) -> Option<KeyringError> {
        if self.is_open(id.provider()) || self.is_pushed(id) {
            return None;
        }
        let closed = self.closed.iter().find(|c| c.name == id.provider());
        Some(match (closed, self.source) {
            (Some(c), _) => KeyringError::Closed { key: id.clone(), reason: c.reason.clone() },
            (None, Source::ControlPlaneToo) => KeyringError::NotPushed(id.clone()),
            (None, Source::Providers) => KeyringError::NotConfigured(id.clone()),
        })
    }

    /// Whether a provider of this name is open.
    fn is_open(&self, provider: &str) -> bool {
        self.providers.iter().any(|p| p.name() == provider)
    }

    /// Whether the provider of a key keeps it and is asked for each use.
    #[must_use]
    pub fn is_kept_elsewhere(&self, id: &KeyId) -> bool {
        let provider = self.providers.iter().find(|p| p.name() == id.provider());
        provider.is_some_and(|provider| provider.custody() == Custody::Provider)
    }

    /// Whether a key may wrap anything new, as far as its provider knows.
    ///
    /// # Errors
    /// What the provider says against it.
    pub fn may_wrap(&self, id: &KeyId) -> Result<(), KmsError> {
        let provider = self.providers.iter().find(|p| p.name() == id.provider());
        provider.map_or(Ok(()), |provider| provider.may_wrap(id))
    }

    /// The key for `user`, fetched if it is not here.
    ///
    /// # Errors
    /// [`KeyringError`].
    pub fn lease(self: &Arc<Self>, id: &KeyId, user: &str) -> Result<Lease, KeyringError> {
        let end = Instant::now() + FETCH_WAIT;
        let mut slots = self.slots();
        loop {
            let Some(slot) = slots.get_mut(id) else {
                slots.insert(id.clone(), Slot::Fetching);
                drop(slots);
                return self.fetch(id, user);
            };
            match slot.acquire(user) {
                Acquired::Key(held) => return Ok(self.leased(id, user, held)),
                Acquired::Evicted => return Err(KeyringError::Evicted(id.clone())),
                Acquired::Wait => {}
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(KeyringError::Slow(id.clone()));
            }
            let waited = self.fetched.wait_timeout(slots, left);
            slots = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Fetches a key whose slot this thread has put to Fetching; no lock is held meanwhile.
    fn fetch(self: &Arc<Self>, id: &KeyId, user: &str) -> Result<Lease, KeyringError> {
        let guard = FetchGuard { keyring: self, id };
        let held = self.get(id)?;
        let kept = self.slots().get_mut(id).is_some_and(|s| s.fetched(held.clone(), user));
        drop(guard);
        if kept {
            return Ok(self.leased(id, user, held));
        }
        // Evicted meanwhile, here or by the control plane.
        Err(self.unreachable(id).unwrap_or_else(|| KeyringError::Evicted(id.clone())))
    }

    /// The key, from where it is, or who keeps it.
    fn get(&self, id: &KeyId) -> Result<Held, KeyringError> {
        let pushed = self.pushed().get(id).map(Arc::clone);
        if let Some(kek) = pushed {
            return Ok(Held::Kek(kek));
        }
        let provider = self.providers.iter().find(|p| p.name() == id.provider());
        let Some(provider) = provider else {
            let fault = self.unreachable(id);
            return Err(fault.unwrap_or_else(|| KeyringError::NotPushed(id.clone())));
        };
        if provider.custody() == Custody::Provider {
            return Ok(Held::Provider(Arc::clone(provider)));
        }
        let fetched = provider.fetch(id, &self.arena);
        Ok(Held::Kek(Arc::new(fetched.map_err(|source| KeyringError::of(id, source))?)))
    }

    fn leased(self: &Arc<Self>, id: &KeyId, user: &str, held: Held) -> Lease {
        Lease::new(Arc::clone(self), id.clone(), user.to_owned(), held)
    }

    /// Drops a key, and does not fetch it again until [`Keyring::readmit`].
    ///
    /// # Errors
    /// The names of its users, when there are some and it is not forced.
    pub fn evict(&self, id: &KeyId, force: bool) -> Result<Vec<String>, Vec<String>> {
        let mut slots = self.slots();
        let slot = slots.entry(id.clone()).or_insert(Slot::Evicted);
        let outcome = slot.evict(force);
        if outcome.is_ok() {
            self.pushed().remove(id);
        }
        self.fetched.notify_all();
        outcome.map(names).map_err(names)
    }

    /// Lets an evicted key be fetched again.
    pub fn readmit(&self, id: &KeyId) {
        let mut slots = self.slots();
        if matches!(slots.get(id), Some(Slot::Evicted)) {
            slots.remove(id);
        }
    }

    /// Drops the keys that reached their time by `now`.
    pub fn expire(&self, now: Instant) {
        self.slots().retain(|_, slot| !slot.expired(now));
    }

    /// State of a key on this host. A pushed one stays when its last user has gone.
    #[must_use]
    pub fn state(&self, id: &KeyId) -> KeyringState {
        let slots = self.slots();
        let slot = slots.get(id);
        if let Some(Held::Provider(_)) = slot.and_then(Slot::key) {
            return KeyringState::Remote;
        }
        match slot.map_or(KeyringState::Absent, Slot::state) {
            KeyringState::Absent | KeyringState::Expiring if self.is_pushed(id) => {
                KeyringState::Present
            }
            other => other,
        }
    }

    /// Drops every key that no lease holds.
    pub fn clear(&self) {
        self.slots().clear();
        self.pushed().clear();
    }

    /// Ends a use of this very key: one that was evicted and came again has users of its own.
    fn release(&self, id: &KeyId, user: &str, mark: &Mark) {
        if let Some(slot) = self.slots().get_mut(id)
            && slot.key().is_some_and(|held| held.bears(mark))
        {
            slot.release(user, Instant::now(), self.idle);
        }
    }

    /// The slots; a panic of another thread cannot leave them half changed, as every transition is one call.
    fn slots(&self) -> MutexGuard<'_, BTreeMap<KeyId, Slot<Held>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a fetch on every way out: a slot that is still Fetching goes back to Absent, and waiters wake up.
struct FetchGuard<'a> {
    keyring: &'a Keyring,
    id: &'a KeyId,
}

impl Drop for FetchGuard<'_> {
    fn drop(&mut self) {
        let mut slots = self.keyring.slots();
        if matches!(slots.get(self.id), Some(Slot::Fetching)) {
            slots.remove(self.id);
        }
        self.keyring.fetched.notify_all();
    }
}

fn names(users: slot::Users) -> Vec<String> {
    users.into_keys().collect()
}

#[cfg(test)]
#[path = "keyring_tests.rs"]
mod tests;

//! The one joint between Coffer and whatever holds the keys.
//!
//! Owns the [`KeyProvider`] trait and the plain records that it answers with. It must not know how any
//! provider works. Flow: hostd and controld hold providers as `Box<dyn KeyProvider>` by name, and pick
//! one by the part of a key id before the slash.

use crate::KmsError;
use crypto::{Arena, Kek, KeyId, OpaqueKey, Wrapped};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Seconds since 1970-01-01 UTC, asked for when a record is made. Given at open, so that no library
/// code reads the clock by itself and tests choose the time.
pub type Clock = fn() -> u64;

/// Where a KEK is while it wraps and unwraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Custody {
    /// Hosts get it by [`KeyProvider::fetch`] and use it themselves, for as long as they may keep it.
    Host,
    /// It never leaves the provider; each use is a call of [`KeyProvider::wrap`] or [`KeyProvider::unwrap`].
    Provider,
}

/// A place where KEKs live.
///
/// Every provider wraps and unwraps data keys. One that gives its KEKs to hosts ([`Custody::Host`]) lets them do it without asking
/// again, which is what a keyring is for; one that does not ([`Custody::Provider`]) is asked each time.
///
/// What callers may rely on, whichever provider it is:
///
/// - Calls block. Those of a networked provider are bounded by its own deadline (seconds), never
///   endless. Call from a thread that may wait, never from the data path and not from an async task.
/// - Calls are safe from many threads at once; a provider that can do only one thing at a time queues
///   inside.
/// - Nothing is cached here. Who fetches a KEK keeps it (the keyring of hostd) or drops it.
/// - Errors are named by fault, see [`KmsError`]; [`KmsError::is_transient`] says whether the same call
///   may succeed later with nothing changed by an operator.
///
/// What a provider must keep:
///
/// - [`create_key`](Self::create_key) returns only after the key is durable where it lives. After an
///   unknown outcome (the connection died) it must not blindly create a second one.
/// - [`fetch`](Self::fetch) gives the same 256 bits for the same id for ever, or an error. It need not
///   prove that they are the right ones: every wrap carries a key check value, and callers compare it.
/// - The KEK goes straight into the arena that the caller names; no other copy outlives the call.
///
/// How other providers fit this trait:
///
/// - **KMIP cluster**: `create_key` is Create and Activate on a node that takes writes, `fetch` is Get
///   from any node that answers; a key id's uid is the server's unique identifier. All nodes silent is
///   [`KmsError::Unavailable`]; all nodes up and none has it is [`KmsError::NotFound`]; a key that is
///   not ours is [`KmsError::Denied`], one in a state that forbids its use [`KmsError::Inactive`]; a deactivated one is fetched, but
///   [`may_wrap`](KeyProvider::may_wrap) refuses it.
/// - **Transit engine** (OpenBao): [`Custody::Provider`]. The KEK is a key of the engine, `wrap` is its encrypt with what the
///   data key belongs to as associated data, `unwrap` its decrypt; `renew` makes a new version of the key, by which `wrap`
///   wraps from then on, while older wraps still open.
pub trait KeyProvider: Send + Sync {
    /// Name of the provider: the part of its key ids before the slash.
    fn name(&self) -> &str;

    /// Makes a new KEK where the provider keeps its keys, and returns its id.
    ///
    /// # Errors
    /// [`KmsError::BackupRequired`] from the native provider before its first backup; otherwise the
    /// fault that kept the key from being made. No key id means that nothing may be wrapped.
    fn create_key(&self) -> Result<KeyId, KmsError>;

    /// Where its KEKs are used.
    fn custody(&self) -> Custody {
        Custody::Host
    }

    /// Brings the KEK of an id into `arena`.
    ///
    /// # Errors
    /// [`KmsError::NotFound`] when this provider has no such key (also when the id names another
    /// provider); [`KmsError::Denied`] with [`Custody::Provider`]; otherwise the fault that kept the key from being fetched.
    fn fetch(&self, key: &KeyId, arena: &Arena) -> Result<Kek, KmsError>;

    /// Wraps a data key that belongs to `bound`: a text that [`unwrap`](Self::unwrap) must be given again, where the provider
    /// can tie one to the wrap. The wrap has been opened once when this returns.
    ///
    /// # Errors
    /// As for [`fetch`](Self::fetch).
    fn wrap(
        &self,
        key: &KeyId,
        data: &OpaqueKey,
        _bound: &str,
        arena: &Arena,
    ) -> Result<Wrapped, KmsError> {
        Ok(self.fetch(key, arena)?.wrap_opaque(data)?)
    }

    /// Opens a wrap that belongs to `bound`, into `arena`.
    ///
    /// # Errors
    /// As for [`fetch`](Self::fetch); [`KmsError::BadKey`] when the key does not open it.
    fn unwrap(
        &self,
        key: &KeyId,
        wrapped: &Wrapped,
        _bound: &str,
        arena: &Arena,
    ) -> Result<OpaqueKey, KmsError> {
        self.fetch(key, arena)?.open_opaque(arena, wrapped).map_err(|e| KmsError::BadKey {
            provider: self.name().to_owned(),
            reason: e.to_string(),
        })
    }

    /// Gives a key a new version, by which it wraps from now on; `false` where keys have no versions, and nothing was done.
    ///
    /// # Errors
    /// The fault that kept it from being made. After an outcome in doubt there may be one more version, which changes nothing
    /// for what is wrapped.
    fn renew(&self, _key: &KeyId) -> Result<bool, KmsError> {
        Ok(false)
    }

    /// The keys that this provider has a record of, oldest first.
    ///
    /// # Errors
    /// The fault that kept the list from being read.
    fn keys(&self) -> Result<Vec<KeyRecord>, KmsError>;

    /// Whether a key may wrap anything new, from what is known of it already: no I/O. Unwrapping with it is another matter.
    ///
    /// # Errors
    /// [`KmsError::Inactive`] for a key that was taken back.
    fn may_wrap(&self, _key: &KeyId) -> Result<(), KmsError> {
        Ok(())
    }

    /// Takes a key back: it wraps nothing new from then on, and still unwraps. `compromised` says that somebody else may know it, and
    /// `why` is a sentence for the provider's own log. The answer is what each server says of the key then.
    ///
    /// # Errors
    /// [`KmsError::Denied`] from a provider whose keys cannot be taken back; otherwise the fault that kept it from being done.
    fn revoke(&self, _: &KeyId, compromised: bool, why: &str) -> Result<Vec<Said>, KmsError> {
        let _ = (compromised, why);
        Err(endless(self.name()))
    }

    /// Destroys a key for good. The caller has made sure that nothing is encrypted by it any more.
    ///
    /// # Errors
    /// [`KmsError::Denied`] for a key that is active, and from a provider whose keys cannot be destroyed; otherwise the fault
    /// that kept it from being done.
    fn destroy(&self, _: &KeyId) -> Result<Vec<Said>, KmsError> {
        Err(endless(self.name()))
    }

    /// The keys that something here is encrypted by: those whose states matter from now on.
    fn watch(&self, _keys: &BTreeSet<KeyId>) {}

    /// Finds out how the provider is, for [`status`](Self::status) to tell: asks its servers, where it has some, and fetches a
    /// key that exists for this alone.
    fn check(&self) {}

    /// How the provider is, from what it knows already: no I/O, so it never blocks.
    fn status(&self) -> ProviderStatus;
}

/// The refusal of a provider whose keys have no end of their own.
fn endless(provider: &str) -> KmsError {
    let reason = "its keys cannot be taken back one by one".to_owned();
    KmsError::Denied { provider: provider.to_owned(), reason }
}

/// What a provider knows of one key. Never key bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Id of the key.
    pub id: KeyId,
    /// When it was made, seconds since 1970, where the provider knows.
    pub created_at: Option<u64>,
    /// State of the key.
    pub state: KeyState,
}

/// State of a key, as far as using it goes. The transitions are the provider's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum KeyState {
    /// May wrap and unwrap.
    Active,
    /// May unwrap only: its time is over.
    Deactivated,
    /// May unwrap only, and only by leave of the configuration: somebody else may know it.
    Compromised,
    /// May do nothing any more, as a server says.
    Destroyed,
}

/// How a provider is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderStatus {
    /// Kind of provider: `native`, `kmip` or `openbao`.
    pub kind: &'static str,
    /// What it can do now.
    pub health: Health,
    /// When it was last backed up, seconds since 1970; `None` when never, or when backing up is not
    /// the caller's business.
    pub backed_up_at: Option<u64>,
    /// Makes keys without a backup, because an operator asked for that.
    pub demo: bool,
    /// One sentence for people: the health and what to do about it.
    pub detail: String,
    /// The servers, where it has some, in the order in which they are asked.
    pub servers: Vec<ServerStatus>,
    /// Whole days until our own certificate runs out, where there is one; negative when it has.
    pub certificate_days: Option<i64>,
    /// What an operator should act on, one sentence each.
    pub alarms: Vec<String>,
    /// Keys that its servers do not agree on.
    pub differences: Vec<KeyDifference>,
}

/// What one server says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Address of the server.
    pub server: String,
    /// A state of KMIP, or that it does not know the key.
    pub state: String,
}

/// A key that the servers of a provider do not agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDifference {
    /// The key.
    pub key: KeyId,
    /// What each server that answered says.
    pub said: Vec<Said>,
    /// What counts for encrypting.
    pub counts: KeyState,
    /// Reason, in the words of vSphere as far as it has one.
    pub reason: &'static str,
    /// When they were seen to differ first, seconds since 1970.
    pub since: u64,
    /// They may still be telling each other.
    pub may_be_lag: bool,
    /// One sentence for people.
    pub detail: String,
}

/// How one server is, by the last check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerStatus {
    /// Its address.
    pub address: String,
    /// Whether it answered; `None` before the first check.
    pub up: Option<bool>,
    /// Whether we trust its certificate; `None` when it did not come to that.
    pub trusted: Option<bool>,
    /// Whether it trusts ours; `None` when it did not come to that.
    pub trusts_us: Option<bool>,
    /// Whole days until its certificate runs out; negative when it has.
    pub certificate_days: Option<i64>,
    /// Time of one question and its answer, in milliseconds.
    pub latency_ms: Option<u64>,
    /// Whether the key that exists for this was really fetched; `None` when there is none.
    pub key_fetched: Option<bool>,
    /// It gives keys, but makes none.
    pub read_only: bool,
    /// Why keys cannot be had from it, in the words of vSphere (`KeyStateClusterUnreachable` and so on).
    pub reason: Option<&'static str>,
    /// One sentence for people.
    pub detail: String,
    /// When it was checked, seconds since 1970.
    pub checked_at: Option<u64>,
}

/// What a provider can do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Makes and fetches keys.
    Ready,
    /// Fetches keys, but cannot make any (no backup yet; only read-only nodes answer).
    FetchOnly,
    /// Neither.
    Unavailable,
}

//! OpenBao as a provider of keys that never leave it.
//!
//! Owns the settings, the way from the trait's calls to the cluster, and what is remembered of keys. It must not know sockets or messages.
//! Flow: `wrap` looks at the key, has it encrypt, and has the result decrypted before it trusts it; `unwrap` has it decrypt; `renew` rotates.

use super::calls::{Places, Talk};
use super::cluster::Cluster;
use super::fault::BaoFault;
use super::names::{check, config, is_key_name};
use super::node::Node;
use super::refused::Refused;
use super::wrapped::Shape;
use crate::checker::Checker;
use crate::kmip::ServerSettings;
use crate::kmip::link::Budgets;
use crate::kmip::tls::{Identity, TlsFiles};
use crate::{
    Clock, Custody, KeyProvider, KeyRecord, KeyState, KmsError, ProviderStatus, ServerStatus,
};
use crypto::{Arena, CheckValue, Kek, KeyId, OpaqueKey, Wrapped};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most keys that are remembered; a host has a key for each VM at most.
const MAX_KNOWN: usize = 16 * 1024;

/// What the wrap that checks open belongs to.
pub(super) const CHECK: &str = "coffer v1 check";

/// Settings of a provider.
#[derive(Debug, Clone)]
pub struct BaoSettings {
    /// Name of the provider: the part of its key ids before the slash.
    pub name: String,
    /// The servers, best first.
    pub servers: Vec<ServerSettings>,
    /// Our certificate and key, and whom to trust.
    pub tls: TlsFiles,
    /// Where the transit engine is mounted.
    pub mount: String,
    /// Where the auth method of certificates is mounted.
    pub auth_mount: String,
    /// The role to log in by.
    pub role: Option<String>,
    /// The namespace of engine and auth method.
    pub namespace: Option<String>,
    /// Which keys wrap.
    pub keys: KeyChoice,
    /// How long steps may take.
    pub budgets: Budgets,
    /// Pause between checks; `None` for no checks but those that are asked for.
    pub check_every: Option<Duration>,
}

/// Which keys of the engine wrap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyChoice {
    /// A new one each time that one is asked for, whose name begins so.
    Each(String),
    /// This one, which an administrator made.
    Named(String),
}

/// The provider.
pub struct BaoProvider {
    inner: Arc<Inner>,
    /// Ends with the provider.
    _checker: Option<Checker>,
}

pub(super) struct Inner {
    pub(super) settings: BaoSettings,
    pub(super) cluster: Cluster,
    pub(super) identity: Arc<Identity>,
    pub(super) arena: Arena,
    pub(super) clock: Clock,
    known: Mutex<BTreeMap<String, Known>>,
    pub(super) canary: Mutex<Option<Canary>>,
    pub(super) checked: Mutex<Vec<ServerStatus>>,
    /// What the last check found wrong with our files.
    pub(super) file_problem: Mutex<Option<String>>,
    /// Held by the one who checks.
    pub(super) checking: Mutex<()>,
}

/// What is remembered of a key.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    made: Option<u64>,
    /// The newest version that was seen. Nothing is wrapped by an older one: the server that offers it is behind.
    version: u64,
    /// It can be given out of the server.
    leaves: bool,
}

/// A wrap for checks, and what is inside.
#[derive(Clone)]
pub(super) struct Canary {
    pub(super) key: String,
    pub(super) wrapped: Wrapped,
    pub(super) value: CheckValue,
}

impl BaoProvider {
    /// A provider with these settings. Nobody is asked yet, so that a host starts while its key servers are down. Keys pass through
    /// `arena` on their way.
    ///
    /// # Errors
    /// [`KmsError::Config`] for names that cannot be used.
    pub fn open(settings: BaoSettings, clock: Clock, arena: &Arena) -> Result<Self, KmsError> {
        check(&settings)?;
        let identity = Arc::new(Identity::new(settings.tls.clone(), clock));
        let mut nodes = Vec::with_capacity(settings.servers.len());
        for server in &settings.servers {
            let tls_name = server.tls_name.as_deref();
            let (identity, budgets) = (Arc::clone(&identity), settings.budgets);
            let node = Node::new(&server.host, server.port, tls_name, identity, budgets);
            nodes.push(node.map_err(|name| {
                let problem = format!("has the server {name:?}, which is no name of a machine");
                config(&settings.name, problem, "write a DNS name or an IP address")
            })?);
        }
        let places = Places {
            mount: settings.mount.clone(),
            auth_mount: settings.auth_mount.clone(),
            role: settings.role.clone(),
            namespace: settings.namespace.clone(),
        };
        let inner = Arc::new(Inner {
            cluster: Cluster::new(nodes, places, settings.budgets),
            identity,
            arena: arena.clone(),
            clock,
            known: Mutex::default(),
            canary: Mutex::default(),
            checked: Mutex::default(),
            file_problem: Mutex::default(),
            checking: Mutex::new(()),
            settings,
        });
        let checked = Arc::clone(&inner);
        let check = move || checked.check();
        let every = inner.settings.check_every;
        let checker =
            every.map(|every| Checker::start("openbao-check", every, check)).transpose()?;
        Ok(Self { inner, _checker: checker })
    }
}

impl KeyProvider for BaoProvider {
    fn name(&self) -> &str {
        &self.inner.settings.name
    }

    fn create_key(&self) -> Result<KeyId, KmsError> {
        let inner = &self.inner;
        let name = match &inner.settings.keys {
            KeyChoice::Named(name) => name.clone(),
            KeyChoice::Each(prefix) => {
                format!("{prefix}{}", hex::encode(crypto::random_array::<16>()?))
            }
        };
        let made = matches!(inner.settings.keys, KeyChoice::Each(_));
        inner.ready(&name, made).map_err(|refused| inner.error(refused, None))?;
        if made {
            inner.known().entry(name.clone()).or_default().made = Some((inner.clock)());
        }
        KeyId::new(&inner.settings.name, &name)
            .map_err(|e| config(&inner.settings.name, e.to_string(), "choose another prefix"))
    }

    fn custody(&self) -> Custody {
        Custody::Provider
    }

    fn fetch(&self, key: &KeyId, _arena: &Arena) -> Result<Kek, KmsError> {
        Err(KmsError::Denied {
            provider: self.inner.settings.name.clone(),
            reason: format!("{key} never leaves OpenBao; it wraps and unwraps there"),
        })
    }

    fn wrap(
        &self,
        key: &KeyId,
        data: &OpaqueKey,
        bound: &str,
        arena: &Arena,
    ) -> Result<Wrapped, KmsError> {
        let name = self.inner.own(key)?;
        let wrapped = self.inner.wrap(name, data, bound, arena);
        wrapped.map_err(|refused| self.inner.error(refused, Some(key)))
    }

    fn unwrap(
        &self,
        key: &KeyId,
        wrapped: &Wrapped,
        bound: &str,
        arena: &Arena,
    ) -> Result<OpaqueKey, KmsError> {
        let inner = &self.inner;
        let name = inner.own(key)?;
        if Shape::of_wrapped(wrapped).is_none() {
            let provider = inner.settings.name.clone();
            let reason = "the wrap is none of a transit engine".to_owned();
            return Err(KmsError::BadKey { provider, reason });
        }
        inner
            .cluster
            .ask(|talk| talk.decrypt(name, wrapped, bound, arena))
            .map_err(|refused| inner.error(refused, Some(key)))
    }

    fn renew(&self, key: &KeyId) -> Result<bool, KmsError> {
        let inner = &self.inner;
        let name = inner.own(key)?;
        let mut before = None;
        let renewed = inner.cluster.ask(|talk| {
            let facts = talk.key(name)?;
            // A try whose outcome is in doubt has done it after all.
            if before.is_some_and(|before| facts.version > before) {
                return Ok(facts.version);
            }
            before.get_or_insert(facts.version);
            Ok(talk.rotate(name)?.unwrap_or(facts.version.saturating_add(1)))
        });
        let version = renewed.map_err(|refused| inner.error(refused, Some(key)))?;
        inner.note(name, version, None);
        Ok(true)
    }

    fn keys(&self) -> Result<Vec<KeyRecord>, KmsError> {
        let record = |(name, known): (&String, &Known)| {
            let id = KeyId::new(&self.inner.settings.name, name).ok()?;
            Some(KeyRecord { id, created_at: known.made, state: KeyState::Active })
        };
        let mut keys: Vec<_> = self.inner.known().iter().filter_map(record).collect();
        keys.sort_by_key(|key| key.created_at);
        Ok(keys)
    }

    fn check(&self) {
        self.inner.check();
    }

    fn status(&self) -> ProviderStatus {
        self.inner.status()
    }
}

impl Inner {
    /// The name of a key of this provider. Key ids come from files that anybody may have made up, and the name goes into a path.
    fn own<'a>(&self, key: &'a KeyId) -> Result<&'a str, KmsError> {
        let reason = if key.provider() != self.settings.name {
            format!("it is no key of the provider {}", self.settings.name)
        } else if is_key_name(key.uid()) {
            return Ok(key.uid());
        } else {
            "no key of OpenBao has such a name".to_owned()
        };
        Err(KmsError::NotFound { key: key.clone(), reason })
    }

    pub(super) fn error(&self, refused: Refused, key: Option<&KeyId>) -> KmsError {
        refused.into_error(&self.settings.name, key, self.cluster.members.len())
    }

    /// Sees that a key is there and can be used, after making it if that is to be.
    pub(super) fn ready(&self, name: &str, make: bool) -> Result<(), Refused> {
        let facts = self.cluster.ask(|talk| {
            if make {
                talk.make(name)?;
            }
            talk.key(name)
        })?;
        self.note(name, facts.version, Some(facts.leaves));
        Ok(())
    }

    /// Wraps a data key, and has the wrap opened.
    pub(super) fn wrap(
        &self,
        name: &str,
        data: &OpaqueKey,
        bound: &str,
        arena: &Arena,
    ) -> Result<Wrapped, Refused> {
        let value = data.check_value().map_err(|fault| self.own_fault(fault.into()))?;
        let (wrapped, shape) = self.cluster.ask(|talk| {
            let wrapped = self.wrap_at(talk, name, data, bound)?;
            let opened = talk.decrypt(name, &wrapped.0, bound, arena)?;
            if opened.check_value()? != value {
                return Err(BaoFault::NotTheSame);
            }
            Ok(wrapped)
        })?;
        self.note(name, shape.version, None);
        Ok(wrapped)
    }

    /// Wraps by one server. The key is looked at first: some tokens may make keys, and for these a server makes one that is missing rather
    /// than refuse. A version older than one that was seen is not used: the server is behind.
    fn wrap_at(
        &self,
        talk: &Talk<'_>,
        name: &str,
        data: &OpaqueKey,
        bound: &str,
    ) -> Result<(Wrapped, Shape), BaoFault> {
        let facts = talk.key(name)?;
        self.note(name, facts.version, Some(facts.leaves));
        let wrapped = talk.encrypt(name, data, bound)?;
        let newest = self.known().get(name).map_or(0, |known| known.version);
        if wrapped.1.version < newest {
            let (has, newest) = (wrapped.1.version, newest);
            let what = format!("it wraps by version {has} of key {name}, the newest is {newest}");
            return Err(BaoFault::Behind(what));
        }
        Ok(wrapped)
    }

    fn own_fault(&self, fault: BaoFault) -> Refused {
        let node = "(this host)".to_owned();
        Refused(vec![super::fault::BaoError { node, operation: "encrypt", fault }])
    }

    /// Remembers what was seen of a key.
    fn note(&self, name: &str, version: u64, leaves: Option<bool>) {
        let mut known = self.known();
        if known.len() >= MAX_KNOWN && !known.contains_key(name) {
            return;
        }
        let entry = known.entry(name.to_owned()).or_default();
        entry.version = entry.version.max(version);
        entry.leaves = leaves.unwrap_or(entry.leaves);
    }

    /// The keys that can be given out of the servers.
    pub(super) fn leaving(&self) -> Vec<String> {
        let known = self.known();
        known.iter().filter(|(_, known)| known.leaves).map(|(name, _)| name.clone()).collect()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        lock(&self.known)
    }
}

/// The values are replaced as a whole, so a panic elsewhere cannot leave them half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

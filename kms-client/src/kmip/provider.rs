//! A KMIP cluster as a provider of keys.
//!
//! Owns the settings, the way from the trait's calls to the cluster, the translation of faults, and the thread that checks the servers
//! from time to time. It must not know sockets or messages. Flow: `fetch` joins those who want the same key, gathers different keys
//! that are wanted together, and has the cluster fetch them; `create_key` has the cluster make one; both note in the ledger what they saw.

use super::cluster::Cluster;
use super::credential::Account;
use super::fetching::FetchResult;
use super::gate::{Flights, Gate, MAX_AT_ONCE, MAX_TOGETHER, MAX_WAIT};
use super::gather::Gather;
use super::health;
use super::ledger::Ledger;
use super::link::Budgets;
use super::node::Node;
use super::refused::Refused;
use super::request::Attribute;
use super::tls::{Identity, TlsFiles};
use super::values::Version;
use crate::checker::Checker;
use crate::{Clock, KeyProvider, KeyRecord, KmsError, ProviderStatus, Said, ServerStatus};
use crypto::{Arena, Kek, KeyId};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most keys whose states one check asks for: a few messages a server, and thousands of keys in some minutes.
const MAX_POLLED: usize = 256;

/// Settings of a provider.
#[derive(Debug, Clone)]
pub struct KmipSettings {
    /// Name of the provider: the part of its key ids before the slash.
    pub name: String,
    /// The servers, best first.
    pub servers: Vec<ServerSettings>,
    /// Our certificate and key, and whom to trust.
    pub tls: TlsFiles,
    /// User name and password, for servers that want them.
    pub account: Option<Account>,
    /// The version to speak, if a server does.
    pub version: Version,
    /// How long steps may take.
    pub budgets: Budgets,
    /// Use keys for unwrapping although the server says that they are compromised.
    pub allow_compromised: bool,
    /// Name of the operation policy that servers give new keys: who else may have them. The server's own when `None`.
    pub operation_policy: Option<String>,
    /// Servers that should have a new key before it is used.
    pub copies: usize,
    /// Pause between checks; `None` for no checks but those that are asked for.
    pub check_every: Option<Duration>,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Name that its certificate must have, when that is not `host`.
    pub tls_name: Option<String>,
}

/// The provider.
pub struct KmipProvider {
    inner: Arc<Inner>,
    /// Ends with the provider.
    _checker: Option<Checker>,
}

pub(super) struct Inner {
    pub(super) settings: KmipSettings,
    pub(super) cluster: Cluster,
    pub(super) identity: Arc<Identity>,
    pub(super) arena: Arena,
    pub(super) clock: Clock,
    gate: Gate,
    flights: Flights<FetchResult>,
    pub(super) gather: Gather<FetchResult>,
    pub(super) ledger: Ledger,
    canary: Mutex<Option<String>>,
    pub(super) checked: Mutex<Vec<ServerStatus>>,
    /// What the last check found wrong with our files.
    pub(super) file_problem: Mutex<Option<String>>,
    /// Held by the one who checks.
    checking: Mutex<()>,
}

impl KmipProvider {
    /// A provider with these settings. Nobody is asked yet, so that a host starts while its key servers are down. Keys pass through
    /// `arena` on their way.
    ///
    /// # Errors
    /// [`KmsError::Config`] for a name that cannot be in a key id or a server that has no possible name.
    pub fn open(settings: KmipSettings, clock: Clock, arena: &Arena) -> Result<Self, KmsError> {
        let config = |problem: String, remedy: &str| KmsError::Config {
            origin: format!("key provider {}", settings.name),
            problem,
            remedy: remedy.to_owned(),
        };
        KeyId::new(&settings.name, "1")
            .map_err(|e| config(format!("cannot have this name: {e}"), "choose another name"))?;
        let identity = Identity::new(settings.tls.clone(), clock);
        let identity = Arc::new(identity.with_account(settings.account.clone()));
        let mut nodes = Vec::with_capacity(settings.servers.len());
        for server in &settings.servers {
            let tls_name = server.tls_name.as_deref();
            let (version, budgets) = (settings.version, settings.budgets);
            let identity = Arc::clone(&identity);
            let node = Node::new(&server.host, server.port, tls_name, identity, version, budgets);
            nodes.push(node.map_err(|name| {
                let problem = format!("has the server {name:?}, which is no name of a machine");
                config(problem, "write a DNS name or an IP address")
            })?);
        }
        let addresses = nodes.iter().map(Node::address).collect();
        let inner = Arc::new(Inner {
            cluster: Cluster::new(nodes, settings.budgets)
                .with_policy(settings.operation_policy.clone()),
            identity,
            arena: arena.clone(),
            clock,
            gate: Gate::new(MAX_AT_ONCE),
            flights: Flights::new(),
            gather: Gather::new(MAX_AT_ONCE, MAX_TOGETHER),
            ledger: Ledger::new(&settings.name, addresses),
            canary: Mutex::new(None),
            checked: Mutex::default(),
            file_problem: Mutex::default(),
            checking: Mutex::new(()),
            settings,
        });
        let checked = Arc::clone(&inner);
        let check = move || checked.check();
        let every = inner.settings.check_every;
        let checker = every.map(|every| Checker::start("kmip-check", every, check)).transpose()?;
        Ok(Self { inner, _checker: checker })
    }
}

impl KeyProvider for KmipProvider {
    fn name(&self) -> &str {
        &self.inner.settings.name
    }

    fn create_key(&self) -> Result<KeyId, KmsError> {
        self.inner.create(self.inner.settings.copies)
    }

    fn fetch(&self, key: &KeyId, arena: &Arena) -> Result<Kek, KmsError> {
        let inner = &self.inner;
        if key.provider() != inner.settings.name {
            return Err(KmsError::NotFound {
                key: key.clone(),
                reason: format!("it is no key of the provider {}", inner.settings.name),
            });
        }
        let end = inner.cluster.end() + MAX_WAIT;
        let fetched = inner.flights.join(key.uid(), end, || inner.fetch(key.uid()));
        match fetched {
            Some(Ok(kek)) => Ok(kek.copy_to(arena)?),
            Some(Err(fault)) => Err(fault.into_error(key)),
            None => Err(inner.unavailable("another fetch of the same key did not end in time")),
        }
    }

    fn keys(&self) -> Result<Vec<KeyRecord>, KmsError> {
        let name = &self.inner.settings.name;
        let record = |(uid, entry): (String, super::ledger::Entry)| {
            let id = KeyId::new(name, &uid).ok()?;
            Some(KeyRecord { id, created_at: entry.made, state: entry.state() })
        };
        let mut keys: Vec<_> = self.inner.ledger.keys().into_iter().filter_map(record).collect();
        keys.sort_by_key(|key| key.created_at);
        Ok(keys)
    }

    fn may_wrap(&self, key: &KeyId) -> Result<(), KmsError> {
        self.inner.ledger.may_wrap(key.uid())
    }

    fn revoke(&self, key: &KeyId, compromised: bool, why: &str) -> Result<Vec<Said>, KmsError> {
        self.inner.revoke(key, compromised, why)
    }

    fn destroy(&self, key: &KeyId) -> Result<Vec<Said>, KmsError> {
        self.inner.destroy(key)
    }

    fn watch(&self, keys: &BTreeSet<KeyId>) {
        let ours = keys.iter().filter(|key| key.provider() == self.inner.settings.name);
        self.inner.ledger.watch(&ours.map(KeyId::uid).collect(), (self.inner.clock)());
    }

    fn check(&self) {
        self.inner.check();
    }

    fn status(&self) -> ProviderStatus {
        self.inner.status()
    }
}

impl Inner {
    fn create(&self, copies: usize) -> Result<KeyId, KmsError> {
        let Some(_place) = self.gate.enter(Instant::now() + MAX_WAIT) else {
            return Err(self.unavailable("too many keys are being made"));
        };
        let end = self.cluster.end();
        let base = hex::encode(crypto::random_array::<16>()?);
        let mut count = 0;
        let name = || {
            count += 1;
            format!("coffer-{base}-{count}")
        };
        let tags = [
            Attribute::text("x-Product", "Coffer"),
            Attribute::text("x-Product_Version", env!("CARGO_PKG_VERSION")),
        ];
        let mut orphans = Vec::new();
        let made = self.cluster.make(name, &tags, copies, &mut orphans, &self.arena, end);
        for orphan in &orphans {
            self.ledger.note(format!(
                "a server may have made a key named {orphan} that nobody uses; look for it there"
            ));
        }
        let made = made.map_err(|refused| self.making_fault(&refused))?;
        if !made.strangers.is_empty() {
            self.ledger.note(format!("key {} was made, and is not used", made.uid));
            return Err(KmsError::BadKey {
                provider: self.settings.name.clone(),
                reason: format!(
                    "{} has another key under the id {}, so it is no server of this cluster, or does not \
                     replicate; take it out of the configuration",
                    made.strangers.join(", "),
                    made.uid
                ),
            });
        }
        if made.copies < copies.min(self.cluster.members.len()) {
            self.ledger.note(format!(
                "key {}/{} was found on {} of {} servers when it was made; see that the servers replicate",
                self.settings.name,
                made.uid,
                made.copies,
                self.cluster.members.len()
            ));
        }
        self.ledger.made(&made.uid, (self.clock)());
        KeyId::new(&self.settings.name, &made.uid).map_err(|e| self.unavailable(&e.to_string()))
    }

    fn making_fault(&self, refused: &Refused) -> KmsError {
        let provider = self.settings.name.clone();
        let reason = refused.to_string();
        if refused.answer().is_some() {
            return KmsError::Denied { provider, reason };
        }
        if refused.is_read_only() {
            let reason = format!("no server that answers makes keys: {reason}");
            return KmsError::Unavailable { provider, reason };
        }
        KmsError::Unavailable { provider, reason }
    }

    fn unavailable(&self, reason: &str) -> KmsError {
        KmsError::Unavailable { provider: self.settings.name.clone(), reason: reason.to_owned() }
    }

    /// One check at a time; who comes meanwhile waits for it, and has what it found.
    fn check(&self) {
        match self.checking.try_lock() {
            Ok(_checking) => self.check_now(),
            Err(_) => drop(lock(&self.checking)),
        }
    }

    fn check_now(&self) {
        self.cluster.close_idle();
        let mut uids = self.ledger.next(MAX_POLLED);
        // A slow server is asked about the first few only, and those must not always be the same.
        let turn = usize::try_from(super::cluster::random()).unwrap_or_default();
        let turn = turn.checked_rem(uids.len()).unwrap_or_default();
        uids.rotate_left(turn);
        let mut found = self.check_once(&uids);
        let missing = |server: &ServerStatus| server.reason == Some(health::reason::MISSING);
        if found.iter().any(missing) {
            // Perhaps somebody destroyed the key; it is looked for, or made, anew.
            *lock(&self.canary) = None;
            found = self.check_once(&[]);
        }
        *lock(&self.checked) = found;
        *lock(&self.file_problem) = self.identity.problem().map(|problem| problem.to_string());
    }

    fn check_once(&self, uids: &[String]) -> Vec<ServerStatus> {
        let canary = self.canary();
        let round = health::Round {
            cluster: &self.cluster,
            ledger: &self.ledger,
            arena: &self.arena,
            canary: canary.as_deref(),
            uids,
            now: (self.clock)(),
        };
        round.check()
    }

    /// The key that checks fetch, made once for all who share the name of the provider. `None` when there is none and none can be
    /// made.
    fn canary(&self) -> Option<String> {
        if let Some(uid) = lock(&self.canary).clone() {
            return Some(uid);
        }
        let name = format!("coffer-check-{}", self.settings.name);
        let end = self.cluster.end();
        let order: Vec<_> = (0..self.cluster.members.len()).collect();
        let located = self.cluster.ask(&order, end, |session| session.locate(Some(&name)));
        let uid = match located.ok()?.1.into_iter().min() {
            Some(uid) => uid,
            None => {
                // One that is left over is found by its name next time.
                let mut left = Vec::new();
                let name = || name.clone();
                self.cluster.make(name, &[], 1, &mut left, &self.arena, end).ok()?.uid
            }
        };
        *lock(&self.canary) = Some(uid.clone());
        Some(uid)
    }
}

/// The values are replaced as a whole, so a panic elsewhere cannot leave them half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! One server: where it is, and conversations with it.
//!
//! Owns the address, the version that was agreed on, and sessions. It must not know other servers, nor when to ask
//! again. Flow: [`Node::session`] connects and agrees on a version; the session's operations are in `operations`.
//!
//! What changes anything on a server has a connection of its own, as vCenter does it, so none can be found dead in the
//! middle of a Create. Keys are fetched by [`Node::resume`], which takes a connection that was left open a moment ago: a host that
//! starts fetches hundreds, and a handshake costs more than a Get. When such a connection is found dead, the request
//! is sent once more over a new one; it changes nothing, so that is no risk.

use super::credential::Credential;
use super::fault::{Fault, NodeError, Outcome};
use super::link::{Budgets, Link};
use super::request::{Call, encode_as};
use super::response::{Answer, Asked, read};
use super::tls::Identity;
use super::ttlv::{Item, Tag};
use super::values::{Operation, ResultReason, Version};
use rustls::pki_types::ServerName;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Port of KMIP (IANA).
pub const PORT: u16 = 5696;

/// Longest time that a connection lies idle before it is not used any more: shorter than servers and firewalls wait.
const MAX_IDLE: Duration = Duration::from_secs(5);

/// Most connections that are kept: no more are in use at a time.
const MAX_KEPT: usize = super::gate::MAX_AT_ONCE;

/// A server.
pub struct Node {
    host: String,
    port: u16,
    name: ServerName<'static>,
    identity: Arc<Identity>,
    budgets: Budgets,
    wanted: Version,
    /// What was agreed on with it last. Asked for again after every fault, as servers are upgraded.
    agreed: Mutex<Option<Version>>,
    /// Connections that are left open, the one that was used last at the end.
    kept: Mutex<Vec<(Instant, Link)>>,
}

/// A conversation with a server.
pub struct Session<'a> {
    node: &'a Node,
    /// `None` after a fault: what would come next is the answer to something else.
    link: Option<Link>,
    /// Nothing was sent yet over a connection that was left open, so it may be found dead.
    untried: bool,
    credential: Option<Credential>,
    version: Version,
    end: Instant,
    count: u32,
}

impl Node {
    /// A server at `host` (a name or an address) and `port`. Its certificate must be for `tls_name`, or for `host` when that
    /// is `None`.
    ///
    /// # Errors
    /// The text that is no name of a server.
    pub fn new(
        host: &str,
        port: u16,
        tls_name: Option<&str>,
        identity: Arc<Identity>,
        wanted: Version,
        budgets: Budgets,
    ) -> Result<Self, String> {
        let name = tls_name.unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).map_err(|_| name.to_owned())?;
        let host = host.to_owned();
        Ok(Self {
            host,
            port,
            name,
            identity,
            budgets,
            wanted,
            agreed: Mutex::new(None),
            kept: Mutex::default(),
        })
    }

    /// Its address, `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// How long steps may take.
    #[must_use]
    pub fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// The version that was agreed on last.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        *self.agreed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects, and agrees on a version, at most until `end`.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn session(&self, end: Instant) -> Result<Session<'_>, NodeError> {
        self.begin(end, self.budgets.connect)
    }

    fn begin(&self, end: Instant, connect: Duration) -> Result<Session<'_>, NodeError> {
        let failed = |fault| self.error("connecting", fault);
        let credential = self.identity.credential().map_err(Fault::from).map_err(failed)?;
        let link = self.connect(end, connect).map_err(failed)?;
        let version = self.version();
        let mut session = Session {
            node: self,
            link: Some(link),
            untried: false,
            credential,
            version: version.unwrap_or(self.wanted),
            end,
            count: 0,
        };
        if version.is_none() {
            session.version = session.agree(self.wanted)?;
            self.set_version(Some(session.version));
        }
        Ok(session)
    }

    /// The same over a connection that [`Session::keep`] left open, if there is one. For requests that change nothing. `soon`
    /// leaves half the usual time for making one.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn resume(&self, end: Instant, soon: bool) -> Result<Session<'_>, NodeError> {
        match (self.version(), self.take_kept()) {
            (Some(version), Some(link)) => {
                let credential = self.identity.credential();
                let failed = |fault: Fault| self.error("connecting", fault);
                Ok(Session {
                    node: self,
                    link: Some(link),
                    untried: true,
                    credential: credential.map_err(|e| failed(e.into()))?,
                    version,
                    end,
                    count: 0,
                })
            }
            _ => {
                let parts = if soon { 2 } else { 1 };
                self.begin(end, self.budgets.connect / parts)
            }
        }
    }

    /// Closes the connections that nobody has used for a while.
    pub fn close_idle(&self) {
        let mut kept = self.kept();
        kept.retain(|(since, _)| since.elapsed() < MAX_IDLE);
    }

    fn connect(&self, end: Instant, connect: Duration) -> Result<Link, Fault> {
        let budgets = Budgets { connect, ..self.budgets };
        Link::open(&self.host, self.port, &self.name, &self.identity, &budgets, end)
    }

    fn take_kept(&self) -> Option<Link> {
        self.close_idle();
        let (_, link) = self.kept().pop()?;
        link.is_of(&self.identity).then_some(link)
    }

    fn kept(&self) -> MutexGuard<'_, Vec<(Instant, Link)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error of this server.
    pub(super) fn error(&self, operation: &'static str, fault: Fault) -> NodeError {
        NodeError { node: self.address(), operation, fault }
    }

    fn set_version(&self, version: Option<Version>) {
        *self.agreed.lock().unwrap_or_else(PoisonError::into_inner) = version;
    }
}

impl Session<'_> {
    /// The version in use.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Leaves the connection open for [`Node::resume`], unless it broke.
    pub fn keep(self) {
        let Some(link) = self.link else { return };
        let mut kept = self.node.kept();
        if kept.len() < MAX_KEPT {
            kept.push((Instant::now(), link));
        }
    }

    /// The server's certificate, DER.
    #[must_use]
    pub fn certificate(&self) -> Option<Vec<u8>> {
        self.link.as_ref()?.certificate()
    }

    /// An error of this server.
    pub(super) fn error(&self, operation: &'static str, fault: Fault) -> NodeError {
        self.node.error(operation, fault)
    }

    /// Does one call, and gives the payload of the answer to `take`.
    pub(super) fn call<T>(
        &mut self,
        call: Call<'_>,
        take: impl FnOnce(&Item<'_>) -> Result<T, Fault>,
    ) -> Result<T, NodeError> {
        let mut take = Some(take);
        let mut taken = None;
        self.batch(&[call], |_, answer| {
            let payload = answer.map_err(Fault::Refused)?;
            let none = || Fault::Unfitting("it has no payload".to_owned());
            let payload = payload.ok_or_else(none)?;
            taken = take.take().map(|take| take(&payload)).transpose()?;
            Ok(())
        })?;
        let nothing = || Fault::Unfitting("it has no answer".to_owned());
        taken.ok_or_else(|| self.node.error(call.operation().name(), nothing()))
    }

    /// Does several calls in one message, and gives the answers to `take`, in the order of the calls.
    pub(super) fn batch(
        &mut self,
        calls: &[Call<'_>],
        mut take: impl FnMut(usize, Answer<'_>) -> Result<(), Fault>,
    ) -> Result<(), NodeError> {
        let operation = calls.first().map_or("nothing", |call| call.operation().name());
        let done = self.exchange(calls, &mut take);
        if let Err(fault) = &done {
            if fault.outcome() != Outcome::Answered {
                self.link = None;
                self.node.set_version(None);
            }
            // Perhaps it was replaced by an older one, which does not know the version any more.
            if fault.reason() == Some(ResultReason::InvalidMessage) {
                self.node.set_version(None);
            }
        }
        done.map_err(|fault| self.node.error(operation, fault))
    }

    fn exchange(
        &mut self,
        calls: &[Call<'_>],
        take: &mut impl FnMut(usize, Answer<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let ids: Vec<_> = calls.iter().map(|call| self.id(call.operation())).collect();
        let items: Vec<_> = calls
            .iter()
            .zip(&ids)
            .map(|(call, id)| (*call, id.as_ref().map(<[u8; 8]>::as_slice)))
            .collect();
        let asked: Vec<_> =
            items.iter().map(|(call, id)| Asked { operation: call.operation(), id: *id }).collect();
        let request = encode_as(self.version, self.credential.as_ref(), &items)?;
        let message = self.answer_to(&request)?;
        for (index, answer) in read(&message, self.version, &asked)?.into_iter().enumerate() {
            take(index, answer)?;
        }
        Ok(())
    }

    /// Sends a message and receives its answer. A connection that was left open and is found dead is replaced, once.
    fn answer_to(&mut self, request: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let (identity, budget) = (&self.node.identity, self.node.budgets.request);
        let link = self.link.as_mut().ok_or(Fault::Closed)?;
        let answered = link.exchange(request, identity, budget, self.end);
        let untried = std::mem::take(&mut self.untried);
        if !untried || !matches!(answered, Err(Fault::Closed | Fault::Broken(_))) {
            return answered;
        }
        // Whatever closed it has closed the others as well.
        self.node.kept().clear();
        let link = self.link.insert(self.node.connect(self.end, self.node.budgets.connect)?);
        link.exchange(request, identity, budget, self.end)
    }

    /// A new id, which the answer must repeat. The question for versions goes without, as some servers choke on it.
    fn id(&mut self, operation: Operation) -> Option<[u8; 8]> {
        self.count = self.count.wrapping_add(1);
        let [a, b, c, d] = self.count.to_be_bytes();
        let [e, f, g, h] = *b"CFFR";
        (operation != Operation::DiscoverVersions).then_some([e, f, g, h, a, b, c, d])
    }

    /// Asks for the versions of the server, in KMIP 1.1, where the question came in. A server that refuses it speaks 1.0.
    fn agree(&mut self, wanted: Version) -> Result<Version, NodeError> {
        self.version = wanted.max(Version::V1_1);
        let mut offered = Vec::new();
        let found = self.batch(&[Call::DiscoverVersions(&Version::ALL)], |_, answer| {
            let payload = answer.map_err(Fault::Refused)?;
            // No payload at all is no version.
            let versions = payload.iter().flat_map(Item::children);
            for item in versions.filter(|item| item.tag() == Tag::PROTOCOL_VERSION) {
                offered.extend(Version::read(&item)?);
            }
            Ok(())
        });
        match found {
            Ok(()) => Version::choose(wanted, &offered).ok_or_else(|| {
                self.node.error(Operation::DiscoverVersions.name(), Fault::NoCommonVersion)
            }),
            // Whom it does not know it tells nothing, of versions neither.
            Err(error)
                if error.fault.reason() == Some(ResultReason::AuthenticationNotSuccessful) =>
            {
                Err(error)
            }
            Err(error) if matches!(error.fault, Fault::Refused(_)) => Ok(Version::V1_0),
            Err(error) => Err(error),
        }
    }
}

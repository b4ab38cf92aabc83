//! One server: where it is, and one request after the other.
//!
//! Owns the address and the connections that are left open. It must not know other servers, nor what is asked. Flow: [`Node::exchange`]
//! takes a connection that was left open a moment ago, or makes one, sends, and reads the whole answer into a buffer that is wiped.
//! When a connection that was left open is found dead, the request is sent once more over a new one; what must not be done twice asks for a
//! new one at once.

use super::answer::Answer;
use super::fault::BaoFault;
use super::http::{Frame, MAX_ANSWER};
use super::request::Request;
use crate::kmip::fault::Fault;
use crate::kmip::link::{Budgets, Link};
use crate::kmip::tls::Identity;
use rustls::pki_types::ServerName;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Longest time that a connection lies idle before it is not used any more: shorter than servers and firewalls wait.
const MAX_IDLE: Duration = Duration::from_secs(5);

/// A server.
pub(super) struct Node {
    host: String,
    port: u16,
    name: ServerName<'static>,
    identity: Arc<Identity>,
    budgets: Budgets,
    kept: Mutex<Vec<(Instant, Link)>>,
}

/// Which connection a request goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// One of its own: for what must not be done twice.
    New,
    /// One that was left open, if there is one.
    Kept,
}

impl Node {
    /// A server at `host` (a name or an address) and `port`. Its certificate must be for `tls_name`, or for `host` when that is `None`.
    ///
    /// # Errors
    /// The text that is no name of a server.
    pub(super) fn new(
        host: &str,
        port: u16,
        tls_name: Option<&str>,
        identity: Arc<Identity>,
        budgets: Budgets,
    ) -> Result<Self, String> {
        // The host goes into the head of requests.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(plain) {
            return Err(host.to_owned());
        }
        let name = tls_name.unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).map_err(|_| name.to_owned())?;
        let (host, kept) = (host.to_owned(), Mutex::default());
        Ok(Self { host, port, name, identity, budgets, kept })
    }

    /// Its address, `host:port`.
    pub(super) fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Sends a request and reads its answer, at most until `end`.
    ///
    /// # Errors
    /// [`BaoFault`]; statuses are not looked at.
    pub(super) fn exchange(
        &self,
        request: &Request<'_>,
        over: Over,
        end: Instant,
    ) -> Result<Answer, BaoFault> {
        let bytes = request.encode(&self.address())?;
        let kept = if over == Over::Kept { self.take_kept() } else { None };
        if let Some(link) = kept {
            match self.converse(link, &bytes, end) {
                // It was dead already; whatever closed it has closed the others as well.
                Err(BaoFault::Link(Fault::Closed | Fault::Broken(_))) => self.kept().clear(),
                other => return other,
            }
        }
        self.converse(self.connect(end)?, &bytes, end)
    }

    /// Connects, which shows whether each side trusts the other, and leaves the connection open; the server's certificate.
    ///
    /// # Errors
    /// [`BaoFault::Link`].
    pub(super) fn greet(&self, end: Instant) -> Result<Option<Vec<u8>>, BaoFault> {
        let link = self.connect(end)?;
        let certificate = link.certificate();
        self.keep(link);
        Ok(certificate)
    }

    /// Closes the connections that nobody has used for a while.
    pub(super) fn close_idle(&self) {
        self.kept().retain(|(since, _)| since.elapsed() < MAX_IDLE);
    }

    fn connect(&self, end: Instant) -> Result<Link, BaoFault> {
        Ok(Link::open(&self.host, self.port, &self.name, &self.identity, &self.budgets, end)?)
    }

    fn converse(&self, mut link: Link, request: &[u8], end: Instant) -> Result<Answer, BaoFault> {
        let mut room = Zeroizing::new(vec![0; MAX_ANSWER]);
        let (mut frame, mut whole) = (Frame::default(), false);
        let seen = |bytes: &[u8]| -> Result<bool, BaoFault> {
            whole = frame.advance(bytes)?;
            Ok(whole)
        };
        let budget = self.budgets.request;
        let got = link.converse(request, &mut room, seen, &self.identity, budget, end)?;
        if got == 0 {
            return Err(Fault::Closed.into());
        }
        let answer = if whole { frame.finish(&mut room) } else { None };
        let answer = answer.ok_or(BaoFault::Truncated { got })?;
        if answer.open {
            self.keep(link);
        }
        Ok(Answer::new(answer.status, room, answer.body))
    }

    fn keep(&self, link: Link) {
        let mut kept = self.kept();
        if kept.len() < super::cluster::MAX_AT_ONCE {
            kept.push((Instant::now(), link));
        }
    }

    fn take_kept(&self) -> Option<Link> {
        self.close_idle();
        let (_, link) = self.kept().pop()?;
        link.is_of(&self.identity).then_some(link)
    }

    fn kept(&self) -> MutexGuard<'_, Vec<(Instant, Link)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

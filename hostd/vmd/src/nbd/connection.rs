//! One client, from its first byte to its last.
//!
//! Owns the socket loop. It must not know how connections come about. Flow: greeting and negotiation under a
//! time limit; then requests are taken from the inbox as long as it holds whole ones, answers gather in the
//! outbox, and both meet the socket once per batch. A promise of durable data (FLUSH, FUA) is settled by one
//! flush of the volume just before the batch leaves.

use super::commands::Next;
use super::export::Export;
use super::handshake::{Negotiation, Verdict};
use super::inbox::Inbox;
use super::negotiate::Handshake;
use super::outbox::Outbox;
use super::proto::transmission::{EXTENDED_REQUEST_LEN, REQUEST_LEN, Request};
use super::proto::{Framing, Terms, Violation};
use super::transport::{Received, Transport};
use rustix::net::sockopt::Timeout;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;
use thiserror::Error;

/// A client that is silent for this long gives its buffers back to the host.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// Replies are sent when this many bytes wait, even if more requests are at hand: the client works on them
/// while we work on the rest.
const SEND_AT: usize = 64 * 1024;

/// Limits on the clients of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at one time.
    pub max_connections: u32,
    /// Time for the whole handshake.
    pub handshake: Duration,
}

impl Limits {
    /// Time for the whole handshake, as QEMU's server has it: silent clients must not hold connections.
    pub const HANDSHAKE: Duration = Duration::from_secs(10);
}

/// Why a connection ended otherwise than by the client's leave.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// The client broke the protocol.
    #[error("the client broke the protocol: {0}")]
    Client(#[from] Violation),
    /// The handshake took too long.
    #[error("no export was chosen within {0:?}")]
    HandshakeTimedOut(Duration),
    /// The TLS handshake failed; there is no fallback.
    #[error("the TLS handshake failed: {0}")]
    Tls(#[source] io::Error),
    /// The TLS handshake took too long.
    #[error("the TLS handshake was not over in time")]
    TlsTimedOut,
    /// The client vanished in the middle of a message.
    #[error("the client went away in the middle of a message")]
    Cut,
    /// The client closed before it took its answers.
    #[error("the client went away before it took its answers")]
    Gone,
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Socket(#[source] io::Error),
    /// No memory for a buffer.
    #[error("no memory for a buffer: {0}")]
    Memory(#[source] io::Error),
}

/// Serves the client at `socket` until it leaves.
///
/// # Errors
/// Anything but an orderly end; the connection is then of no use and must be closed.
pub fn serve(socket: &OwnedFd, export: &Export, limits: Limits) -> Result<(), ConnectionError> {
    let mut handshake = Handshake::begin(Transport::Plain(socket), limits.handshake)?;
    let verdict = handshake.run(&mut Negotiation::new(), |negotiation, input, out| {
        negotiation.feed(input, &[export.offer()], out)
    })?;
    match verdict {
        Verdict::Transmit(_, terms) => transmit(handshake, export, terms),
        Verdict::More | Verdict::StartTls | Verdict::Close => {
            handshake.transport.close();
            Ok(())
        }
    }
}

/// The transmission phase of a client that has chosen `export`, and the leave-taking.
pub(super) fn transmit(
    handshake: Handshake<'_>,
    export: &Export,
    terms: Terms,
) -> Result<(), ConnectionError> {
    let Handshake { transport, inbox, .. } = handshake;
    let outbox = Outbox::new(terms.framing);
    let mut connection = Connection { transport, export, terms, inbox, outbox };
    connection.set_timeout(Timeout::Recv, Some(IDLE_AFTER))?;
    connection.set_timeout(Timeout::Send, None)?;
    let outcome = connection.transmit();
    connection.transport.close();
    outcome
}

/// A connection in the transmission phase.
pub(super) struct Connection<'a> {
    transport: Transport<'a>,
    pub(super) export: &'a Export,
    pub(super) terms: Terms,
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
}

impl Connection<'_> {
    /// The transmission phase.
    fn transmit(&mut self) -> Result<(), ConnectionError> {
        let header = match self.terms.framing {
            Framing::Extended => EXTENDED_REQUEST_LEN,
            Framing::Simple | Framing::Structured => REQUEST_LEN,
        };
        loop {
            while self.inbox.unread().len() < header {
                self.inbox.make_room_for_header(header).map_err(ConnectionError::Memory)?;
                if !self.fill(header)? {
                    return if self.inbox.unread().is_empty() {
                        Ok(())
                    } else {
                        Err(ConnectionError::Cut)
                    };
                }
            }
            let request = match Request::parse(self.inbox.take(header), self.terms.framing) {
                Ok(request) => request,
                // What was asked for before a violation is still answered.
                Err(violation) => return self.send().and(Err(violation.into())),
            };
            if self.perform(&request)? == Next::Leave {
                return self.send();
            }
            if self.outbox.len() >= SEND_AT {
                self.send()?;
            }
        }
    }

    /// Receives until `length` bytes of payload are at hand; the inner error is a lack of memory for them.
    pub(super) fn collect(&mut self, length: usize) -> Result<io::Result<()>, ConnectionError> {
        while self.inbox.unread().len() < length {
            if let Err(e) = self.inbox.make_room_for_payload(length) {
                return Ok(Err(e));
            }
            if !self.fill(length)? {
                return Err(ConnectionError::Cut);
            }
        }
        Ok(Ok(()))
    }

    /// Throws a payload away.
    pub(super) fn discard(&mut self, payload: u64) -> Result<(), ConnectionError> {
        let mut left = size(payload);
        loop {
            let now = left.min(self.inbox.unread().len());
            self.inbox.consume(now);
            left -= now;
            if left == 0 {
                return Ok(());
            }
            self.inbox.make_room_for_header(1).map_err(ConnectionError::Memory)?;
            if !self.fill(1)? {
                return Err(ConnectionError::Cut);
            }
        }
    }

    /// Room in the outbox for a reply with `payload` bytes; the inner error is a lack of memory.
    pub(super) fn reserve(&mut self, payload: usize) -> Result<io::Result<()>, ConnectionError> {
        if !self.outbox.fits(payload) {
            self.send()?;
        }
        Ok(self.outbox.reserve(payload))
    }

    /// Sends what waits, after the flush that it may have promised.
    fn send(&mut self) -> Result<(), ConnectionError> {
        if self.outbox.has_promises() {
            let flushed = self.export.volume().flush();
            let error = flushed.err().map(|e| self.export.faults.volume("flush", 0, &e));
            self.outbox.settle(error);
        }
        self.outbox.send(&mut self.transport).map_err(unsent)
    }

    /// Sends what waits, then receives at least once; false when the client has closed.
    fn fill(&mut self, need: usize) -> Result<bool, ConnectionError> {
        self.send()?;
        loop {
            match self.receive(need)? {
                Received::Bytes(_) => return Ok(true),
                Received::Closed => return Ok(false),
                Received::Nothing => self.idle(need)?,
            }
        }
    }

    /// Nothing came for a while: gives memory back and sleeps until something does.
    fn idle(&mut self, need: usize) -> Result<(), ConnectionError> {
        self.outbox.release();
        self.inbox.release();
        self.transport.wait().map_err(ConnectionError::Socket)?;
        self.inbox.make_room_for_header(need).map_err(ConnectionError::Memory)
    }

    fn receive(&mut self, need: usize) -> Result<Received, ConnectionError> {
        self.inbox.receive(&mut self.transport, need).map_err(ConnectionError::Socket)
    }

    fn set_timeout(&self, which: Timeout, limit: Option<Duration>) -> Result<(), ConnectionError> {
        self.transport.set_timeout(which, limit).map_err(ConnectionError::Socket)
    }
}

/// Why an answer could not be sent.
pub(super) fn unsent(error: io::Error) -> ConnectionError {
    match error.kind() {
        // WouldBlock: the time limit of the handshake, within which it took nothing.
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::WouldBlock => {
            ConnectionError::Gone
        }
        _ => ConnectionError::Socket(error),
    }
}

/// A length of the wire as a length in memory.
pub(super) fn size(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

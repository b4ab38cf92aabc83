//! One client, from its first byte to its last.
//!
//! Owns the socket loop. It must not know how connections come about. Flow: greeting and negotiation under a
//! time limit; then requests are taken from the inbox as long as it holds whole ones, answers gather in the
//! outbox, and both meet the socket once per batch. A promise of durable data (FLUSH, FUA) is settled by one
//! flush of the volume just before the batch leaves.

use super::export::Export;
use super::handshake::{Negotiation, Verdict};
use super::inbox::Inbox;
use super::negotiate::Handshake;
use super::outbox::Outbox;
use super::proto::transmission::{Action, REQUEST_LEN, Request};
use super::proto::{Violation, WireError};
use super::transport::{Received, Transport};
use cryptfs::volume::VolumeError;
use rustix::net::sockopt::Timeout;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
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
        Verdict::Transmit(_) => transmit(handshake, export),
        Verdict::More | Verdict::StartTls | Verdict::Close => {
            handshake.transport.close();
            Ok(())
        }
    }
}

/// The transmission phase of a client that has chosen `export`, and the leave-taking.
pub(super) fn transmit(handshake: Handshake<'_>, export: &Export) -> Result<(), ConnectionError> {
    let Handshake { transport, inbox, .. } = handshake;
    let mut connection = Connection { transport, export, inbox, outbox: Outbox::default() };
    connection.set_timeout(Timeout::Recv, Some(IDLE_AFTER))?;
    connection.set_timeout(Timeout::Send, None)?;
    let outcome = connection.transmit();
    connection.transport.close();
    outcome
}

struct Connection<'a> {
    transport: Transport<'a>,
    export: &'a Export,
    inbox: Inbox,
    outbox: Outbox,
}

/// Whether to go on.
#[derive(PartialEq, Eq)]
enum Next {
    Request,
    Leave,
}

impl Connection<'_> {
    /// The transmission phase.
    fn transmit(&mut self) -> Result<(), ConnectionError> {
        loop {
            while self.inbox.unread().len() < REQUEST_LEN {
                self.inbox.make_room_for_header(REQUEST_LEN).map_err(ConnectionError::Memory)?;
                if !self.fill(REQUEST_LEN)? {
                    return if self.inbox.unread().is_empty() {
                        Ok(())
                    } else {
                        Err(ConnectionError::Cut)
                    };
                }
            }
            let header = self.inbox.take(REQUEST_LEN).first_chunk().copied();
            let request = Request::parse(&header.unwrap_or([0; REQUEST_LEN]));
            // What was asked for before a violation is still answered.
            let Ok(request) = request else {
                self.send()?;
                return Err(request.err().map_or(ConnectionError::Cut, Into::into));
            };
            if self.perform(&request)? == Next::Leave {
                return self.send();
            }
            if self.outbox.len() >= SEND_AT {
                self.send()?;
            }
        }
    }

    /// Carries out one request and puts its reply into the outbox.
    fn perform(&mut self, request: &Request) -> Result<Next, ConnectionError> {
        let action = match request.check(self.export.shape()) {
            Ok(action) => action,
            Err(error) => {
                self.discard(request.payload())?;
                self.answer(request.cookie, Some(error))?;
                return Ok(Next::Request);
            }
        };
        let volume = self.export.volume();
        let (offset, length) = (request.offset, u64::from(request.length));
        match action {
            Action::Disconnect => return Ok(Next::Leave),
            Action::Read => self.read(request)?,
            Action::Write { durable } => self.write(request, durable)?,
            Action::Flush => self.promise(request.cookie)?,
            Action::Trim { durable } => {
                self.conclude(request, durable, volume.discard(offset, length))?;
            }
            Action::WriteZeroes { durable, may_punch } => {
                let done = volume.write_zeroes(offset, length, may_punch);
                self.conclude(request, durable, done)?;
            }
        }
        Ok(Next::Request)
    }

    /// One pread into the place it is sent from, decrypted there.
    fn read(&mut self, request: &Request) -> Result<(), ConnectionError> {
        let length = size(request.length);
        if let Err(e) = self.reserve(length)? {
            let error = self.export.faults.memory(&e);
            return self.answer(request.cookie, Some(error));
        }
        let room = self.outbox.payload(length);
        match self.export.volume().read(request.offset, room) {
            Ok(()) => {
                self.outbox.finish_read(request.cookie, length);
                let read = &self.export.counters.bytes_read;
                read.fetch_add(u64::from(request.length), Ordering::Relaxed);
                Ok(())
            }
            Err(e) => {
                let error = self.export.faults.volume("read", request.offset, &e);
                self.answer(request.cookie, Some(error))
            }
        }
    }

    /// The payload is encrypted where it was received, and written from there.
    fn write(&mut self, request: &Request, durable: bool) -> Result<(), ConnectionError> {
        let length = size(request.length);
        while self.inbox.unread().len() < length {
            if let Err(e) = self.inbox.make_room_for_payload(length) {
                let error = self.export.faults.memory(&e);
                self.discard(request.length)?;
                return self.answer(request.cookie, Some(error));
            }
            if !self.fill(length)? {
                return Err(ConnectionError::Cut);
            }
        }
        let done = self.export.volume().write(request.offset, self.inbox.take(length));
        if done.is_ok() {
            let written = &self.export.counters.bytes_written;
            written.fetch_add(u64::from(request.length), Ordering::Relaxed);
        }
        self.conclude(request, durable, done)
    }

    /// Answers a command that changes the volume.
    fn conclude(
        &mut self,
        request: &Request,
        durable: bool,
        done: Result<(), VolumeError>,
    ) -> Result<(), ConnectionError> {
        match done {
            Ok(()) if durable => self.promise(request.cookie),
            Ok(()) => self.answer(request.cookie, None),
            Err(e) => {
                let error = self.export.faults.volume("change", request.offset, &e);
                self.answer(request.cookie, Some(error))
            }
        }
    }

    /// Throws a payload away.
    fn discard(&mut self, payload: u32) -> Result<(), ConnectionError> {
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

    fn answer(&mut self, cookie: u64, error: Option<WireError>) -> Result<(), ConnectionError> {
        self.reserve(0)?.map_err(ConnectionError::Memory)?;
        self.outbox.reply(cookie, error);
        Ok(())
    }

    fn promise(&mut self, cookie: u64) -> Result<(), ConnectionError> {
        self.reserve(0)?.map_err(ConnectionError::Memory)?;
        self.outbox.promise(cookie);
        Ok(())
    }

    /// Room in the outbox for a reply with `payload` bytes; the inner error is a lack of memory.
    fn reserve(&mut self, payload: usize) -> Result<io::Result<()>, ConnectionError> {
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
fn size(length: u32) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

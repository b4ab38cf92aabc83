//! One client, from its first byte to its last.
//!
//! Owns the order of things: greeting and negotiation under a time limit, then the transmission phase, whose threads are
//! [`Worker`]s, and the leave-taking. It must not know how connections come about, nor requests.

use super::crew::Crew;
use super::export::Export;
use super::handshake::{Negotiation, Verdict};
use super::negotiate::Handshake;
use super::proto::{Terms, Violation};
use super::transport::Transport;
use super::worker::{Desk, Shared, Worker};
use rustix::net::sockopt::Timeout;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use thiserror::Error;

/// A client that is silent for this long gives its buffers back to the host.
const IDLE_AFTER: Duration = Duration::from_secs(1);

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
    let set = |which, limit| transport.set_timeout(which, limit).map_err(ConnectionError::Socket);
    set(Timeout::Recv, Some(IDLE_AFTER))?;
    set(Timeout::Send, None)?;
    let crew = Crew::new(Box::new(Desk::new(inbox)));
    let shared = Shared { transport, export, terms, crew, sending: Mutex::default() };
    thread::scope(|scope| Worker::new(&shared, scope).run_to_the_end());
    shared.transport.close();
    shared.crew.outcome()
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

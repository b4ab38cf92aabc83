//! TLS on one connection.
//!
//! Owns a rustls session and the socket below it; the choice of versions, keys and authorities is made in
//! [`tls_settings`](super::tls_settings). It must not know NBD. Flow: [`TlsStream::accept`] does the TLS handshake
//! within a deadline, then [`TlsStream::receive`] decrypts into the caller's buffer and [`TlsStream::send`] encrypts
//! out of it; [`TlsStream::close`] says `close_notify` (RFC 8446 section 6.1). Between the socket and the
//! caller lie only the buffers of rustls, of at most a few records each. Receiving and sending work at the same
//! time, each for one thread at a time: a receive waits for the socket without holding the session.

use super::connection::ConnectionError;
use super::transport::{Patience, Received};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{SendFlags, recv, send};
use rustls::pki_types::CertificateDer;
use rustls::{ServerConfig, ServerConnection};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the last words may take to leave; a client that does not take them has left already.
const LEAVE: Duration = Duration::from_secs(1);

/// A socket with TLS on it, from the server's side.
#[derive(Debug)]
pub struct TlsStream<'a> {
    socket: &'a OwnedFd,
    session: Mutex<ServerConnection>,
    /// What has come and was not given to the session yet; only the receiving thread uses it.
    raw: Mutex<Raw>,
    /// End of the handshake of the protocol inside. Until then a client that sends records in crumbs is cut here,
    /// since no single receive takes long.
    deadline: Option<Instant>,
}

/// Most bytes that one receive from the socket takes: two records of the largest size.
const RAW: usize = 36 * 1024;

/// Bytes from the socket, on their way into the session.
#[derive(Debug)]
struct Raw {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl<'a> TlsStream<'a> {
    /// Does the TLS handshake on `socket`, at most until `deadline`, which goes on to bound every receive.
    ///
    /// # Errors
    /// [`ConnectionError::Tls`] with what the client did wrong, [`ConnectionError::TlsTimedOut`]. There is no way
    /// back to clear text: the connection must be closed.
    pub fn accept(
        socket: &'a OwnedFd,
        config: Arc<ServerConfig>,
        deadline: Instant,
    ) -> Result<Self, ConnectionError> {
        let session = ServerConnection::new(config).map_err(|e| ConnectionError::Tls(broken(e)))?;
        let raw = Raw { bytes: vec![0; RAW].into_boxed_slice(), start: 0, end: 0 };
        let (session, raw) = (Mutex::new(session), Mutex::new(raw));
        let stream = Self { socket, session, raw, deadline: Some(deadline) };
        while stream.session().is_handshaking() {
            match stream.read_records(Patience::Wait).map_err(ConnectionError::Tls)? {
                Records::Some => {}
                Records::Late => return Err(ConnectionError::TlsTimedOut),
                Records::End => {
                    let end = io::Error::new(io::ErrorKind::UnexpectedEof, "the client left");
                    return Err(ConnectionError::Tls(end));
                }
            }
        }
        Ok(stream)
    }

    /// The certificate that the client proved to have, which the configured authority has signed.
    pub fn client_certificate(&self) -> Option<CertificateDer<'static>> {
        Some(self.session().peer_certificates()?.first()?.clone())
    }

    /// The handshake of the protocol inside is over: waiting is bounded by the socket's time-out alone.
    pub fn lift_deadline(&mut self) {
        self.deadline = None;
    }

    /// Decrypts what has come into `room`, or waits for it. A client that closes without `close_notify` has closed:
    /// every NBD message carries its length, so nothing can be cut off unnoticed.
    ///
    /// # Errors
    /// What the socket says; a record that is none of the session's.
    pub fn receive(&self, room: &mut [u8], patience: Patience) -> io::Result<Received> {
        loop {
            match self.session().reader().read(room) {
                Ok(0) => return Ok(Received::Closed),
                Ok(got) => return Ok(Received::Bytes(got)),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(Received::Closed),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
            match self.read_records(patience)? {
                // The session knows of an end, and the reader will say so.
                Records::Some | Records::End => {}
                Records::Late => return Ok(Received::Nothing),
            }
        }
    }

    /// Encrypts and sends all of `bytes`.
    ///
    /// # Errors
    /// What the socket says.
    pub fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        let mut session = self.session();
        while !bytes.is_empty() {
            let taken = session.writer().write(bytes)?;
            bytes = bytes.get(taken..).unwrap_or_default();
            self.write_records(&mut session)?;
        }
        Ok(())
    }

    /// Tells the client that nothing more will come.
    pub fn close(&self) {
        let mut session = self.session();
        session.send_close_notify();
        // A client that is gone, or does not listen, is told by the end of the stream.
        let _ = set_socket_timeout(self.socket, Timeout::Send, Some(LEAVE));
        let _ = self.write_records(&mut session);
    }

    /// The socket below.
    pub fn socket(&self) -> &'a OwnedFd {
        self.socket
    }

    /// Receives unless something is left from the last time, and works on the records that are whole.
    fn read_records(&self, patience: Patience) -> io::Result<Records> {
        let mut raw = self.raw.lock().unwrap_or_else(PoisonError::into_inner);
        if raw.start == raw.end {
            match self.receive_raw(&mut raw.bytes, patience)? {
                Received::Bytes(got) => (raw.start, raw.end) = (0, got),
                Received::Nothing => return Ok(Records::Late),
                Received::Closed => (raw.start, raw.end) = (0, 0),
            }
        }
        let mut session = self.session();
        let mut left = raw.bytes.get(raw.start..raw.end).unwrap_or_default();
        let taken = session.read_tls(&mut left)?;
        raw.start += taken;
        let worked = session.process_new_packets();
        // Also on an error: the alert tells the client what it did wrong.
        let told = self.write_records(&mut session);
        worked.map_err(broken)?;
        told?;
        Ok(if taken == 0 { Records::End } else { Records::Some })
    }

    fn receive_raw(&self, room: &mut [u8], patience: Patience) -> io::Result<Received> {
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Received::Nothing);
            }
            set_socket_timeout(self.socket, Timeout::Recv, Some(left))?;
        }
        match retry_on_intr(|| recv(self.socket, &mut *room, patience.flags())) {
            Ok((_, 0)) | Err(Errno::CONNRESET) => Ok(Received::Closed),
            Ok((_, got)) => Ok(Received::Bytes(got)),
            Err(Errno::AGAIN) => Ok(Received::Nothing),
            Err(e) => Err(e.into()),
        }
    }

    fn write_records(&self, session: &mut ServerConnection) -> io::Result<()> {
        while session.wants_write() {
            session.write_tls(&mut Socket(self.socket))?;
        }
        Ok(())
    }

    /// A session is whole between its calls, so a panic elsewhere does not spoil it.
    fn session(&self) -> MutexGuard<'_, ServerConnection> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one receive from the socket brought.
enum Records {
    Some,
    Late,
    End,
}

fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The socket as rustls wants it, to write to.
struct Socket<'a>(&'a OwnedFd);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(retry_on_intr(|| send(self.0, bytes, SendFlags::NOSIGNAL))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

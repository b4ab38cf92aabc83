//! TLS on one connection.
//!
//! Owns a rustls session and the socket below it; the choice of versions, keys and authorities is made in
//! [`tls_settings`](super::tls_settings). It must not know NBD. Flow: [`TlsStream::accept`] does the TLS handshake
//! within a deadline, then [`TlsStream::receive`] decrypts into the caller's buffer and [`TlsStream::send`] encrypts
//! out of it; [`TlsStream::close`] says `close_notify` (RFC 8446 section 6.1). Between the socket and the
//! caller lie only the buffers of rustls, of at most a few records each.

use super::connection::ConnectionError;
use super::transport::Received;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustls::pki_types::CertificateDer;
use rustls::{ServerConfig, ServerConnection};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the last words may take to leave; a client that does not take them has left already.
const LEAVE: Duration = Duration::from_secs(1);

/// A socket with TLS on it, from the server's side.
#[derive(Debug)]
pub struct TlsStream<'a> {
    socket: &'a OwnedFd,
    session: ServerConnection,
    /// End of the handshake of the protocol inside. Until then a client that sends records in crumbs is cut here,
    /// since no single receive takes long.
    deadline: Option<Instant>,
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
        let mut stream = Self { socket, session, deadline: Some(deadline) };
        while stream.session.is_handshaking() {
            match stream.read_records().map_err(ConnectionError::Tls)? {
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
    pub fn client_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.session.peer_certificates()?.first()
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
    pub fn receive(&mut self, room: &mut [u8]) -> io::Result<Received> {
        loop {
            match self.session.reader().read(room) {
                Ok(0) => return Ok(Received::Closed),
                Ok(got) => return Ok(Received::Bytes(got)),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(Received::Closed),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
            match self.read_records()? {
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
    pub fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let taken = self.session.writer().write(bytes)?;
            bytes = bytes.get(taken..).unwrap_or_default();
            self.write_records()?;
        }
        Ok(())
    }

    /// Tells the client that nothing more will come.
    pub fn close(&mut self) {
        self.session.send_close_notify();
        // A client that is gone, or does not listen, is told by the end of the stream.
        let _ = set_socket_timeout(self.socket, Timeout::Send, Some(LEAVE));
        let _ = self.write_records();
    }

    /// The socket below.
    pub fn socket(&self) -> &'a OwnedFd {
        self.socket
    }

    /// Receives once, and works on the records that are whole.
    fn read_records(&mut self) -> io::Result<Records> {
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Records::Late);
            }
            set_socket_timeout(self.socket, Timeout::Recv, Some(left))?;
        }
        let got = match self.session.read_tls(&mut Socket(self.socket)) {
            Ok(got) => got,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Records::Late),
            Err(e) => return Err(e),
        };
        let worked = self.session.process_new_packets();
        // Also on an error: the alert tells the client what it did wrong.
        let told = self.write_records();
        worked.map_err(broken)?;
        told?;
        Ok(if got == 0 { Records::End } else { Records::Some })
    }

    fn write_records(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut Socket(self.socket))?;
        }
        Ok(())
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

/// The socket as rustls wants it.
struct Socket<'a>(&'a OwnedFd);

impl Read for Socket<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let socket = self.0;
        match retry_on_intr(|| recv(socket, &mut *room, RecvFlags::empty())) {
            Ok((_, got)) => Ok(got),
            Err(Errno::CONNRESET) => Ok(0),
            Err(e) => Err(e.into()),
        }
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(retry_on_intr(|| send(self.0, bytes, SendFlags::NOSIGNAL))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

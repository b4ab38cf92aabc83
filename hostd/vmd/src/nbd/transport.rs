//! How bytes of a connection get to and from its client.
//!
//! Owns the choice between a plain socket and whatever is put on top of one, and the waiting. It must not know
//! what the bytes mean. Both directions work at the same time, each for one thread at a time. Flow: [`Inbox`](super::inbox::Inbox) receives and
//! [`Outbox`](super::outbox::Outbox) sends through a [`Transport`]; a plain one adds no system call and no
//! copy to what they would do themselves. `connection` bounds the waiting by [`Transport::set_timeout`], sleeps
//! in [`Transport::wait`] while nothing comes, and takes leave by [`Transport::close`].

use super::tls::TlsStream;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How long a receive may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// As long as the receive time-out of the socket says.
    Wait,
    /// Not at all.
    Look,
}

impl Patience {
    /// As a flag of recv(2).
    pub(super) fn flags(self) -> RecvFlags {
        match self {
            Self::Wait => RecvFlags::empty(),
            Self::Look => RecvFlags::DONTWAIT,
        }
    }
}

/// What one receive brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// So many bytes, at least one.
    Bytes(usize),
    /// The client has closed its side.
    Closed,
    /// Nothing within the receive time-out.
    Nothing,
}

/// The two directions of one connection.
#[derive(Debug)]
pub enum Transport<'a> {
    /// A connected stream socket, and nothing in between.
    Plain(&'a OwnedFd),
    /// The same under TLS.
    Tls(Box<TlsStream<'a>>),
}

impl Transport<'_> {
    /// Receives what has come, at most as much as fits into `room`, which must not be empty; waits for the
    /// first byte as long as `patience` allows.
    ///
    /// # Errors
    /// What the socket says; a reset counts as closed.
    pub fn receive(&self, room: &mut [u8], patience: Patience) -> io::Result<Received> {
        match self {
            Self::Plain(socket) => {
                match retry_on_intr(|| recv(*socket, &mut *room, patience.flags())) {
                    Ok((_, 0)) | Err(Errno::CONNRESET) => Ok(Received::Closed),
                    Ok((_, got)) => Ok(Received::Bytes(got)),
                    Err(Errno::AGAIN) => Ok(Received::Nothing),
                    Err(e) => Err(e.into()),
                }
            }
            Self::Tls(stream) => stream.receive(room, patience),
        }
    }

    /// Whether more has come than was received.
    pub fn has_more(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        recv(self.socket(), &mut [0u8; 1], flags).is_ok_and(|(_, got)| got > 0)
    }

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// What the socket says; the connection is of no use then.
    pub fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(socket) => {
                while !bytes.is_empty() {
                    let sent = retry_on_intr(|| send(*socket, bytes, SendFlags::NOSIGNAL))?;
                    bytes = bytes.get(sent..).unwrap_or_default();
                }
                Ok(())
            }
            Self::Tls(stream) => stream.send(bytes),
        }
    }

    /// Sleeps until there may be something to receive.
    ///
    /// # Errors
    /// What `poll` says.
    pub fn wait(&self) -> io::Result<()> {
        let mut fds = [PollFd::new(self.socket(), PollFlags::IN)];
        retry_on_intr(|| poll(&mut fds, None))?;
        Ok(())
    }

    /// Bounds how long a receive or a send may wait; `None` is for ever.
    ///
    /// # Errors
    /// What the socket says.
    pub fn set_timeout(&self, which: Timeout, limit: Option<Duration>) -> io::Result<()> {
        Ok(set_socket_timeout(self.socket(), which, limit)?)
    }

    /// Takes leave in an orderly way, as far as the transport has one. The socket is closed by its owner.
    pub fn close(&self) {
        match self {
            // The end of the stream says it all.
            Self::Plain(_) => {}
            Self::Tls(stream) => stream.close(),
        }
    }

    /// Ends both directions at once, so that a thread that waits in one of them finds out.
    pub fn cut(&self) {
        // A peer that is gone already is what we are after.
        let _ = shutdown(self.socket(), Shutdown::Both);
    }

    fn socket(&self) -> &OwnedFd {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.socket(),
        }
    }
}

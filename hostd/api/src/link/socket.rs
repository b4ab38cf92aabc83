//! One end of the link: whole JSON messages with their descriptors over `SOCK_SEQPACKET`.
//!
//! Owns framing and limits, knows nothing of what is asked. A message that is too long, carries more
//! descriptors than [`MAX_FDS`] or is not the expected JSON is an error of the peer; descriptors that came
//! with it are closed.

use super::{MAX_FDS, MAX_MESSAGE, Request, Response};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_passcred, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    UCred,
};
use serde::{Serialize, de::DeserializeOwned};
use std::cell::Cell;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// How long an answer may take before the peer counts as hung. A detach flushes a whole disk, so it is long.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// How long a connection may take to be queued. A listener that hangs has a full queue, and connect(2) waits for
/// room in it for as long as SO_SNDTIMEO says.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// Connections that may wait for `accept`; hostd is the only caller and opens one.
const BACKLOG: i32 = 4;

/// Why a message did not get across.
#[derive(Debug, Error)]
pub enum LinkError {
    /// Nobody listens there, or it may not be reached.
    #[error("cannot connect to {}: {source}", path.display())]
    Connect {
        /// Path of the socket.
        path: PathBuf,
        /// What the kernel said.
        source: Errno,
    },
    /// The socket could not be made.
    #[error("cannot listen on {}: {source}", path.display())]
    Listen {
        /// Path of the socket.
        path: PathBuf,
        /// What the kernel said.
        source: Errno,
    },
    /// The peer did not answer in time.
    #[error("no answer from the peer in time")]
    TimedOut,
    /// The peer went away before it answered.
    #[error("the peer closed the link")]
    Closed,
    /// The peer sent something that is no message of the link.
    #[error("the peer broke the link protocol: {0}")]
    Peer(String),
    /// Sending or receiving failed.
    #[error("link I/O: {0}")]
    Io(#[from] Errno),
}

/// Who is at the other end, as the kernel says (`SO_PEERCRED`, `SCM_CREDENTIALS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCred {
    /// Process id.
    pub pid: i32,
    /// User id.
    pub uid: u32,
}

/// One end of a link.
#[derive(Debug)]
pub struct Link {
    fd: OwnedFd,
    sender: Cell<Option<PeerCred>>,
}

impl Link {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// [`LinkError::Connect`] with the kernel's reason; `ECONNREFUSED` means that the socket is stale.
    /// [`LinkError::TimedOut`] when the listener takes no connections.
    pub fn connect(path: &Path) -> Result<Self, LinkError> {
        let failed = |source| LinkError::Connect { path: path.to_owned(), source };
        let fd = seqpacket().map_err(failed)?;
        let addr = SocketAddrUnix::new(path).map_err(failed)?;
        set_socket_timeout(&fd, Timeout::Send, Some(CONNECT_LIMIT)).map_err(failed)?;
        match rustix::net::connect(&fd, &addr) {
            Err(Errno::AGAIN) => return Err(LinkError::TimedOut),
            done => done.map_err(failed)?,
        }
        // SO_PEERCRED would name whoever called listen(2), which is hostd.
        set_socket_passcred(&fd, true).map_err(failed)?;
        Self::from_fd(fd)
    }

    /// Takes a connected `SOCK_SEQPACKET` socket.
    ///
    /// # Errors
    /// [`LinkError::Io`] when the time limit cannot be set.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, LinkError> {
        let link = Self { fd, sender: Cell::new(None) };
        link.set_timeout(Some(ANSWER_LIMIT))?;
        Ok(link)
    }

    /// Sets how long sending and receiving may take; `None` waits for ever.
    ///
    /// # Errors
    /// [`LinkError::Io`].
    pub fn set_timeout(&self, limit: Option<Duration>) -> Result<(), LinkError> {
        set_socket_timeout(&self.fd, Timeout::Recv, limit)?;
        set_socket_timeout(&self.fd, Timeout::Send, limit)?;
        Ok(())
    }

    /// Sends one message with its descriptors (at most [`MAX_FDS`]).
    ///
    /// # Errors
    /// [`LinkError::Peer`] when the message is too long, [`LinkError::Closed`] or [`LinkError::Io`].
    pub fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        let text = serde_json::to_vec(message).map_err(|e| LinkError::Peer(e.to_string()))?;
        if text.len() > MAX_MESSAGE || fds.len() > MAX_FDS {
            return Err(LinkError::Peer(format!(
                "a message of {} bytes with {} descriptors is over the limit",
                text.len(),
                fds.len()
            )));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(LinkError::Peer("no room for the descriptors".into()));
        }
        let iov = [IoSlice::new(&text)];
        retry(|| rustix::net::sendmsg(&self.fd, &iov, &mut control, SendFlags::NOSIGNAL))?;
        Ok(())
    }

    /// Receives one message with its descriptors; `None` when the peer has closed.
    ///
    /// # Errors
    /// [`LinkError::TimedOut`], [`LinkError::Peer`] when it is no message of type `T`, [`LinkError::Io`].
    pub fn recv<T: DeserializeOwned>(&self) -> Result<Option<(T, Vec<OwnedFd>)>, LinkError> {
        let mut text = vec![0u8; MAX_MESSAGE];
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS), ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = retry(|| {
            let mut iov = [IoSliceMut::new(&mut text)];
            rustix::net::recvmsg(&self.fd, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC)
        });
        let got = match got {
            Err(LinkError::Closed) => return Ok(None),
            other => other?,
        };
        let mut fds = Vec::new();
        for message in control.drain() {
            match message {
                RecvAncillaryMessage::ScmRights(rights) => fds.extend(rights),
                RecvAncillaryMessage::ScmCredentials(cred) => self.sender.set(Some(peer(cred))),
                _ => {}
            }
        }
        if got.bytes == 0 {
            return Ok(None);
        }
        if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(LinkError::Peer("a message over the limit".into()));
        }
        let message = text.get(..got.bytes).unwrap_or(&text);
        let message =
            serde_json::from_slice(message).map_err(|e| LinkError::Peer(e.to_string()))?;
        Ok(Some((message, fds)))
    }

    /// Who sent the last message that was received; known on a link of [`Link::connect`].
    #[must_use]
    pub fn sender(&self) -> Option<PeerCred> {
        self.sender.get()
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// Those of [`Link::send`] and [`Link::recv`]; [`LinkError::Closed`] when the peer ended first.
    pub fn call(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Response, Vec<OwnedFd>), LinkError> {
        self.send(request, fds)?;
        self.recv()?.ok_or(LinkError::Closed)
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Makes a listening socket at `path`, which must not exist yet.
///
/// # Errors
/// [`LinkError::Listen`] with the kernel's reason.
pub fn listen(path: &Path) -> Result<OwnedFd, LinkError> {
    let failed = |source| LinkError::Listen { path: path.to_owned(), source };
    let fd = seqpacket().map_err(failed)?;
    let addr = SocketAddrUnix::new(path).map_err(failed)?;
    rustix::net::bind(&fd, &addr).map_err(failed)?;
    rustix::net::listen(&fd, BACKLOG).map_err(failed)?;
    Ok(fd)
}

/// Waits for a connection on a socket of [`listen`].
///
/// # Errors
/// [`LinkError::Io`].
pub fn accept(listener: &OwnedFd) -> Result<(Link, PeerCred), LinkError> {
    let fd = retry(|| rustix::net::accept_with(listener, SocketFlags::CLOEXEC))?;
    let peer = peer(socket_peercred(&fd)?);
    Ok((Link::from_fd(fd)?, peer))
}

fn peer(cred: UCred) -> PeerCred {
    PeerCred { pid: cred.pid.as_raw_nonzero().get(), uid: cred.uid.as_raw() }
}

fn seqpacket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Repeats a call that a signal interrupted, and names the two errors that callers decide by.
fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, LinkError> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Err(LinkError::TimedOut),
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(LinkError::Closed),
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;

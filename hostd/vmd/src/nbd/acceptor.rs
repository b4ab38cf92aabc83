//! The thread that waits for clients of one listening socket.
//!
//! Owns the socket and how failures of `accept` are weathered. It must not know what becomes of a client. Flow:
//! [`Acceptor::start`], one call of [`Host::admit`] a client, [`Acceptor::stop`].

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with, sockopt};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Stack of a thread. The data path recurses nowhere and keeps its buffers elsewhere; logging an error is the
/// deepest it goes. Only touched pages cost memory.
pub(super) const STACK: usize = 256 * 1024;

/// Pause after `accept` fails for want of descriptors or memory, so that the thread does not spin.
const PAUSE: Duration = Duration::from_millis(100);

/// Who takes the clients.
pub(super) trait Host: Send + Sync + 'static {
    /// Takes one client, without waiting.
    fn admit(self: &Arc<Self>, socket: OwnedFd);
    /// Writes down what an operator should know, within limits.
    fn note(&self, what: &str);
}

/// A listening socket with its thread.
#[derive(Debug)]
pub(super) struct Acceptor {
    listener: Arc<OwnedFd>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    /// Waits for clients on `listener`, a listening stream socket, in a thread called `name`.
    ///
    /// # Errors
    /// When the socket is no listening socket, or a thread cannot be made.
    pub(super) fn start(name: String, listener: OwnedFd, host: Arc<impl Host>) -> io::Result<Self> {
        if !sockopt::socket_acceptconn(&listener)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket does not listen"));
        }
        // poll() says when to accept; a client that is gone by then must not block the thread.
        let flags = rustix::fs::fcntl_getfl(&listener)?;
        rustix::fs::fcntl_setfl(&listener, flags | OFlags::NONBLOCK)?;
        let listener = Arc::new(listener);
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (theirs, woken) = (Arc::clone(&listener), Arc::clone(&wake));
        let thread = Builder::new().name(name).stack_size(STACK);
        let thread = thread.spawn(move || run(&theirs, &woken, &host))?;
        Ok(Self { listener, wake, thread: Some(thread) })
    }

    /// The listening socket.
    pub(super) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Accepts nobody any more; what the host did not admit yet is left to whoever listens next. May be called
    /// again. False when the thread had panicked.
    pub(super) fn stop(&mut self) -> bool {
        let Some(thread) = self.thread.take() else { return true };
        // Writing to an eventfd fails only when it is already readable, which is what is wanted.
        let _ = rustix::io::write(&*self.wake, &1u64.to_be_bytes());
        thread.join().is_ok()
    }
}

fn run(listener: &OwnedFd, wake: &OwnedFd, host: &Arc<impl Host>) {
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(wake, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return give_up(host, e),
        }
        let [came, woken] = fds.map(|fd| fd.revents());
        if !woken.is_empty() {
            return;
        }
        if came.is_empty() {
            continue;
        }
        match accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(socket) => host.admit(socket),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
            Err(e @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                host.note(&format!("cannot accept a client: {e}"));
                std::thread::sleep(PAUSE);
            }
            Err(e) => return give_up(host, e),
        }
    }
}

fn give_up(host: &Arc<impl Host>, e: Errno) {
    host.note(&format!(
        "the listening socket failed, no new clients until it is opened again: {e}"
    ));
}

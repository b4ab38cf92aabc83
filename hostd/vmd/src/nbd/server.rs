//! The listening socket of one export: accepts, counts, and drains.
//!
//! Owns the acceptor thread and the list of connections. It must not know the protocol. Flow: [`Server::start`]
//! waits for clients in a thread of its own and gives each a thread; [`Server::stop`] stops accepting, closes
//! the receiving side of every connection so that what has been sent is still answered, waits, and hands the
//! export back.

use super::connection::{self, ConnectionError, Limits};
use super::export::Export;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags, accept_with, shutdown, sockopt};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// Stack of a thread. The data path recurses nowhere and keeps its buffers elsewhere; logging an error is the
/// deepest it goes. Only touched pages cost memory.
const STACK: usize = 256 * 1024;

/// Send and receive buffers asked for, in bytes: a few of the largest common requests. The kernel caps it at
/// `net.core.wmem_max` and `rmem_max`; with the default of 208 KiB a reply of 1 MiB sleeps five times.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// How long a cut connection may take to notice.
const AFTER_CUT: Duration = Duration::from_secs(2);

/// The same where there was no grace: many disks are being stopped, and time is up.
const AFTER_CUT_IN_HASTE: Duration = Duration::from_millis(50);

/// Pause after `accept` fails for want of descriptors or memory, so that the thread does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An export that is being served.
pub struct Server {
    export: Arc<Export>,
    connections: Arc<Connections>,
    listener: Arc<OwnedFd>,
    wake: Arc<OwnedFd>,
    acceptor: Option<JoinHandle<()>>,
}

/// The connections of one export.
#[derive(Default)]
struct Connections {
    open: Mutex<Open>,
    changed: Condvar,
}

#[derive(Default)]
struct Open {
    next: u64,
    sockets: HashMap<u64, Arc<OwnedFd>>,
}

/// One entry in [`Connections`]; gives the export up before it leaves the list, so that an empty list means
/// that nobody else holds the export.
struct Seat {
    id: u64,
    export: Option<Arc<Export>>,
    connections: Arc<Connections>,
}

impl Server {
    /// Serves `export` on `listener`, a listening stream socket.
    ///
    /// # Errors
    /// When the socket is no listening socket, or a thread cannot be made.
    pub fn start(export: Export, listener: OwnedFd, limits: Limits) -> io::Result<Self> {
        if !sockopt::socket_acceptconn(&listener)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket does not listen"));
        }
        // poll() says when to accept; a client that is gone by then must not block the thread.
        let flags = rustix::fs::fcntl_getfl(&listener)?;
        rustix::fs::fcntl_setfl(&listener, flags | OFlags::NONBLOCK)?;
        let export = Arc::new(export);
        let connections = Arc::new(Connections::default());
        let listener = Arc::new(listener);
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let acceptor = Acceptor {
            export: Arc::clone(&export),
            connections: Arc::clone(&connections),
            listener: Arc::clone(&listener),
            wake: Arc::clone(&wake),
            limits,
        };
        let acceptor = Builder::new()
            .name(format!("nbd:{}", export.name()))
            .stack_size(STACK)
            .spawn(move || acceptor.run())?;
        Ok(Self { export, connections, listener, wake, acceptor: Some(acceptor) })
    }

    /// The export.
    pub fn export(&self) -> &Export {
        &self.export
    }

    /// The listening socket.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Stops: accepts nobody any more, lets requests that have come be answered, then closes. After `grace`
    /// connections are cut; requests in the storage still finish.
    ///
    /// # Errors
    /// The server itself, when a request is stuck in the storage; `stop` may be called again.
    pub fn stop(mut self, grace: Duration) -> Result<Export, Self> {
        self.export.begin_stopping();
        if let Some(acceptor) = self.acceptor.take() {
            // Writing 1 to an eventfd fails only when it is already readable, which is what is wanted.
            let _ = rustix::io::write(&*self.wake, &1u64.to_be_bytes());
            if acceptor.join().is_err() {
                tracing::error!(target: "vmd::nbd", disk = self.export.name(), "the acceptor panicked");
            }
        }
        self.connections.shut(Shutdown::Read);
        if !self.connections.wait_until_empty(grace) {
            self.connections.shut(Shutdown::Both);
            let limit = if grace.is_zero() { AFTER_CUT_IN_HASTE } else { AFTER_CUT };
            if !self.connections.wait_until_empty(limit) {
                return Err(self);
            }
        }
        let Self { export, connections, listener, wake, acceptor } = self;
        match Arc::try_unwrap(export) {
            Ok(export) => Ok(export),
            Err(export) => Err(Self { export, connections, listener, wake, acceptor }),
        }
    }
}

/// What the acceptor thread needs.
struct Acceptor {
    export: Arc<Export>,
    connections: Arc<Connections>,
    listener: Arc<OwnedFd>,
    wake: Arc<OwnedFd>,
    limits: Limits,
}

impl Acceptor {
    fn run(self) {
        loop {
            let mut fds = [
                PollFd::new(&*self.listener, PollFlags::IN),
                PollFd::new(&*self.wake, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return self.give_up(e),
            }
            let [listener, wake] = fds.map(|fd| fd.revents());
            if !wake.is_empty() {
                return;
            }
            if listener.is_empty() {
                continue;
            }
            match accept_with(&*self.listener, SocketFlags::CLOEXEC) {
                Ok(socket) => self.admit(socket),
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
                Err(e @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                    self.export.faults.note(&format!("cannot accept a client: {e}"));
                    std::thread::sleep(ACCEPT_PAUSE);
                }
                Err(e) => return self.give_up(e),
            }
        }
    }

    /// Gives a client its thread, or turns it away.
    fn admit(&self, socket: OwnedFd) {
        let socket = Arc::new(socket);
        let Some(seat) = Connections::enter(&self.connections, &self.export, &socket, self.limits)
        else {
            // Closing at once tells the client more than a place in a queue that may never move.
            let limit = self.limits.max_connections;
            self.export.faults.note(&format!("turned a client away: {limit} are connected"));
            return;
        };
        let _ = sockopt::set_socket_send_buffer_size(&*socket, SOCKET_BUFFER);
        let _ = sockopt::set_socket_recv_buffer_size(&*socket, SOCKET_BUFFER);
        let limits = self.limits;
        let spawned = Builder::new()
            .name(format!("nbd:{}#{}", self.export.name(), seat.id))
            .stack_size(STACK)
            .spawn(move || seat.serve(&socket, limits));
        if let Err(e) = spawned {
            self.export.faults.note(&format!("cannot make a thread for a client: {e}"));
        }
    }

    fn give_up(&self, e: Errno) {
        tracing::error!(
            target: "vmd::nbd", disk = self.export.name(), error = %e,
            "the listening socket failed; no new clients until the disk is attached again"
        );
    }
}

impl Connections {
    fn enter(
        this: &Arc<Self>,
        export: &Arc<Export>,
        socket: &Arc<OwnedFd>,
        limits: Limits,
    ) -> Option<Seat> {
        let mut open = this.lock();
        if u32::try_from(open.sockets.len()).is_ok_and(|now| now >= limits.max_connections) {
            return None;
        }
        let id = open.next;
        open.next += 1;
        open.sockets.insert(id, Arc::clone(socket));
        export.counters.clients.fetch_add(1, Ordering::Relaxed);
        Some(Seat { id, export: Some(Arc::clone(export)), connections: Arc::clone(this) })
    }

    fn shut(&self, how: Shutdown) {
        for socket in self.lock().sockets.values() {
            // A peer that is already gone is what we are after.
            let _ = shutdown(&**socket, how);
        }
    }

    fn wait_until_empty(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut open = self.lock();
        while !open.sockets.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            open = self.changed.wait_timeout(open, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// The list is valid after every statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    fn serve(self, socket: &OwnedFd, limits: Limits) {
        let Some(export) = &self.export else { return };
        match connection::serve(socket, export, limits) {
            // Clients that only ask for the size often do not wait for the rest.
            Ok(()) | Err(ConnectionError::Gone) => {
                tracing::debug!(target: "vmd::nbd", disk = export.name(), "a client left");
            }
            Err(e) => export.faults.note(&format!("a client's connection ended: {e}")),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(export) = self.export.take() {
            export.counters.clients.fetch_sub(1, Ordering::Relaxed);
        }
        self.connections.lock().sockets.remove(&self.id);
        self.connections.changed.notify_all();
    }
}

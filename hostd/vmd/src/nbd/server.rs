//! One export and its clients: lets them in, counts, and drains.
//!
//! Owns the list of connections of an export. It must not know the protocol. Flow: [`Server::start`]
//! waits for clients of the export's own socket and gives each a thread; those of the VM's TLS port come through
//! [`Guests::enter`]. [`Server::stop`] stops accepting, closes the receiving side of every connection so that what
//! has been sent is still answered, waits, and hands the export back.

use super::acceptor::{Acceptor, Host, STACK};
use super::connection::{self, ConnectionError, Limits};
use super::export::Export;
use rustix::net::{Shutdown, shutdown, sockopt};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

/// Send and receive buffers asked for, in bytes: a few of the largest common requests. The kernel caps it at
/// `net.core.wmem_max` and `rmem_max`; with the default of 208 KiB a reply of 1 MiB sleeps five times.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// How long clients have, after the grace, to be told that the rest of their requests will not be carried out.
const FOR_REFUSALS: Duration = Duration::from_millis(500);

/// How long a cut connection may take to notice.
const AFTER_CUT: Duration = Duration::from_secs(2);

/// The same where there was no grace: many disks are being stopped, and time is up.
const AFTER_CUT_IN_HASTE: Duration = Duration::from_millis(50);

/// An export that is being served.
pub struct Server {
    guests: Arc<Guests>,
    acceptor: Acceptor,
}

/// An export and those who use it, by whatever door they came.
pub(super) struct Guests {
    export: Arc<Export>,
    connections: Arc<Connections>,
    limits: Limits,
}

/// Connections that end together.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Mutex<Open>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    sockets: HashMap<u64, Arc<OwnedFd>>,
    /// Those whose client has not proved yet who it is, the oldest first.
    unproven: BTreeSet<u64>,
    /// Those that had to make room, until they have ended.
    cut: BTreeSet<u64>,
}

impl Open {
    /// How many count.
    fn len(&self) -> usize {
        self.sockets.len().saturating_sub(self.cut.len())
    }

    /// Takes one in, and gives its number.
    fn insert(&mut self, socket: &Arc<OwnedFd>) -> u64 {
        let id = self.next;
        self.next += 1;
        self.sockets.insert(id, Arc::clone(socket));
        id
    }

    /// Cuts the oldest one whose client has not proved who it is; false when there is none.
    fn make_room(&mut self) -> bool {
        let Some(oldest) = self.unproven.pop_first() else { return false };
        if let Some(socket) = self.sockets.get(&oldest) {
            // A peer that is already gone is what we are after.
            let _ = shutdown(&**socket, Shutdown::Both);
            self.cut.insert(oldest);
        }
        true
    }
}

/// One entry in [`Connections`]; gives the export up before it leaves the list, so that an empty list means
/// that nobody else holds the export.
pub(super) struct Seat {
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
        let name = format!("nbd:{}", export.name());
        let (export, connections) = (Arc::new(export), Arc::default());
        let guests = Arc::new(Guests { export, connections, limits });
        let acceptor = Acceptor::start(name, listener, Arc::clone(&guests))?;
        Ok(Self { guests, acceptor })
    }

    /// The export.
    pub fn export(&self) -> &Export {
        &self.guests.export
    }

    /// The listening socket.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.acceptor.listener()
    }

    /// For another door to the same export. Whoever has it must give it up before [`Server::stop`].
    pub(super) fn guests(&self) -> Arc<Guests> {
        Arc::clone(&self.guests)
    }

    /// Stops: accepts nobody any more, lets requests that have come be answered, then closes. After `grace`
    /// connections are cut; requests in the storage still finish.
    ///
    /// # Errors
    /// The server itself, when a request is stuck in the storage; `stop` may be called again.
    pub fn stop(mut self, grace: Duration) -> Result<Export, Self> {
        self.guests.export.begin_stopping();
        if !self.acceptor.stop() {
            tracing::error!(target: "vmd::nbd", disk = self.export().name(), "the acceptor panicked");
        }
        if !self.guests.connections.end(grace, || self.guests.export.begin_refusing()) {
            return Err(self);
        }
        let Self { guests, acceptor } = self;
        let Guests { export, connections, limits } = match Arc::try_unwrap(guests) {
            Ok(guests) => guests,
            Err(guests) => return Err(Self { guests, acceptor }),
        };
        Arc::try_unwrap(export).map_err(|export| Self {
            guests: Arc::new(Guests { export, connections, limits }),
            acceptor,
        })
    }
}

impl Guests {
    /// The export.
    pub(super) fn export(&self) -> &Export {
        &self.export
    }

    /// Takes a client in; nothing when there are too many.
    pub(super) fn enter(&self, socket: &Arc<OwnedFd>) -> Option<Seat> {
        Connections::enter(&self.connections, Some(&self.export), socket, self.limits)
    }
}

impl Host for Guests {
    /// Gives a client its thread, or turns it away.
    fn admit(self: &Arc<Self>, socket: OwnedFd) {
        let socket = Arc::new(socket);
        let Some(seat) = self.enter(&socket) else {
            // Closing at once tells the client more than a place in a queue that may never move.
            let limit = self.limits.max_connections;
            self.export.faults.note(&format!("turned a client away: {limit} are connected"));
            return;
        };
        enlarge(&socket);
        let limits = self.limits;
        let spawned = Builder::new()
            .name(format!("nbd:{}#{}", self.export.name(), seat.id))
            .stack_size(STACK)
            .spawn(move || seat.serve(&socket, limits));
        if let Err(e) = spawned {
            self.export.faults.note(&format!("cannot make a thread for a client: {e}"));
        }
    }

    fn note(&self, what: &str) {
        self.export.faults.note(what);
    }
}

/// Asks for large buffers; less is only slower.
pub(super) fn enlarge(socket: &OwnedFd) {
    let _ = sockopt::set_socket_send_buffer_size(socket, SOCKET_BUFFER);
    let _ = sockopt::set_socket_recv_buffer_size(socket, SOCKET_BUFFER);
}

impl Connections {
    /// A new entry, for a client of `export` if it has chosen one; nothing when there are too many.
    pub(super) fn enter(
        this: &Arc<Self>,
        export: Option<&Arc<Export>>,
        socket: &Arc<OwnedFd>,
        limits: Limits,
    ) -> Option<Seat> {
        let mut open = this.lock();
        if is_full(&open, limits) {
            return None;
        }
        let id = open.insert(socket);
        if let Some(export) = export {
            export.counters.clients.fetch_add(1, Ordering::Relaxed);
        }
        Some(Seat { id, export: export.map(Arc::clone), connections: Arc::clone(this) })
    }

    /// A new entry for a client that is still to prove who it is ([`Seat::prove`]). When there are too many, the oldest
    /// such client has to go, so that clients that never do cannot keep others out; nothing when there is none.
    pub(super) fn enter_unproven(
        this: &Arc<Self>,
        socket: &Arc<OwnedFd>,
        limits: Limits,
    ) -> Option<Seat> {
        let mut open = this.lock();
        if is_full(&open, limits) && !open.make_room() {
            return None;
        }
        let id = open.insert(socket);
        open.unproven.insert(id);
        Some(Seat { id, export: None, connections: Arc::clone(this) })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Ends all: no more is received from them, after `grace` `refuse` is to see to it that what waits is refused,
    /// and then they are cut. False when one does not end.
    pub(super) fn end(&self, grace: Duration, refuse: impl FnOnce()) -> bool {
        self.shut(Shutdown::Read);
        if self.wait_until_empty(grace) {
            return true;
        }
        refuse();
        if !grace.is_zero() && self.wait_until_empty(FOR_REFUSALS) {
            return true;
        }
        self.shut(Shutdown::Both);
        self.wait_until_empty(if grace.is_zero() { AFTER_CUT_IN_HASTE } else { AFTER_CUT })
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

fn is_full(open: &Open, limits: Limits) -> bool {
    u32::try_from(open.len()).is_ok_and(|now| now >= limits.max_connections)
}

impl Seat {
    /// Its client has proved who it is.
    pub(super) fn prove(&self) {
        self.connections.lock().unproven.remove(&self.id);
    }

    /// Number of the entry.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// What the client has chosen.
    pub(super) fn export(&self) -> Option<&Export> {
        self.export.as_deref()
    }

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
        {
            let mut open = self.connections.lock();
            open.sockets.remove(&self.id);
            open.unproven.remove(&self.id);
            open.cut.remove(&self.id);
        }
        self.connections.changed.notify_all();
    }
}

//! The network port of a VM: all its disks, for clients with a certificate.
//!
//! Owns the listening TCP socket, the settings of TLS on it, and which disks are behind it. It must not know volumes.
//! Flow: a client gets a thread; what it says in clear leads to STARTTLS or nowhere; under TLS its names decide
//! which disks it sees; the one it chooses takes it in as a client like those of the disk's own socket.

use super::acceptor::{Acceptor, Host, STACK};
use super::connection::{ConnectionError, Limits, transmit};
use super::fault::FaultLog;
use super::handshake::{Negotiation, Offer, Verdict};
use super::inbox::Inbox;
use super::negotiate::Handshake;
use super::proto::{Terms, Violation};
use super::server::{Connections, Guests, Seat, Server, enlarge};
use super::tls::TlsStream;
use super::tls_access::{Access, names_of};
use super::transport::Transport;
use rustix::net::sockopt;
use rustls::ServerConfig;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::Builder;
use std::time::Duration;

/// The disks behind the port, by name. A disk is taken out before it is stopped.
#[derive(Clone, Default)]
pub struct Directory {
    disks: Arc<RwLock<BTreeMap<String, Arc<Guests>>>>,
}

impl Directory {
    /// Puts a disk behind the port.
    pub fn insert(&self, server: &Server) {
        let name = server.export().name().to_owned();
        let mut disks = self.disks.write().unwrap_or_else(PoisonError::into_inner);
        disks.insert(name, server.guests());
    }

    /// Takes a disk away; its clients stay until it is stopped.
    pub fn remove(&self, name: &str) {
        self.disks.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

/// What a client meets; may change while the port is open.
#[derive(Clone)]
pub struct Settings {
    /// Versions, keys, authorities.
    pub tls: Arc<ServerConfig>,
    /// Who may open what.
    pub access: Access,
}

/// An open port.
pub struct Port {
    shared: Arc<Shared>,
    acceptor: Acceptor,
}

struct Shared {
    directory: Directory,
    settings: RwLock<Settings>,
    connections: Arc<Connections>,
    faults: FaultLog,
    limits: Limits,
}

impl Port {
    /// Serves the disks of `directory` on `listener`, a listening TCP socket.
    ///
    /// # Errors
    /// When the socket is no listening socket, or a thread cannot be made.
    pub fn start(
        vm: &str,
        listener: OwnedFd,
        settings: Settings,
        directory: Directory,
        limits: Limits,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            directory,
            settings: RwLock::new(settings),
            connections: Arc::default(),
            faults: FaultLog::new(vm, "(TLS port)"),
            limits,
        });
        let acceptor = Acceptor::start("nbds".to_owned(), listener, Arc::clone(&shared))?;
        Ok(Self { shared, acceptor })
    }

    /// The listening socket.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.acceptor.listener()
    }

    /// Connections now, in whatever phase.
    pub fn clients(&self) -> usize {
        self.shared.connections.len()
    }

    /// Other settings for clients that come from now on.
    pub fn replace(&self, settings: Settings) {
        *self.shared.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// Closes the port: its clients' requests that have come are answered within `grace`, then they are cut. One
    /// whose request is stuck in the storage ends when that does.
    pub fn stop(mut self, grace: Duration) {
        if !self.acceptor.stop() {
            tracing::error!(target: "vmd::nbd", "the acceptor of the TLS port panicked");
        }
        if !self.shared.connections.end(grace, || {}) {
            self.shared.faults.note("clients of the closed TLS port wait for the storage");
        }
    }
}

impl Host for Shared {
    fn admit(self: &Arc<Self>, socket: OwnedFd) {
        let socket = Arc::new(socket);
        let Some(seat) = Connections::enter_unproven(&self.connections, &socket, self.limits)
        else {
            let limit = self.limits.max_connections;
            self.faults.note(&format!("turned a client away: {limit} are connected"));
            return;
        };
        prepare(&socket);
        let shared = Arc::clone(self);
        let spawned =
            Builder::new().name(format!("nbds#{}", seat.id())).stack_size(STACK).spawn(move || {
                match shared.serve(&socket, &seat) {
                    Ok(()) | Err(ConnectionError::Gone) => {}
                    Err(e) => shared.faults.note(&format!("a client's connection ended: {e}")),
                }
            });
        if let Err(e) = spawned {
            self.faults.note(&format!("cannot make a thread for a client: {e}"));
        }
    }

    fn note(&self, what: &str) {
        self.faults.note(what);
    }
}

/// Replies leave at once (they are gathered already), a dead peer is noticed, and buffers are large.
fn prepare(socket: &OwnedFd) {
    let _ = sockopt::set_tcp_nodelay(socket, true);
    let _ = sockopt::set_socket_keepalive(socket, true);
    enlarge(socket);
}

impl Shared {
    fn serve(&self, socket: &Arc<OwnedFd>, place: &Seat) -> Result<(), ConnectionError> {
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut clear = Handshake::begin(Transport::Plain(socket), self.limits.handshake)?;
        let mut before = Negotiation::before_tls();
        match clear.run(&mut before, |negotiation, input, out| negotiation.feed(input, &[], out))? {
            Verdict::StartTls => {}
            Verdict::More | Verdict::Transmit(..) | Verdict::Close => return Ok(()),
        }
        let stream = TlsStream::accept(socket, settings.tls, clear.deadline)?;
        place.prove();
        let client = Client::of(&stream, settings.access, self);
        // Whatever was received in clear behind STARTTLS goes with the inbox.
        let (transport, inbox) = (Transport::Tls(Box::new(stream)), Inbox::default());
        let mut handshake = Handshake { transport, inbox, ..clear };
        let Some((seat, terms)) = client.choose(socket, &mut handshake, &before)? else {
            handshake.transport.close();
            return Ok(());
        };
        if let Transport::Tls(stream) = &mut handshake.transport {
            stream.lift_deadline();
        }
        match seat.export() {
            Some(export) => transmit(handshake, export, terms),
            None => Ok(()),
        }
    }
}

/// A client that has proved who it is.
struct Client<'a> {
    names: Vec<String>,
    access: Access,
    port: &'a Shared,
}

impl<'a> Client<'a> {
    fn of(stream: &TlsStream<'_>, access: Access, port: &'a Shared) -> Self {
        let names = stream
            .client_certificate()
            .map(|certificate| names_of(&certificate))
            .unwrap_or_default();
        Self { names, access, port }
    }

    /// Negotiates under TLS, until the client has chosen a disk and has a seat at it, or leaves.
    fn choose(
        &self,
        socket: &Arc<OwnedFd>,
        handshake: &mut Handshake<'_>,
        before: &Negotiation,
    ) -> Result<Option<(Seat, Terms)>, ConnectionError> {
        let mut seat = None;
        let mut negotiation = Negotiation::over_tls(before);
        let verdict = handshake.run(&mut negotiation, |negotiation, input, out| {
            let said = out.len();
            let (used, verdict, chosen) = self.feed(negotiation, input, out, socket)?;
            if let Verdict::Transmit(..) = verdict
                && chosen.is_none()
            {
                // It must not hear that it was let in.
                out.truncate(said);
                return Err(Violation::TooManyClients);
            }
            seat = chosen;
            Ok((used, verdict))
        })?;
        match verdict {
            Verdict::Transmit(_, terms) => Ok(seat.map(|seat| (seat, terms))),
            _ => Ok(None),
        }
    }

    /// One step of the negotiation over the disks as they are now; the list does not change during it.
    fn feed(
        &self,
        negotiation: &mut Negotiation,
        input: &[u8],
        out: &mut Vec<u8>,
        socket: &Arc<OwnedFd>,
    ) -> Result<(usize, Verdict, Option<Seat>), Violation> {
        let disks = self.port.directory.disks.read().unwrap_or_else(PoisonError::into_inner);
        let open: Vec<&Arc<Guests>> = disks
            .values()
            .filter(|disk| self.access.may_open(&self.names, disk.export().name()))
            .collect();
        let offers: Vec<Offer<'_>> = open.iter().map(|disk| disk.export().offer()).collect();
        let fed = negotiation.feed(input, &offers, out);
        if let Some(name) = negotiation.take_unknown() {
            let why = if disks.contains_key(&name) { "may not open" } else { "asked for unknown" };
            self.port.faults.note(&format!("client {:?} {why} disk {name:?}", self.names));
        }
        let (used, verdict) = fed?;
        let seat = match verdict {
            Verdict::Transmit(chosen, _) => open.get(chosen).and_then(|disk| disk.enter(socket)),
            _ => None,
        };
        if let Some(export) = seat.as_ref().and_then(Seat::export) {
            tracing::info!(
                target: "vmd::nbd", disk = export.name(), client = ?self.names, "opened under TLS"
            );
        }
        Ok((used, verdict, seat))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn point_04_tcp_nodelay() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(!accepted.nodelay().unwrap(), "the system's default");
        let socket = OwnedFd::from(accepted);
        prepare(&socket);
        assert!(TcpStream::from(socket).nodelay().unwrap());
    }
}

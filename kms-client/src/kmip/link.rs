//! One connection: TCP, TLS, and one message after the other.
//!
//! Owns the socket, the TLS session and every deadline of reading and writing. It must not know what is in a message. Flow:
//! [`Link::open`] resolves, connects and does the handshake; [`Link::exchange`] sends one request and reads one answer of KMIP,
//! whose length is judged before room is made for it; [`Link::converse`] reads into room of a fixed size until its caller has seen the
//! end of the answer. Every read gets what is left until one fixed end, so bytes that drip in do not prolong it.
//!
//! Answers are wiped by whoever drops them. The TLS library keeps decrypted records for a moment in memory of its own, which is
//! not wiped.

use super::fault::Fault;
use super::recording::Recording;
use super::tls::Identity;
use super::ttlv::{HEADER, Tag, frame_length};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Most addresses of one name that are tried: both families of a few machines.
const MAX_ADDRESSES: usize = 8;

/// Most names that are being resolved at a time in this process. The resolver of the C library cannot be stopped, so one that
/// hangs keeps its thread.
const MAX_RESOLVERS: usize = 16;

/// How long each step may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budgets {
    /// Finding the address and connecting.
    pub connect: Duration,
    /// The TLS handshake.
    pub handshake: Duration,
    /// One request and its answer.
    pub request: Duration,
    /// All of an operation, over all servers.
    pub operation: Duration,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            handshake: Duration::from_secs(3),
            request: Duration::from_secs(5),
            operation: Duration::from_secs(15),
        }
    }
}

impl Budgets {
    /// The usual ones for an operation that may take so long: no step is longer than the whole.
    #[must_use]
    pub fn within(operation: Duration) -> Self {
        let usual = Self::default();
        Self {
            connect: usual.connect.min(operation),
            handshake: usual.handshake.min(operation),
            request: usual.request.min(operation),
            operation,
        }
    }
}

/// A connection to a server.
pub(crate) struct Link {
    stream: TcpStream,
    session: ClientConnection,
    /// The settings that it was made by.
    config: Arc<ClientConfig>,
}

impl Link {
    /// Connects and does the handshake, at most until `end`.
    ///
    /// # Errors
    /// [`Fault`], always with the outcome that nothing was sent.
    pub(crate) fn open(
        host: &str,
        port: u16,
        name: &ServerName<'static>,
        identity: &Identity,
        budgets: &Budgets,
        end: Instant,
    ) -> Result<Self, Fault> {
        let config = identity.config()?;
        let stream = connect(host, port, budgets.connect, end)?;
        let broken = |e: rustls::Error| identity.fault(e);
        let session = ClientConnection::new(Arc::clone(&config), name.clone()).map_err(broken)?;
        let mut link = Self { stream, session, config };
        link.handshake(identity, budgets.handshake, end)?;
        Ok(link)
    }

    fn handshake(
        &mut self,
        identity: &Identity,
        budget: Duration,
        end: Instant,
    ) -> Result<(), Fault> {
        let end = end.min(Instant::now() + budget);
        let fault = |step: Step| match step {
            Step::Late => Fault::HandshakeTimeout(budget),
            Step::Tls(e) => identity.fault(e),
            Step::Io(e) => Fault::Connect(e),
        };
        while self.session.is_handshaking() {
            self.write_records(end).map_err(fault)?;
            if self.session.is_handshaking() && self.read_records(end).map_err(fault)? == 0 {
                let what = "the server closed it in the TLS handshake";
                return Err(Fault::Connect(io::Error::new(ErrorKind::UnexpectedEof, what)));
            }
        }
        self.write_records(end).map_err(fault)
    }

    /// Sends a request and reads its answer, at most until `end`.
    ///
    /// # Errors
    /// [`Fault`]; the connection must not be used again.
    pub(crate) fn exchange(
        &mut self,
        request: &[u8],
        identity: &Identity,
        budget: Duration,
        end: Instant,
    ) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let budget = budget.min(end.saturating_duration_since(Instant::now()));
        if budget.is_zero() {
            return Err(Fault::NoTime);
        }
        let end = Instant::now() + budget;
        let fault = |step, got| match step {
            Step::Late => Fault::Silent { after: budget, got },
            Step::Tls(e) => identity.fault(e),
            Step::Io(e) => Fault::Broken(e),
        };
        self.send(request, end).map_err(|step| fault(step, 0))?;
        let mut header = [0; HEADER];
        match self.receive(&mut header, end) {
            Ok(HEADER) => {}
            Ok(0) => return Err(Fault::Closed),
            Ok(got) => return Err(Fault::Truncated { got, length: HEADER }),
            Err((step, got)) => return Err(fault(step, got)),
        }
        let length = frame_length(&header, Tag::RESPONSE_MESSAGE)?;
        let mut answer = Zeroizing::new(vec![0; length]);
        let (front, body) = answer.split_at_mut(HEADER);
        front.copy_from_slice(&header);
        let wanted = body.len();
        match self.receive(body, end) {
            Ok(got) if got == wanted => Ok(answer),
            Ok(got) => Err(Fault::Truncated { got: HEADER + got, length }),
            Err((step, got)) => Err(fault(step, HEADER + got)),
        }
    }

    /// Sends a request and reads its answer into `room`, until `seen` says that what came so far is all of it, at most until `end`. The
    /// bytes that came; fewer than an answer when the server closed before its end.
    ///
    /// # Errors
    /// [`Fault`], or what `seen` says; the connection must not be used again.
    pub(crate) fn converse<E: From<Fault>>(
        &mut self,
        request: &[u8],
        room: &mut [u8],
        mut seen: impl FnMut(&[u8]) -> Result<bool, E>,
        identity: &Identity,
        budget: Duration,
        end: Instant,
    ) -> Result<usize, E> {
        let budget = budget.min(end.saturating_duration_since(Instant::now()));
        if budget.is_zero() {
            return Err(Fault::NoTime.into());
        }
        let end = Instant::now() + budget;
        let fault = |step, got| match step {
            Step::Late => Fault::Silent { after: budget, got },
            Step::Tls(e) => identity.fault(e),
            Step::Io(e) => Fault::Broken(e),
        };
        self.send(request, end).map_err(|step| fault(step, 0))?;
        let mut got = 0;
        while let Some(left) = room.get_mut(got..).filter(|left| !left.is_empty()) {
            let more = self.receive_some(left, end).map_err(|step| fault(step, got))?;
            got += more;
            if more == 0 || seen(room.get(..got).unwrap_or_default())? {
                break;
            }
        }
        Ok(got)
    }

    /// Whether certificate, key and trust are still those that it was made by.
    pub(crate) fn is_of(&self, identity: &Identity) -> bool {
        identity.config().is_ok_and(|config| Arc::ptr_eq(&config, &self.config))
    }

    /// The server's certificate.
    pub(crate) fn certificate(&self) -> Option<Vec<u8>> {
        Some(self.session.peer_certificates()?.first()?.to_vec())
    }

    fn send(&mut self, mut bytes: &[u8], end: Instant) -> Result<(), Step> {
        while !bytes.is_empty() {
            let taken = self.session.writer().write(bytes).map_err(Step::Io)?;
            bytes = bytes.get(taken..).unwrap_or_default();
            self.write_records(end)?;
        }
        Ok(())
    }

    /// Fills `room`, or as much of it as comes before the server closes.
    fn receive(&mut self, room: &mut [u8], end: Instant) -> Result<usize, (Step, usize)> {
        let mut got = 0;
        while let Some(left) = room.get_mut(got..).filter(|left| !left.is_empty()) {
            match self.receive_some(left, end).map_err(|step| (step, got))? {
                0 => break,
                more => got += more,
            }
        }
        Ok(got)
    }

    /// What comes next, as much of it as fits; 0 when the server closed.
    fn receive_some(&mut self, room: &mut [u8], end: Instant) -> Result<usize, Step> {
        loop {
            match self.session.reader().read(room) {
                // Closed without a TLS goodbye; the length of messages shows what is missing.
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.read_records(end)?;
                }
                other => return other.map_err(Step::Io),
            }
        }
    }

    /// Receives once, and works on the records that are whole. 0 at the end of the stream.
    fn read_records(&mut self, end: Instant) -> Result<usize, Step> {
        self.stream.set_read_timeout(Some(left(end)?)).map_err(Step::Io)?;
        let got = loop {
            match self.session.read_tls(&mut self.stream) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // The other side has dropped the connection; what it sent before counts.
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return Err(Step::Io(e)),
                other => break other.map_err(late)?,
            }
        };
        let worked = self.session.process_new_packets();
        if let Err(error) = worked {
            // The alert tells the server what it did wrong; whether it listens does not matter.
            let _ = self.write_records(end);
            return Err(Step::Tls(error));
        }
        self.write_records(end)?;
        Ok(got)
    }

    fn write_records(&mut self, end: Instant) -> Result<(), Step> {
        while self.session.wants_write() {
            self.stream.set_write_timeout(Some(left(end)?)).map_err(Step::Io)?;
            self.session.write_tls(&mut self.stream).map_err(late)?;
        }
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.session.send_close_notify();
        // A server that is gone, or does not listen, is told by the end of the stream.
        let _ = self.stream.set_nonblocking(true);
        let _ = self.session.write_tls(&mut self.stream);
    }
}

/// The certificate of a server that is not trusted yet. Many servers end the handshake when a client shows no certificate; theirs has been
/// seen by then.
///
/// # Errors
/// [`Fault`] when no certificate came.
pub(crate) fn certificate(
    host: &str,
    port: u16,
    name: &ServerName<'static>,
    identity: &Identity,
    budgets: &Budgets,
    end: Instant,
) -> Result<Vec<u8>, Fault> {
    let recording = Recording::new();
    let broken = |e: rustls::Error| identity.fault(e);
    let config = recording.config().map_err(broken)?;
    let stream = connect(host, port, budgets.connect, end)?;
    let session = ClientConnection::new(Arc::clone(&config), name.clone()).map_err(broken)?;
    let mut link = Link { stream, session, config };
    let done = link.handshake(identity, budgets.handshake, end);
    match (recording.certificate(), done) {
        (Some(certificate), _) => Ok(certificate),
        (None, Err(fault)) => Err(fault),
        (None, Ok(())) => Err(Fault::Tls("it showed no certificate".to_owned())),
    }
}

/// Why reading or writing stopped.
enum Step {
    Late,
    Tls(rustls::Error),
    Io(io::Error),
}

fn late(error: io::Error) -> Step {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Step::Late,
        _ => Step::Io(error),
    }
}

/// What is left until `end`.
fn left(end: Instant) -> Result<Duration, Step> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(Step::Late) } else { Ok(left) }
}

/// Connects to the first address that answers.
fn connect(host: &str, port: u16, budget: Duration, end: Instant) -> Result<TcpStream, Fault> {
    let start = Instant::now();
    let budget = budget.min(end.saturating_duration_since(start));
    if budget.is_zero() {
        return Err(Fault::NoTime);
    }
    let end = start + budget;
    let mut fault = Fault::Resolve("none".to_owned());
    for address in resolve(host, port, budget)? {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Fault::ConnectTimeout(budget));
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => {
                // Requests are small, and each waits for its answer.
                stream.set_nodelay(true).map_err(Fault::Connect)?;
                return Ok(stream);
            }
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => fault = Fault::ConnectionRefused,
            Err(e) if e.kind() == ErrorKind::TimedOut => fault = Fault::ConnectTimeout(budget),
            Err(e) => fault = Fault::Connect(e),
        }
    }
    Err(fault)
}

/// The addresses of a name, asked for anew each time, as they may change. The system's resolver knows no deadline, so it
/// runs in a thread of its own, which is left behind when it is late.
fn resolve(host: &str, port: u16, budget: Duration) -> Result<Vec<SocketAddr>, Fault> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    let busy = || Fault::Resolve("the resolver of this host does not answer".to_owned());
    if RUNNING.fetch_add(1, Ordering::Relaxed) >= MAX_RESOLVERS {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
        return Err(busy());
    }
    let (sender, receiver) = mpsc::channel();
    let target = (host.to_owned(), port);
    let started = std::thread::Builder::new().name("resolver".into()).spawn(move || {
        let found = target.to_socket_addrs().map(|all| all.take(MAX_ADDRESSES).collect());
        RUNNING.fetch_sub(1, Ordering::Relaxed);
        // Nobody listens when it was late.
        let _ = sender.send(found);
    });
    if let Err(e) = started {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
        return Err(Fault::Resolve(e.to_string()));
    }
    let found: io::Result<Vec<_>> = receiver.recv_timeout(budget).map_err(|_| busy())?;
    found.map_err(|e| Fault::Resolve(e.to_string()))
}

//! A client of the NBD server that sends given bytes in given pieces and takes every answer.
//!
//! Owns the socket pair and the volume in memory; must not know the protocol. Flow: the server's side runs
//! `connection::serve` in a thread; the client sends a piece, waits until the server has taken it, sends the next,
//! and at the end closes its sending side and waits for the server to end.

use cryptfs::backing::FaultyBacking;
use cryptfs::volume::{Geometry, Volume};
use crypto::{Arena, Dek, Unit};
use rustix::io::{Errno, ioctl_fionread};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, recv, send, shutdown,
    socketpair,
};
use std::os::fd::OwnedFd;
use std::sync::LazyLock;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;
use vmd::nbd::connection::{self, ConnectionError, Limits};
use vmd::nbd::export::Export;

/// Longer than any input takes, so that time decides nothing.
const LIMITS: Limits = Limits { max_connections: 1, handshake: Duration::from_secs(60) };

/// Pieces of one input; what is left after them is sent as one, so that no input takes long.
const PIECES: usize = 256;

/// Looks at a server that does not move, before each one sleeps first. A yield is quicker, but gives the processor
/// away only where another thread waits for the same one.
const QUICK_LOOKS: u32 = 20;

/// How long such a sleep is.
const PAUSE: Duration = Duration::from_micros(20);

/// Name of the export.
pub const NAME: &str = "root";

static ARENA: LazyLock<Arena> =
    LazyLock::new(|| Arena::new(64 * 1024).expect("locked memory for the keys of one volume"));

/// An export in memory with a fresh key.
///
/// # Panics
/// When there is no locked memory.
#[must_use]
pub fn export(size: usize, unit: Unit, read_only: bool) -> Export {
    let size = u64::try_from(size).expect("a size in memory");
    let key = Dek::generate(&ARENA).expect("room for a key");
    let backing = Box::new(FaultyBacking::new(size));
    let geometry = Geometry { size, unit, read_only };
    Export::new(NAME, "web01", Volume::open(backing, key, geometry).expect("a volume in memory"))
}

/// Sends `stream` cut into pieces of the lengths in `pieces` (again from the first when they are used up; 0 is the
/// rest, as is what comes after [`PIECES`]), and gives back everything that the server said and how it ended.
///
/// # Panics
/// When the machine lacks sockets or threads, and as the server does.
pub fn run(
    export: &Export,
    stream: &[u8],
    pieces: &[u8],
) -> (Vec<u8>, Result<(), ConnectionError>) {
    let (client, server) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .expect("a socket pair");
    let queue = server.try_clone().expect("a copy of a descriptor");
    thread::scope(|scope| {
        // The server's end must close with it.
        let serving = scope.spawn(move || {
            let ended = connection::serve(&server, export, LIMITS);
            // The copy of the descriptor keeps the socket open, so the client is told this way.
            let _ = shutdown(&server, Shutdown::Both);
            ended
        });
        let mut client = Client { socket: client, queue, serving, said: Vec::new(), looks: 0 };
        let mut lengths = pieces.iter().copied().map(usize::from).cycle().take(PIECES);
        let mut rest = stream;
        while !rest.is_empty() && !client.serving.is_finished() {
            let length = lengths.next().filter(|length| *length > 0).unwrap_or(rest.len());
            let (piece, after) = rest.split_at(length.min(rest.len()));
            client.send(piece);
            rest = after;
        }
        client.end()
    })
}

struct Client<'scope> {
    socket: OwnedFd,
    /// The server's end: how much it has not taken yet.
    queue: OwnedFd,
    serving: ScopedJoinHandle<'scope, Result<(), ConnectionError>>,
    said: Vec<u8>,
    /// Looks in vain since something was taken or sent.
    looks: u32,
}

impl Client<'_> {
    /// Sends a piece and waits until the server has taken it or has ended.
    fn send(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            match send(&self.socket, piece, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    piece = &piece[sent..];
                    self.looks = 0;
                }
                Err(Errno::AGAIN | Errno::INTR) => self.take_or_pause(),
                // The server has ended.
                Err(_) => return,
            }
        }
        while ioctl_fionread(&self.queue).is_ok_and(|left| left > 0) && !self.serving.is_finished()
        {
            self.take_or_pause();
        }
    }

    /// Takes what the server has said, or lets it work.
    fn take_or_pause(&mut self) {
        let mut buffer = [0; 16 * 1024];
        match recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((length @ 1.., _)) => {
                self.said.extend_from_slice(&buffer[..length]);
                self.looks = 0;
            }
            _ if self.looks < QUICK_LOOKS => {
                self.looks += 1;
                thread::yield_now();
            }
            _ => thread::sleep(PAUSE),
        }
    }

    /// Says no more, and waits for the rest.
    fn end(mut self) -> (Vec<u8>, Result<(), ConnectionError>) {
        let _ = shutdown(&self.socket, Shutdown::Write);
        let mut buffer = [0; 16 * 1024];
        loop {
            match recv(&self.socket, &mut buffer, RecvFlags::empty()) {
                Ok((length @ 1.., _)) => self.said.extend_from_slice(&buffer[..length]),
                Err(Errno::INTR) => {}
                _ => break,
            }
        }
        (self.said, self.serving.join().expect("the server's thread panicked"))
    }
}

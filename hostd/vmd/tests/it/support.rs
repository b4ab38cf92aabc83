//! A volume on a temporary file, a server for it, and a client that sends whatever it is told.

use cryptfs::backing::{Backing, FileBacking};
use cryptfs::volume::{Geometry, Volume};
use crypto::{Arena, Dek, Unit};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;
use vmd::nbd::connection::{self, ConnectionError, Limits};
use vmd::nbd::export::Export;
use vmd::nbd::proto::chunk::SIMPLE_MAGIC;
use vmd::nbd::proto::negotiation::{OPTION_MAGIC, REPLY_MAGIC};
use vmd::nbd::proto::transmission::Request;
use vmd::nbd::server::Server;

pub(crate) const SIZE: u64 = 8 * 1024 * 1024;

pub(crate) const LIMITS: Limits = Limits { max_connections: 4, handshake: Duration::from_secs(10) };

pub(crate) fn volume(backing: Box<dyn Backing>, size: u64, read_only: bool) -> Volume {
    let arena = Arena::new(64 * 1024).unwrap();
    let key = Dek::generate(&arena).unwrap();
    Volume::open(backing, key, Geometry { size, unit: Unit::B4096, read_only }).unwrap()
}

/// Zeros in memory, where small requests are answered in the order in which they come.
pub(crate) fn file(size: u64) -> Box<dyn Backing> {
    let file = rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, size).unwrap();
    Box::new(FileBacking::new(file))
}

pub(crate) fn export(backing: Box<dyn Backing>, size: u64, read_only: bool) -> Export {
    Export::new("root", "web01", volume(backing, size, read_only))
}

pub(crate) fn plain_export() -> Export {
    export(file(SIZE), SIZE, false)
}

/// One connection over a socket pair, served by a thread.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) server: JoinHandle<Result<(), ConnectionError>>,
}

impl Session {
    pub(crate) fn new(export: Export, limits: Limits) -> Self {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .unwrap();
        let server = std::thread::spawn(move || connection::serve(&theirs, &export, limits));
        Self { client: Client::new(UnixStream::from(ours)), server }
    }

    /// A session in the transmission phase.
    pub(crate) fn transmitting(export: Export) -> Self {
        let mut session = Self::new(export, LIMITS);
        session.client.go();
        session
    }

    /// Ends the client's side and returns how the server saw it.
    pub(crate) fn end(self) -> Result<(), ConnectionError> {
        drop(self.client);
        self.server.join().unwrap()
    }
}

/// A server with its own socket in a temporary folder.
pub(crate) struct Served {
    pub(crate) server: Server,
    pub(crate) path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Served {
    pub(crate) fn new(export: Export, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.sock");
        let listener = OwnedFd::from(UnixListener::bind(&path).unwrap());
        let server = Server::start(export, listener, limits).unwrap();
        Self { server, path, _dir: dir }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::new(UnixStream::connect(&self.path).unwrap())
    }
}

/// A client without manners.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
}

pub(crate) fn request(command: u16, flags: u16, cookie: u64, offset: u64, length: u32) -> Request {
    let length = u64::from(length);
    Request { extended: false, flags, command, cookie, offset, length }
}

pub(crate) fn option(option: u32, data: &[u8]) -> Vec<u8> {
    let mut out = OPTION_MAGIC.to_be_bytes().to_vec();
    out.extend(option.to_be_bytes());
    out.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    out.extend(data);
    out
}

pub(crate) fn go_data(name: &str, infos: &[u16]) -> Vec<u8> {
    let mut out = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
    out.extend(name.as_bytes());
    out.extend(u16::try_from(infos.len()).unwrap().to_be_bytes());
    out.extend(infos.iter().flat_map(|info| info.to_be_bytes()));
    out
}

impl Client {
    pub(crate) fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn receive<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.stream.read_exact(&mut out).unwrap();
        out
    }

    pub(crate) fn receive_vec(&mut self, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        self.stream.read_exact(&mut out).unwrap();
        out
    }

    /// Whether the server has closed, and said nothing more.
    pub(crate) fn is_at_end(&mut self) -> bool {
        match self.stream.read(&mut [0; 1]) {
            Ok(read) => read == 0,
            Err(e) => e.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// Greeting and client flags.
    pub(crate) fn greet(&mut self, flags: u32) {
        assert_eq!(&self.receive(), b"NBDMAGICIHAVEOPT\0\x03");
        self.send(&flags.to_be_bytes());
    }

    /// One option reply: option, kind, data.
    pub(crate) fn option_reply(&mut self) -> (u32, u32, Vec<u8>) {
        assert_eq!(self.receive(), REPLY_MAGIC.to_be_bytes());
        let [option, kind, len] = [(); 3].map(|()| u32::from_be_bytes(self.receive()));
        (option, kind, self.receive_vec(usize::try_from(len).unwrap()))
    }

    /// The whole handshake; size and flags of the export.
    pub(crate) fn go(&mut self) -> (u64, u16) {
        self.greet(3);
        self.send(&option(7, &go_data("root", &[])));
        let (_, kind, data) = self.option_reply();
        assert_eq!((kind, data.len()), (3, 12));
        assert_eq!(self.option_reply(), (7, 1, vec![]));
        let size = u64::from_be_bytes(data[2..10].try_into().unwrap());
        (size, u16::from_be_bytes(data[10..12].try_into().unwrap()))
    }

    /// `GO` for "root" after other options, which must succeed; the size.
    pub(crate) fn go_on(&mut self) -> u64 {
        self.send(&option(7, &go_data("root", &[])));
        let (_, kind, data) = self.option_reply();
        assert_eq!((kind, data.len()), (3, 12));
        assert_eq!(self.option_reply(), (7, 1, vec![]));
        u64::from_be_bytes(data[2..10].try_into().unwrap())
    }

    /// One simple reply without payload: cookie and error.
    pub(crate) fn reply(&mut self) -> (u64, u32) {
        assert_eq!(self.receive(), SIMPLE_MAGIC.to_be_bytes());
        let error = u32::from_be_bytes(self.receive());
        (u64::from_be_bytes(self.receive()), error)
    }

    /// Sends a request with its payload and takes the error of the reply.
    pub(crate) fn call(&mut self, request: Request, payload: &[u8]) -> u32 {
        self.send(&request.encode());
        self.send(payload);
        let (cookie, error) = self.reply();
        assert_eq!(cookie, request.cookie);
        error
    }

    pub(crate) fn read(&mut self, offset: u64, length: u32) -> Result<Vec<u8>, u32> {
        match self.call(request(0, 0, offset ^ 0xabcd, offset, length), &[]) {
            0 => Ok(self.receive_vec(usize::try_from(length).unwrap())),
            error => Err(error),
        }
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> u32 {
        self.call(request(1, 0, 5, offset, u32::try_from(data.len()).unwrap()), data)
    }

    pub(crate) fn disconnect(&mut self) {
        self.send(&request(2, 0, 0, 0, 0).encode());
    }
}

//! A KMIP server that does as it should, until it is told to misbehave.
//!
//! Owns the sockets and TLS, and the ways to misbehave; what keys it has is in `store`. Flow: each connection is a thread that
//! reads a request, asks the store, and sends the answer as the next [`Act`] for its operation says.

use crate::pki::Authority;
use crate::store::{Shared, Store};
use kms_client::kmip::ttlv::{Item, Tag};
use kms_client::kmip::values::Operation;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest that a server waits for anything, so that every test ends.
const PATIENCE: Duration = Duration::from_secs(20);

/// What happens to an answer.
#[derive(Clone)]
pub(crate) enum Act {
    /// Nothing is sent, the connection stays open.
    Silent,
    /// The connection is closed before the request is even worked on.
    Drop,
    /// The request is done, but the connection closed without an answer.
    DoneAndDrop,
    /// The server says that it will send no more, and goes on listening.
    HalfClose,
    /// So many bytes of the answer, then the end.
    Truncate(usize),
    /// Byte by byte with this pause.
    Drip(Duration),
    /// These bytes instead.
    Raw(Vec<u8>),
    /// The answer, changed.
    Edit(Arc<dyn Fn(Vec<u8>) -> Vec<u8> + Send + Sync>),
    /// The same answer, after a while.
    Late(Duration),
}

/// What a server does to the calls of an operation.
#[derive(Default)]
struct Script {
    once: HashMap<Number, Vec<Act>>,
    always: HashMap<Number, Act>,
}

/// Number of an operation.
type Number = u32;

/// A running server; ends when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) store: Shared,
    script: Arc<Mutex<Script>>,
    stopping: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    /// Connections that did a handshake.
    pub(crate) connections: Arc<AtomicUsize>,
    /// Most requests that were being worked on at one time.
    pub(crate) most_busy: Arc<AtomicUsize>,
    accepting: Option<JoinHandle<()>>,
}

/// What the threads of one server share.
#[derive(Clone)]
struct Context {
    store: Shared,
    script: Arc<Mutex<Script>>,
    connections: Arc<AtomicUsize>,
    busy: Arc<AtomicUsize>,
    most_busy: Arc<AtomicUsize>,
    config: Arc<ServerConfig>,
}

impl Server {
    /// A server with a store of its own.
    pub(crate) fn start(authority: &Authority) -> Self {
        Self::with(authority, "server", Store::shared())
    }

    /// A server with the certificate of `who` and this store.
    pub(crate) fn with(authority: &Authority, who: &str, store: Shared) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let (chain, key) = authority.pair(who);
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(chain, key)
            .unwrap();
        Self::run(config, store)
    }

    fn run(config: ServerConfig, store: Shared) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(Script::default()));
        let stopping = Arc::new(AtomicBool::new(false));
        let open = Arc::new(Mutex::new(Vec::new()));
        let context = Context {
            store: store.clone(),
            script: script.clone(),
            connections: Arc::default(),
            busy: Arc::default(),
            most_busy: Arc::default(),
            config: Arc::new(config),
        };
        let (connections, most_busy) = (context.connections.clone(), context.most_busy.clone());
        let (ends, sockets) = (stopping.clone(), open.clone());
        let accepting = std::thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                sockets.lock().unwrap().push(socket.try_clone().unwrap());
                let context = context.clone();
                std::thread::spawn(move || {
                    context.serve(&socket);
                    // The list of open sockets would keep it open.
                    let _ = socket.shutdown(Shutdown::Both);
                });
            }
        });
        let accepting = Some(accepting);
        Self { address, store, script, stopping, open, connections, most_busy, accepting }
    }

    /// The next call of this operation is answered so.
    pub(crate) fn once(&self, operation: Operation, act: Act) {
        let mut script = self.script.lock().unwrap();
        script.once.entry(operation.number()).or_default().push(act);
    }

    /// Every call of this operation is answered so, until [`Server::behave`].
    pub(crate) fn always(&self, operation: Operation, act: Act) {
        self.script.lock().unwrap().always.insert(operation.number(), act);
    }

    /// From now on everything is as it should be.
    pub(crate) fn behave(&self) {
        *self.script.lock().unwrap() = Script::default();
    }

    /// Closes every connection, and goes on.
    pub(crate) fn close_all(&self) {
        for socket in self.open.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Ends it as a crash would: connections are reset, nobody listens any more.
    pub(crate) fn kill(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.close_all();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.accepting.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Context {
    fn serve(&self, socket: &TcpStream) {
        let session = ServerConnection::new(self.config.clone()).unwrap();
        let mut stream = StreamOwned::new(session, socket.try_clone().unwrap());
        while stream.conn.is_handshaking() {
            if stream.conn.complete_io(&mut stream.sock).is_err() {
                return;
            }
        }
        self.connections.fetch_add(1, Ordering::SeqCst);
        while let Some(request) = receive(&mut stream) {
            let busy = self.busy.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_busy.fetch_max(busy, Ordering::SeqCst);
            let goes_on = self.answer(&request, &mut stream);
            self.busy.fetch_sub(1, Ordering::SeqCst);
            if !goes_on {
                return;
            }
        }
    }

    /// Answers a request; `false` when the connection is to be closed.
    fn answer(
        &self,
        request: &[u8],
        stream: &mut StreamOwned<ServerConnection, TcpStream>,
    ) -> bool {
        let operation = last_operation(request);
        let act = {
            let mut script = self.script.lock().unwrap();
            let once = script.once.get_mut(&operation).filter(|acts| !acts.is_empty());
            once.map(|acts| acts.remove(0)).or_else(|| script.always.get(&operation).cloned())
        };
        if matches!(act, Some(Act::Drop)) {
            return false;
        }
        let answer = self.store.lock().unwrap().answer(request);
        let mut send = |bytes: &[u8]| stream.write_all(bytes).and_then(|()| stream.flush()).is_ok();
        match act {
            None => send(&answer),
            Some(Act::Late(pause)) => {
                std::thread::sleep(pause);
                send(&answer)
            }
            Some(Act::Drop | Act::DoneAndDrop) => false,
            Some(Act::Silent) => {
                let _ = stream.read(&mut [0; 1]);
                false
            }
            Some(Act::HalfClose) => {
                stream.sock.shutdown(Shutdown::Write).unwrap();
                let _ = stream.sock.read(&mut [0; 1]);
                false
            }
            Some(Act::Truncate(length)) => {
                send(&answer[..length.min(answer.len())]);
                false
            }
            Some(Act::Drip(pause)) => answer.iter().all(|byte| {
                std::thread::sleep(pause);
                send(&[*byte])
            }),
            Some(Act::Raw(bytes)) => send(&bytes),
            Some(Act::Edit(edit)) => send(&edit(answer)),
        }
    }
}

fn receive(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut header = [0; 8];
    stream.read_exact(&mut header).ok()?;
    let length = u32::from_be_bytes(header[4..].try_into().unwrap());
    let mut message = header.to_vec();
    message.resize(8 + usize::try_from(length).unwrap(), 0);
    stream.read_exact(&mut message[8..]).ok()?;
    Some(message)
}

/// The operation that a message is sent for: a fetch asks for the state first, and then for the key.
fn last_operation(request: &[u8]) -> u32 {
    let root = Item::parse(request).unwrap();
    let items = root.children().filter(|child| child.tag() == Tag::BATCH_ITEM);
    items.last().unwrap().required(Tag::OPERATION).unwrap().enumeration().unwrap()
}

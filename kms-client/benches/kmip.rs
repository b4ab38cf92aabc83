//! A host start with a thousand VMs: their keys from two PyKMIP servers, beside as many Gets over one warm connection.
//!
//! `cargo bench -p kms-client --bench kmip -- [--keys N] [--rounds N]`. Needs Python's pykmip (`tools/test` makes target/venv).
//! The provider is opened anew each time: no connection, no agreed version. The last rows have one of the two servers gone.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench may end at once, and prints its figures"
)]

#[path = "../tests/kmip/pki.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod pki;
#[path = "../tests/kmip/pykmip.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod pykmip;

use crypto::{Arena, KeyId};
use kms_client::kmip::node::Node;
use kms_client::kmip::values::Version;
use kms_client::kmip::{Budgets, KmipProvider, KmipSettings, ServerSettings};
use kms_client::{Clock, KeyProvider};
use pki::Authority;
use pykmip::{PyKmip, Suite};
use rustix::net::{AddressFamily, SocketType};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Verbs that run at a time after a start of the host, as threads of hostd (whose limit is 512).
const CALLERS: usize = 64;

struct Bench {
    authority: Authority,
    servers: [PyKmip; 2],
    arena: Arena,
    keys: Vec<KeyId>,
}

fn main() {
    let (mut keys, mut rounds) = (1000, 1);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--keys" => keys = arguments.next().unwrap().parse().unwrap(),
            "--rounds" => rounds = arguments.next().unwrap().parse().unwrap(),
            _ => {}
        }
    }
    let Some(bench) = Bench::start(keys) else { return };
    println!("{keys} keys, {CALLERS} callers, two PyKMIP servers over one database");
    for _ in 0..rounds {
        let warm = bench.warm_gets();
        let say = |what: &str, took: Duration| {
            let times = took.as_secs_f64() / warm.as_secs_f64();
            println!("{what:46} {:6.2} s  {times:5.2} x warm", took.as_secs_f64());
        };
        say("Gets, one after the other, one warm connection", warm);
        let (first, second) = (bench.address(0), bench.address(1));
        say("fetch by 64 callers, two servers", bench.fetches(&[first, second], CALLERS).1);
        say("fetch by 64 callers, one server", bench.fetches(&[first], CALLERS).1);
        say("fetch by one caller, two servers", bench.fetches(&[first, second], 1).1);
        let refused = SocketAddr::from(([127, 0, 0, 1], 1));
        say("fetch by 64 callers, first refuses", bench.fetches(&[refused, second], CALLERS).1);
        let hole = Hole::dig();
        let (answer, all) = bench.fetches(&[hole.address, second], 1);
        say("fetch by one caller, first does not answer", all);
        println!("  its first key came after {:.2} s", answer.as_secs_f64());
        say("fetch by 64 callers, first does not answer", {
            let hole = Hole::dig();
            bench.fetches(&[hole.address, second], CALLERS).1
        });
    }
}

impl Bench {
    fn start(keys: usize) -> Option<Self> {
        let authority = Authority::new();
        let database = authority.path("keys.db");
        let start = || PyKmip::start(&authority, "server", &database, Suite::Stock);
        let servers = [start()?, start()?];
        let arena = Arena::new(1 << 20).unwrap();
        let node = node(&servers[0], &authority);
        let mut session = node.session(Instant::now() + Duration::from_secs(300)).unwrap();
        let made = (0..keys).map(|_| {
            let uid = session.create(None).unwrap();
            session.activate(&uid).unwrap();
            KeyId::new("kmip", &uid).unwrap()
        });
        let keys = made.collect();
        drop(session);
        Some(Self { authority, servers, arena, keys })
    }

    fn address(&self, index: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.servers[index].port))
    }

    /// What a client does at best that has no connection to make, and asks for no state.
    fn warm_gets(&self) -> Duration {
        let node = node(&self.servers[0], &self.authority);
        let mut session = node.session(Instant::now() + Duration::from_secs(300)).unwrap();
        session.get(self.keys[0].uid(), &self.arena).unwrap();
        let start = Instant::now();
        for key in &self.keys {
            session.get(key.uid(), &self.arena).unwrap();
        }
        start.elapsed()
    }

    /// All keys through a new provider: when the first was there, and when all were.
    fn fetches(&self, servers: &[SocketAddr], callers: usize) -> (Duration, Duration) {
        let server = |address: &SocketAddr| ServerSettings {
            host: address.ip().to_string(),
            port: address.port(),
            tls_name: None,
        };
        let settings = KmipSettings {
            name: "kmip".into(),
            servers: servers.iter().map(server).collect(),
            tls: self.authority.files("client"),
            account: None,
            version: Version::V1_1,
            budgets: Budgets::default(),
            allow_compromised: false,
            operation_policy: None,
            copies: 1,
            check_every: None,
        };
        let clock: Clock = pki::now;
        let provider = KmipProvider::open(settings, clock, &self.arena).unwrap();
        let next = AtomicUsize::new(0);
        let start = Instant::now();
        let first = std::sync::Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..callers {
                scope.spawn(|| {
                    while let Some(key) = self.keys.get(next.fetch_add(1, Ordering::Relaxed)) {
                        provider.fetch(key, &self.arena).unwrap();
                        first.lock().unwrap().get_or_insert_with(|| start.elapsed());
                    }
                });
            }
        });
        (first.lock().unwrap().unwrap(), start.elapsed())
    }
}

fn node(server: &PyKmip, authority: &Authority) -> Node {
    let budgets = Budgets { operation: Duration::from_secs(300), ..Budgets::default() };
    server.node(authority.identity("client"), Version::V1_1, budgets)
}

/// An address at which nothing answers, as of a machine without power: a full queue of connections that nobody accepts.
struct Hole {
    address: SocketAddr,
    _socket: OwnedFd,
    _queued: Vec<std::thread::JoinHandle<()>>,
}

impl Hole {
    fn dig() -> Self {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        let address = SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap();
        let fill = move || {
            // It stays in the queue as long as both ends are open.
            if let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
                std::mem::forget(stream);
            }
        };
        let queued: Vec<_> = (0..4).map(|_| std::thread::spawn(fill)).collect();
        std::thread::sleep(Duration::from_millis(700));
        Self { address, _socket: socket, _queued: queued }
    }
}

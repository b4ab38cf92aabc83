//! Many keys at once, as after a start of the host: connections used again, servers that share the work, dead ones that cost one
//! try.

use crate::cluster::settings;
use crate::pki::{Authority, now};
use crate::server::{Act, Server};
use crate::session::arena;
use crate::store::Store;
use crypto::{Arena, KeyId};
use kms_client::kmip::KmipProvider;
use kms_client::kmip::values::Operation;
use kms_client::{KeyProvider, KmsError};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

const KEYS: usize = 60;

/// Keys on a server, and the provider of a host that has just started.
fn rush(authority: &Authority, servers: &[SocketAddr], ids: &[KeyId], arena: &Arena) {
    let provider = KmipProvider::open(settings(authority, servers), now, arena).unwrap();
    std::thread::scope(|scope| {
        for part in ids.chunks(5) {
            let provider = &provider;
            scope
                .spawn(move || part.iter().for_each(|id| drop(provider.fetch(id, arena).unwrap())));
        }
    });
}

fn keys(authority: &Authority, server: &Server, arena: &Arena) -> Vec<KeyId> {
    let provider = KmipProvider::open(settings(authority, &[server.address]), now, arena).unwrap();
    (0..KEYS).map(|_| provider.create_key().unwrap()).collect()
}

fn handshakes(server: &Server) -> usize {
    server.connections.load(Ordering::SeqCst)
}

#[test]
fn many_keys_take_few_connections_and_every_server() {
    let (authority, store, arena) = (Authority::new(), Store::shared(), arena());
    let first = Server::with(&authority, "server", store.clone());
    let second = Server::with(&authority, "server", store);
    let ids = keys(&authority, &first, &arena);
    let before = handshakes(&first);
    for server in [&first, &second] {
        // Long enough that both are busy at the same time.
        server.always(Operation::Get, Act::Late(std::time::Duration::from_millis(5)));
    }
    rush(&authority, &[first.address, second.address], &ids, &arena);
    let (one, two) = (handshakes(&first) - before, handshakes(&second));
    assert!((1..=4).contains(&one) && (1..=4).contains(&two), "{one} and {two} connections");
    assert_eq!(arena.usage().used, 0);
}

#[test]
fn each_of_many_gets_its_own_answer() {
    let (authority, arena) = (Authority::new(), arena());
    let server = Server::start(&authority);
    let ids = keys(&authority, &server, &arena);
    let provider =
        KmipProvider::open(settings(&authority, &[server.address]), now, &arena).unwrap();
    let values: Vec<_> =
        ids.iter().map(|id| provider.fetch(id, &arena).unwrap().check_value()).collect();
    // Among them one that is Pre-Active, one deactivated, one compromised, one gone; with and without a stop at the first refusal.
    for stops in [false, true] {
        let mut store = server.store.lock().unwrap();
        store.stops = stops;
        for (index, state) in [(0, 1), (10, 3), (20, 4)] {
            store.keys.get_mut(ids[index].uid()).unwrap().state = state;
        }
        store.keys.remove(ids[30].uid());
        drop(store);
        server.always(Operation::Get, Act::Late(std::time::Duration::from_millis(20)));
        std::thread::scope(|scope| {
            for (index, id) in ids.iter().enumerate() {
                let (provider, arena, values) = (&provider, &arena, &values);
                scope.spawn(move || match (index, provider.fetch(id, arena)) {
                    (20, Err(KmsError::Inactive { reason, .. })) => {
                        assert!(reason.contains("Compromised"), "{reason}");
                    }
                    (30, Err(KmsError::NotFound { .. })) => {}
                    (20 | 30, other) => panic!("key {index}: {other:?}"),
                    (_, fetched) => assert_eq!(fetched.unwrap().check_value(), values[index]),
                });
            }
        });
        assert_eq!(server.store.lock().unwrap().keys[ids[0].uid()].state, 2, "it was activated");
        assert!(provider.may_wrap(&ids[10]).is_err() && provider.may_wrap(&ids[11]).is_ok());
        assert_eq!(arena.usage().used, 0);
    }
}

/// A machine on which nothing works: every connection is closed at once, and counted.
struct Dead {
    address: SocketAddr,
    tries: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Dead {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tries, ends) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, over) = (tries.clone(), ends.clone());
        let accepting = std::thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
                drop(socket);
            }
        });
        Self { address, tries, ends, accepting: Some(accepting) }
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        self.accepting.take().map(JoinHandle::join);
    }
}

#[test]
fn a_dead_server_costs_one_try_not_one_a_key() {
    let (authority, arena) = (Authority::new(), arena());
    let well = Server::start(&authority);
    let ids = keys(&authority, &well, &arena);
    let dead = Dead::start();
    let servers = [dead.address, well.address];
    let provider = KmipProvider::open(settings(&authority, &servers), now, &arena).unwrap();
    for id in &ids {
        provider.fetch(id, &arena).unwrap();
    }
    // The first key finds out; after pauses of 5, 10, 20 seconds it is tried beside, which no key waits for.
    let tries = dead.tries.load(Ordering::SeqCst);
    assert!((1..5).contains(&tries), "{tries} tries of a dead server for {KEYS} keys");
    // All at once: those that are under way together may find out together, and no more than those.
    let before = tries;
    rush(&authority, &servers, &ids, &arena);
    let tries = dead.tries.load(Ordering::SeqCst) - before;
    assert!((1..9).contains(&tries), "{tries} tries of a dead server for {KEYS} keys");
}

#[test]
fn a_connection_that_was_closed_meanwhile_is_replaced() {
    let (authority, arena) = (Authority::new(), arena());
    let server = Server::start(&authority);
    let provider =
        KmipProvider::open(settings(&authority, &[server.address]), now, &arena).unwrap();
    let id = provider.create_key().unwrap();
    provider.fetch(&id, &arena).unwrap();
    let before = handshakes(&server);
    provider.fetch(&id, &arena).unwrap();
    assert_eq!(handshakes(&server), before, "the connection was used again");
    // As a firewall or a restart does it, without a fault of the server.
    server.close_all();
    provider.fetch(&id, &arena).unwrap();
    assert_eq!(handshakes(&server), before + 1);
    assert!(provider.status().alarms.is_empty());
    // One that dies with the request in its hands, twice, is a fault like any other.
    server.always(Operation::Get, Act::Drop);
    assert!(provider.fetch(&id, &arena).unwrap_err().is_transient());
}

#[test]
fn a_new_certificate_is_not_used_over_an_old_connection() {
    let (authority, arena) = (Authority::new(), arena());
    let server = Server::start(&authority);
    let provider =
        KmipProvider::open(settings(&authority, &[server.address]), now, &arena).unwrap();
    let id = provider.create_key().unwrap();
    provider.fetch(&id, &arena).unwrap();
    let before = handshakes(&server);
    authority.client("client", 3000);
    provider.fetch(&id, &arena).unwrap();
    assert_eq!(handshakes(&server), before + 1);
}

#[test]
fn a_server_that_takes_no_batches_gives_keys_all_the_same() {
    let (authority, arena) = (Authority::new(), arena());
    let server = Server::start(&authority);
    let provider =
        KmipProvider::open(settings(&authority, &[server.address]), now, &arena).unwrap();
    let id = provider.create_key().unwrap();
    let value = provider.fetch(&id, &arena).unwrap().check_value();
    server.store.lock().unwrap().no_batches = true;
    assert_eq!(provider.fetch(&id, &arena).unwrap().check_value(), value);
    server.store.lock().unwrap().keys.get_mut(id.uid()).unwrap().state = 4;
    assert!(provider.fetch(&id, &arena).is_err(), "its state still counts");
}

#[test]
fn a_server_that_stops_at_the_first_refusal_is_understood() {
    let (authority, arena) = (Authority::new(), arena());
    let server = Server::start(&authority);
    let provider =
        KmipProvider::open(settings(&authority, &[server.address]), now, &arena).unwrap();
    let id = provider.create_key().unwrap();
    server.store.lock().unwrap().stops = true;
    provider.fetch(&id, &arena).unwrap();
    let gone = KeyId::new("kmip", "4711").unwrap();
    let error = provider.fetch(&gone, &arena).unwrap_err();
    assert!(matches!(error, KmsError::NotFound { .. }), "{error}");
    // No states there: the key is asked for alone.
    server.store.lock().unwrap().lacks.push(Operation::GetAttributes.number());
    provider.fetch(&id, &arena).unwrap();
}

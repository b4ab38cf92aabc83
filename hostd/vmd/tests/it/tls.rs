//! The TLS port of the real, confined binary: the checklist of the protocol, points 30 to 38, and clients that
//! should not get in.

use super::process::{Host, ok, report};
use super::support::{Client, go_data, option, plain_export, request};
use super::tls_support::{Authority, Identity, MIB, Peer, World, config, is_silence};
use hostd_api::link::{Request, Response};
use rcgen::ExtendedKeyUsagePurpose as Usage;
use rustls::version::{TLS12, TLS13};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};
use vmd::nbd::connection::Limits;
use vmd::nbd::server::Server;
use vmd::nbd::tls_access::Access;
use vmd::nbd::tls_port::{Directory, Port, Settings};
use vmd::nbd::tls_settings::server_config;

const ACK: u32 = 1;
const UNSUP: u32 = 0x8000_0001;
const INVALID: u32 = 0x8000_0003;
const TLS_REQD: u32 = 0x8000_0005;
const UNKNOWN: u32 = 0x8000_0006;

/// A write, a read of it, and a read of what was never written.
fn use_disk<S: Read + Write>(peer: &mut Peer<S>) {
    peer.send(&request(1, 1, 1, 4096, 5).encode());
    peer.send(b"hello");
    assert_eq!(&peer.receive(16)[4..8], [0; 4]);
    peer.send(&request(0, 0, 2, 4000, 200).encode());
    let reply = peer.receive(16 + 200);
    assert_eq!((&reply[..4], &reply[4..8]), (&[0x67, 0x44, 0x66, 0x98][..], &[0; 4][..]));
    assert_eq!(&reply[16 + 96..16 + 101], b"hello");
}

/// Waits until the port has no client any more.
fn empty(world: &World) {
    let since = Instant::now();
    while world.clients() > 0 {
        assert!(since.elapsed() < Duration::from_secs(30), "a connection does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn point_30_tls_1_2_and_1_3_and_nothing_older() {
    let world = World::new();
    for version in [&TLS12, &TLS13] {
        let identity = Some(world.authority.client("host-2"));
        let config = config(world.authority.roots(), identity, &[version]);
        let mut peer = world.connect().encrypted(config).unwrap();
        assert_eq!(peer.go("root"), Ok(8 * MIB));
        assert_eq!(peer.stream.conn.protocol_version(), Some(version.version));
        use_disk(&mut peer);
    }
    // A hello of TLS 1.1, with the one cipher suite that everybody had to have.
    let mut peer = world.connect();
    assert_eq!(peer.ask(5, &[]), ACK);
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0, 0x2f, 1, 0]);
    // The only thing that is wrong with it is the version: it even has signature algorithms.
    hello.extend([0, 8, 0, 13, 0, 4, 0, 2, 4, 1]);
    let length = u8::try_from(hello.len()).unwrap();
    peer.send(&[&[22, 3, 1, 0, length + 4, 1, 0, 0, length][..], &hello].concat());
    let alert = peer.receive(7);
    assert_eq!((alert[0], alert[6]), (21, 70), "{alert:?} is not protocol_version");
    assert!(peer.is_at_end());
}

#[test]
fn point_31_the_mode_of_a_port_and_of_a_socket_is_fixed() {
    let world = World::new();
    for _ in 0..2 {
        assert_eq!(world.connect().ask(3, &[]), TLS_REQD);
        assert_eq!(world.client("backup").list(), ["data", "root"]);
        let mut local = Client::new(UnixStream::connect(&world.disks[0].socket).unwrap());
        assert_eq!(local.go().0, 8 * MIB);
    }
}

#[test]
fn point_32_a_unix_socket_never_speaks_tls() {
    let world = World::new();
    let mut local = Client::new(UnixStream::connect(&world.disks[0].socket).unwrap());
    local.greet(3);
    for data in [&[][..], b"x"] {
        local.send(&option(5, data));
        assert_eq!(local.option_reply().1, UNSUP);
    }
    local.send(&option(7, &go_data("root", &[])));
    assert_eq!(local.option_reply().1, 3);
}

#[test]
fn point_33_nothing_but_starttls_and_abort_before_tls() {
    let world = World::new();
    let mut peer = world.connect();
    let go = go_data("root", &[]);
    for (number, data) in
        [(3, &[][..]), (3, b"x"), (6, &go), (7, &go), (8, &[]), (9, &go), (10, &go), (11, &[])]
    {
        assert_eq!(peer.ask(number, data), TLS_REQD, "option {number}");
    }
    assert_eq!(peer.ask(0xdead_beef, &[7; 100]), TLS_REQD);
    assert_eq!(peer.ask(77, &vec![0; 100_000]), TLS_REQD);
    assert_eq!(peer.ask(2, b"any data"), ACK);
    assert!(peer.is_at_end());
    for name in [&b"root"[..], b"", b"unknown"] {
        let mut peer = world.connect();
        peer.send(&option(1, name));
        assert!(peer.is_at_end(), "EXPORT_NAME was answered");
    }
    empty(&world);
    assert_eq!(world.vmd.status().disks[1].bytes_read, 0);
}

#[test]
fn point_34_starttls_once_and_without_data() {
    let world = World::new();
    let mut peer = world.connect();
    assert_eq!(peer.ask(5, b"x"), INVALID);
    let identity = Some(world.authority.client("host-2"));
    let config = config(world.authority.roots(), identity, rustls::ALL_VERSIONS);
    let mut peer = peer.encrypted(config).unwrap();
    assert_eq!(peer.ask(5, &[]), INVALID);
    assert_eq!(peer.ask(5, b"x"), INVALID);
    assert_eq!(peer.go("root"), Ok(8 * MIB));
    use_disk(&mut peer);
}

/// What CVE-2021-3716 was: an option injected in clear stays in force under TLS. Here also behind STARTTLS, where
/// it must neither be answered nor taken for part of the session.
#[test]
fn point_35_nothing_said_in_clear_survives() {
    let world = World::new();
    for behind in [&[][..], &option(8, &[]), &option(3, &[]), &option(7, &go_data("data", &[]))] {
        let mut peer = world.connect();
        peer.send(&[option(8, &[]), option(5, &[]), behind.to_vec()].concat());
        assert_eq!(peer.option_reply().1, TLS_REQD);
        assert_eq!(peer.option_reply(), (5, ACK, vec![]));
        let identity = Some(world.authority.client("host-2"));
        let config = config(world.authority.roots(), identity, rustls::ALL_VERSIONS);
        let mut peer = peer.shake_hands(config).unwrap();
        assert_eq!(peer.list(), ["root"]);
        assert_eq!(peer.go("root"), Ok(8 * MIB));
        // A simple reply: structured replies are off.
        use_disk(&mut peer);
    }
}

#[test]
fn point_36_a_failed_handshake_ends_the_session() {
    let world = World::new();
    for garbage in [&b"IHAVEOPT\0\0\0\x03\0\0\0\0"[..], &[22, 3, 1, 0, 5, 1, 0, 0, 1, 0], &[0; 64]]
    {
        let mut peer = world.connect();
        assert_eq!(peer.ask(5, &[]), ACK);
        peer.send(garbage);
        let mut rest = Vec::new();
        // Alerts at most, then the end; a reset says the same.
        let end = peer.stream.read_to_end(&mut rest);
        assert!(end.is_ok() || end.is_err_and(|e| !is_silence(&e)), "it goes on");
        assert!(
            rest.len() < 64 && !rest.windows(8).any(|w| w == b"\0\x03\xe8\x89\x04\x55\x65\xa9")
        );
    }
    empty(&world);
    assert_eq!(world.client("host-2").go("root"), Ok(8 * MIB));
}

#[test]
fn point_37_no_tls_required_under_tls() {
    let world = World::new();
    let mut peer = world.client("host-2");
    assert_eq!(peer.ask(77, b"unknown"), UNSUP);
    assert_eq!(peer.ask(6, &go_data("no-such-disk", &[])), UNKNOWN);
    assert_eq!(peer.go("no-such-disk"), Err(UNKNOWN));
    assert_eq!(peer.ask(3, b"data"), INVALID);
    assert_eq!(peer.go("root"), Ok(8 * MIB));
}

/// Selective mode is not offered: what is behind the port is behind TLS, what is not has a socket of its own.
#[test]
fn point_38_no_export_is_open_with_and_without_tls_on_one_socket() {
    let world = World::new();
    for disk in ["root", "data", ""] {
        assert_eq!(world.connect().go(disk), Err(TLS_REQD));
    }
}

#[test]
fn a_name_opens_its_own_disks_and_sees_no_other() {
    let world = World::new();
    let mut peer = world.client("host-2");
    assert_eq!(peer.list(), ["root"]);
    assert_eq!(peer.go("data"), Err(UNKNOWN));
    // The only one on offer is the default.
    assert_eq!(peer.go(""), Ok(8 * MIB));
    let mut backup = world.client("backup");
    assert_eq!((backup.list().len(), backup.go("")), (2, Err(UNKNOWN)));
    assert_eq!(backup.go("data"), Ok(MIB));
    let mut stranger = world.client("host-3");
    assert_eq!((stranger.list().len(), stranger.go("root")), (0, Err(UNKNOWN)));
    stranger.send(&option(1, b"root"));
    assert!(stranger.is_at_end());
    // The list may change under way, and holds for those who come afterwards.
    ok(&world.serve(&[("spiffe://example.org/host-3", &["data"])], 16));
    assert_eq!(world.client("spiffe://example.org/host-3").go("data"), Ok(MIB));
    assert_eq!(world.client("host-2").go("root"), Err(UNKNOWN));
}

#[test]
fn without_a_valid_certificate_nobody_gets_in() {
    let world = World::new();
    let other = Authority::new();
    let identities = [
        ("none", None),
        ("of another authority", Some(other.client("host-2"))),
        ("expired", Some(world.authority.client_until("host-2", 2020))),
        (
            "not valid yet",
            Some(world.authority.client_with("host-2", 4000..=4001, Usage::ClientAuth)),
        ),
        (
            "of a server",
            Some(world.authority.client_with("host-2", 2000..=4000, Usage::ServerAuth)),
        ),
    ];
    for (what, identity) in identities {
        for version in [&TLS12, &TLS13] {
            let identity = identity.as_ref().map(Identity::copy);
            let config = config(world.authority.roots(), identity, &[version]);
            if let Ok(mut peer) = world.connect().encrypted(config) {
                // With TLS 1.3 the client is done before the server has looked.
                let _ = peer.stream.write_all(&option(3, &[]));
                let answer = peer.stream.read(&mut [0; 1]);
                // An alert, or a reset; not silence.
                assert!(answer.as_ref().is_err_and(|e| !is_silence(e)), "{what}: {answer:?}");
            }
        }
    }
    // Nor does a client of the right authority believe another server.
    let config = config(other.roots(), Some(world.authority.client("host-2")), &[&TLS13]);
    assert!(world.connect().encrypted(config).is_err());
    empty(&world);
}

#[test]
fn a_client_that_vanishes_costs_nothing() {
    let world = World::new();
    let mut peers: Vec<_> = (0..4).map(|_| world.client("host-2")).collect();
    for peer in peers.iter_mut().take(2) {
        peer.go("root").unwrap();
    }
    peers[0].send(&request(1, 0, 1, 0, 100_000).encode());
    assert_eq!(world.clients(), 4);
    // No DISC, no close_notify.
    peers.iter().for_each(|peer| peer.stream.sock.shutdown(Shutdown::Both).unwrap());
    drop(peers);
    empty(&world);
    let ticks = || {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", world.vmd.pid())).unwrap();
        let fields: Vec<_> = text.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    std::thread::sleep(Duration::from_millis(400));
    assert!(ticks() - before < 10, "it spins");
    assert_eq!(world.client("host-2").go("root"), Ok(8 * MIB));
}

#[test]
fn leave_is_taken_in_words() {
    let world = World::new();
    let mut peer = world.client("host-2");
    peer.go("root").unwrap();
    peer.send(&request(2, 0, 0, 0, 0).encode());
    // Ok(0) is close_notify; its absence would be an error.
    assert_eq!(peer.stream.read(&mut [0; 1]).unwrap(), 0);
    let (mut one, mut other) = (world.client("backup"), world.client("backup"));
    one.go("root").unwrap();
    other.go("data").unwrap();
    use_disk(&mut one);
    ok(&world.vmd.ask(&Request::Detach { disk: "root".into() }));
    assert_eq!(one.stream.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(world.client("backup").list(), ["data"]);
    use_disk(&mut other);
    ok(&world.vmd.ask(&Request::StopTls));
    assert_eq!(other.stream.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(world.vmd.status().tls, None);
}

#[test]
fn connections_are_counted_per_port() {
    let world = World::with_connections(2);
    let (mut one, mut two) = (world.client("host-2"), world.client("host-2"));
    // An answer shows that the server has seen the certificate.
    assert_eq!((one.list(), two.list()), (vec!["root".to_owned()], vec!["root".to_owned()]));
    let mut third = std::net::TcpStream::connect(world.address).unwrap();
    third.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(third.read(&mut [0; 1]).map_or_else(|e| !is_silence(&e), |read| read == 0));
    drop(two);
    let since = Instant::now();
    while world.clients() > 1 && since.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(world.client("host-2").go("root"), Ok(8 * MIB));
    assert_eq!(one.go("root"), Ok(8 * MIB));
}

/// Whoever has no certificate cannot keep those out who have one.
#[test]
fn the_oldest_client_without_a_certificate_makes_room() {
    let world = World::with_connections(3);
    let mut known = world.client("host-2");
    assert_eq!(known.list(), ["root"]);
    let mut silent = vec![world.connect(), world.connect()];
    for _ in 0..5 {
        let mut other = world.client("backup");
        assert_eq!(other.go("data"), Ok(MIB));
        use_disk(&mut other);
        assert!(silent.remove(0).is_at_end(), "the oldest has stayed");
        drop(other);
        silent.push(world.connect());
    }
    assert_eq!(known.go("root"), Ok(8 * MIB));
    use_disk(&mut known);
}

#[test]
fn the_next_hostd_gets_the_port_back() {
    let world = World::new();
    let mut peer = world.client("host-2");
    peer.go("root").unwrap();
    let (answer, fds) = world.vmd.link.call(&Request::Adopt { polling: false }, &[]).unwrap();
    let tls = report(answer).tls.unwrap();
    assert_eq!((tls.address, tls.clients, fds.len()), (world.address, 1, 1 + 2 + 1));
    let listener = TcpListener::from(fds.into_iter().next_back().unwrap());
    assert_eq!(listener.local_addr().unwrap(), world.address);
    use_disk(&mut peer);
}

#[test]
fn files_of_no_use_are_named() {
    let world = World::new();
    let fails = |world: &World, file: &str, content: &[u8], named: &str| {
        let path = world.authority.path(file);
        let old = std::fs::read(&path).unwrap();
        std::fs::write(&path, content).unwrap();
        match world.serve(&[], 16) {
            Response::Failed(failure) => assert!(failure.message.contains(named), "{failure:?}"),
            other => panic!("{other:?}"),
        }
        std::fs::write(&path, old).unwrap();
    };
    fails(&world, "server-cert.pem", b"", "certificate");
    fails(&world, "server-key.pem", b"-----BEGIN PRIVATE KEY-----\n", "private key");
    fails(&world, "ca-cert.pem", b"nothing", "client authorities");
    world.authority.client("x");
    let another = std::fs::read(world.authority.path("client-key.pem")).unwrap();
    fails(&world, "server-key.pem", &another, "private key");
    // The port goes on as it was.
    assert_eq!(world.client("host-2").go("root"), Ok(8 * MIB));
}

/// In this process, for a time limit that a test can wait for.
#[test]
fn silent_clients_and_those_that_send_crumbs_are_cut() {
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let limits = Limits { max_connections: 8, handshake: Duration::from_millis(500) };
    let local = UnixListener::bind(dir.path().join("s")).unwrap();
    let server = Server::start(plain_export(), local.into(), limits).unwrap();
    let directory = Directory::default();
    directory.insert(&server);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let tls = server_config(authority.files()).unwrap();
    let settings = Settings { tls, access: Access::default() };
    let port = Port::start("web01", listener.into(), settings, directory.clone(), limits).unwrap();
    let since = Instant::now();
    let mut silent = Peer::connect(address);
    let mut silent_tls = Peer::connect(address);
    assert_eq!(silent_tls.ask(5, &[]), ACK);
    let mut crumbs = Peer::connect(address);
    assert_eq!(crumbs.ask(5, &[]), ACK);
    let identity = Some(authority.client("host-2"));
    let done = config(authority.roots(), identity, rustls::ALL_VERSIONS);
    let mut silent_inside = Peer::connect(address).encrypted(done).unwrap();
    // One byte of a record at a time, for as long as it is taken.
    for byte in [22, 3, 1, 1, 0].into_iter().chain(std::iter::repeat(1)) {
        if crumbs.stream.write_all(&[byte]).is_err() {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(60), "crumbs are taken for ever");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(silent.is_at_end() && silent_tls.is_at_end() && silent_inside.is_at_end());
    while port.clients() > 0 {
        assert!(since.elapsed() < Duration::from_secs(60), "a connection does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    port.stop(Duration::ZERO);
    directory.remove("root");
    assert!(server.stop(Duration::ZERO).is_ok());
}

#[test]
fn a_port_needs_a_set_up_vmd() {
    let host = Host::new();
    let vmd = host.spawn();
    assert!(matches!(vmd.ask(&Request::StopTls), Response::Failed(_)));
}

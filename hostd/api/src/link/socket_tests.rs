//! Messages and descriptors cross; broken peers are named, never trusted.

use super::*;
use crate::link::{LINK_VERSION, MAX_DISKS, Report, ServedDisk, ServedTls, refuse_descriptors};
use std::io::{Read, Seek, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

fn pair() -> (Link, Link, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("link.sock");
    let listener = listen(&path).unwrap();
    let client = Link::connect(&path).unwrap();
    let (server, peer) = accept(&listener).unwrap();
    assert_eq!(peer.pid, i32::try_from(std::process::id()).unwrap());
    assert_eq!(peer.uid, rustix::process::getuid().as_raw());
    (client, server, dir)
}

#[test]
fn a_call_carries_descriptors_both_ways() {
    let (client, server, _dir) = pair();
    let answers = thread::spawn(move || {
        let (request, fds) = server.recv::<Request>().unwrap().unwrap();
        assert!(matches!(request, Request::Detach { disk } if disk == "root"));
        let mut file = std::fs::File::from(fds.into_iter().next().unwrap());
        file.write_all(b"seen").unwrap();
        server.send(&Response::Ok, &[file.as_fd()]).unwrap();
    });
    let mut file = tempfile::tempfile().unwrap();
    let (answer, fds) =
        client.call(&Request::Detach { disk: "root".into() }, &[file.as_fd()]).unwrap();
    answers.join().unwrap();
    assert!(matches!(answer, Response::Ok));
    assert_eq!(fds.len(), 1);
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "seen");
}

#[test]
fn a_closed_peer_ends_the_link() {
    let (client, server, _dir) = pair();
    drop(server);
    assert!(client.recv::<Response>().unwrap().is_none());
    assert!(matches!(client.call(&Request::Hello, &[]), Err(LinkError::Closed)));
}

#[test]
fn a_silent_peer_is_given_up() {
    let (client, _server, _dir) = pair();
    client.set_timeout(Some(Duration::from_millis(20))).unwrap();
    assert!(matches!(client.call(&Request::Hello, &[]), Err(LinkError::TimedOut)));
}

#[test]
fn garbage_unknown_fields_and_long_messages_are_refused() {
    let (client, server, _dir) = pair();
    for text in [&b"{"[..], b"\xff\xfe", br#"{"do":"fly"}"#, br#"{"do":"detach","disk":"a","x":1}"#]
    {
        rustix::net::send(&client, text, SendFlags::NOSIGNAL).unwrap();
        assert!(matches!(server.recv::<Request>(), Err(LinkError::Peer(_))));
    }
    let long = vec![b' '; MAX_MESSAGE + 1];
    rustix::net::send(&client, &long, SendFlags::NOSIGNAL).unwrap();
    assert!(matches!(server.recv::<Request>(), Err(LinkError::Peer(_))));
    let disk = "x".repeat(MAX_MESSAGE);
    assert!(matches!(client.send(&Request::Detach { disk }, &[]), Err(LinkError::Peer(_))));
    client.send(&Request::Hello, &[]).unwrap();
    assert!(matches!(server.recv::<Request>().unwrap().unwrap().0, Request::Hello));
}

/// A report on as many disks as there may be, with the longest names, paths and numbers, and all descriptors with it.
#[test]
fn the_largest_report_crosses() {
    let (client, server, dir) = pair();
    let disk = |number: usize| ServedDisk {
        disk: format!("{number:0>64}"),
        id: uuid::Uuid::max(),
        read_only: false,
        cache: crate::types::CacheMode::None,
        // As long as a socket address can be, and every second byte is one that JSON escapes.
        socket: "\"a".repeat(54).into(),
        clients: u32::MAX,
        bytes_read: u64::MAX,
        bytes_written: u64::MAX,
    };
    let report = Report {
        link_version: LINK_VERSION,
        pid: u32::MAX,
        id: Some(uuid::Uuid::max()),
        vm: Some("v".repeat(64)),
        confinement: vec!["confinement".repeat(4); 16],
        engine: "portable".into(),
        disks: (0..MAX_DISKS).map(disk).collect(),
        home: Some("/".repeat(4096).into()),
        home_mode: Some(crate::types::HomeMode::Exclusive),
        tls: Some(ServedTls { address: "[::1]:65535".parse().unwrap(), clients: u32::MAX }),
    };
    let descriptor = std::fs::File::open(dir.path()).unwrap();
    let fds = vec![descriptor.as_fd(); MAX_FDS];
    server.send(&Response::Report(report), &fds).unwrap();
    let (response, fds) = client.recv::<Response>().unwrap().unwrap();
    assert!(matches!(response, Response::Report(report) if report.disks.len() == MAX_DISKS));
    assert_eq!(fds.len(), MAX_FDS);
}

#[test]
fn a_stale_socket_says_refused_and_a_missing_one_missing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("link.sock");
    assert!(matches!(Link::connect(&path), Err(LinkError::Connect { source: Errno::NOENT, .. })));
    drop(listen(&path).unwrap());
    assert!(matches!(
        Link::connect(&path),
        Err(LinkError::Connect { source: Errno::CONNREFUSED, .. })
    ));
    assert!(matches!(listen(&path), Err(LinkError::Listen { source: Errno::ADDRINUSE, .. })));
}

#[test]
fn a_socket_that_refuses_descriptors_takes_data_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.sock");
    // A stream socket, as those of disks are; the short messages of this test arrive whole all the same.
    let listener = UnixListener::bind(&path).unwrap();
    if refuse_descriptors(listener.as_fd()) == Err(Errno::NOPROTOOPT) {
        let _ = writeln!(std::io::stderr(), "SKIPPED: SO_PASSRIGHTS needs Linux 6.16");
        return;
    }
    let client = Link::from_fd(UnixStream::connect(&path).unwrap().into()).unwrap();
    let sent = client.send(&Request::Hello, &[listener.as_fd()]);
    assert!(matches!(sent, Err(LinkError::Io(Errno::PERM))), "{sent:?}");
    client.send(&Request::Hello, &[]).unwrap();
    let server = Link::from_fd(listener.accept().unwrap().0.into()).unwrap();
    let sent = client.send(&Request::Hello, &[listener.as_fd()]);
    assert!(matches!(sent, Err(LinkError::Io(Errno::PERM))), "{sent:?}");
    assert!(server.recv::<Request>().unwrap().unwrap().1.is_empty());
}

#[test]
fn the_sender_is_told_by_the_kernel() {
    let (client, server, _dir) = pair();
    assert_eq!(client.sender(), None);
    server.send(&Response::Ok, &[]).unwrap();
    assert!(matches!(client.recv::<Response>().unwrap().unwrap().0, Response::Ok));
    let sender = client.sender().unwrap();
    assert_eq!(sender.pid, i32::try_from(std::process::id()).unwrap());
}

#[test]
fn a_listener_that_takes_no_connections_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("link.sock");
    let _listener = listen(&path).unwrap();
    let mut queued = Vec::new();
    let refused = loop {
        match Link::connect(&path) {
            Ok(link) if queued.len() < 64 => queued.push(link),
            Ok(_) => panic!("the queue has no end"),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, LinkError::TimedOut), "{refused}");
}

/// Those of the first release of this version of the link.
#[test]
fn an_adoption_reads_the_same_without_its_option() {
    let text = serde_json::to_string(&Request::Adopt { polling: false }).unwrap();
    assert_eq!(text, r#"{"do":"adopt"}"#);
    let read: Request = serde_json::from_str(&text).unwrap();
    assert!(matches!(read, Request::Adopt { polling: false }));
    /// As it was then.
    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "kebab-case", tag = "do", deny_unknown_fields)]
    enum Old {
        Adopt,
    }
    let text = serde_json::to_string(&Request::Adopt { polling: true }).unwrap();
    let Old::Adopt = serde_json::from_str(&text).unwrap();
}

//! The negotiation against a real export, over a socket.

use super::support::{Client, LIMITS, Served, Session, go_data, option, plain_export, request};
use std::time::{Duration, Instant};
use vmd::nbd::connection::{ConnectionError, Limits};
use vmd::nbd::proto::Violation;

#[test]
fn options_are_answered_one_by_one_until_go() {
    let mut session = Session::new(plain_export(), LIMITS);
    let client = &mut session.client;
    client.greet(3);
    for unknown in [4, 12, 4711] {
        client.send(&option(unknown, &[1; 300]));
        assert_eq!(client.option_reply().1, 0x8000_0001);
    }
    client.send(&option(3, &[]));
    assert_eq!(client.option_reply(), (3, 2, b"\0\0\0\x04root".to_vec()));
    assert_eq!(client.option_reply(), (3, 1, vec![]));
    client.send(&option(7, &go_data("nobody", &[3])));
    assert_eq!(client.option_reply().1, 0x8000_0006);
    client.send(&option(6, &go_data("root", &[])));
    let info = client.option_reply();
    assert_eq!(client.option_reply(), (6, 1, vec![]));
    client.send(&option(7, &go_data("", &[])));
    assert_eq!(client.option_reply().2, info.2);
    assert_eq!(client.option_reply(), (7, 1, vec![]));
    assert_eq!(client.read(0, 512).unwrap(), [0; 512]);
    session.end().unwrap();
}

#[test]
fn export_name_leads_to_transmission_with_and_without_padding() {
    for (flags, padding) in [(1, 124), (3, 0)] {
        let mut session = Session::new(plain_export(), LIMITS);
        let client = &mut session.client;
        client.greet(flags);
        client.send(&option(1, b"root"));
        assert_eq!(client.receive_vec(10 + padding)[..8], super::support::SIZE.to_be_bytes());
        assert_eq!(client.read(0, 1).unwrap(), [0]);
        client.disconnect();
        assert!(client.is_at_end());
        session.end().unwrap();
    }
}

#[test]
fn bytes_may_come_one_at_a_time() {
    let mut session = Session::new(plain_export(), LIMITS);
    let client = &mut session.client;
    let mut bytes = 3u32.to_be_bytes().to_vec();
    bytes.extend(option(4, b"data"));
    bytes.extend(option(7, &go_data("root", &[3])));
    bytes.extend(request(1, 0, 1, 10, 4).encode());
    bytes.extend(b"abcd");
    bytes.extend(request(0, 0, 2, 9, 6).encode());
    for byte in bytes {
        client.send(&[byte]);
    }
    client.receive::<18>();
    for kind in [0x8000_0001, 3, 3, 1] {
        assert_eq!(client.option_reply().1, kind);
    }
    assert_eq!(client.reply(), (1, 0));
    assert_eq!(client.reply(), (2, 0));
    assert_eq!(&client.receive(), b"\0abcd\0");
    session.end().unwrap();
}

#[test]
fn requests_may_follow_go_in_the_same_segment() {
    let mut session = Session::new(plain_export(), LIMITS);
    let client = &mut session.client;
    client.greet(3);
    let mut bytes = option(7, &go_data("root", &[]));
    bytes.extend(request(0, 0, 77, 0, 3).encode());
    client.send(&bytes);
    client.option_reply();
    client.option_reply();
    assert_eq!(client.reply(), (77, 0));
    assert_eq!(client.receive(), [0; 3]);
    session.end().unwrap();
}

#[test]
fn abort_with_data_is_acknowledged_and_closes() {
    let mut session = Session::new(plain_export(), LIMITS);
    session.client.greet(3);
    session.client.send(&option(2, b"good bye"));
    assert_eq!(session.client.option_reply(), (2, 1, vec![]));
    assert!(session.client.is_at_end());
    session.end().unwrap();
}

#[test]
fn violations_end_the_session() {
    let violations: [(&[u8], Violation); 3] = [
        (&[0, 0, 0, 4], Violation::ClientFlags(4)),
        (&[0; 20], Violation::OptionMagic),
        (&[[0, 0, 0, 3].to_vec(), option(1, b"other")].concat(), Violation::UnknownExport),
    ];
    for (bytes, violation) in violations {
        let mut session = Session::new(plain_export(), LIMITS);
        session.client.receive::<18>();
        session.client.send(bytes);
        assert!(session.client.is_at_end());
        match session.end() {
            Err(ConnectionError::Client(found)) => assert_eq!(found, violation),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn silent_and_slow_clients_are_cut() {
    let limits = Limits { handshake: Duration::from_millis(200), ..LIMITS };
    for slow in [false, true] {
        let mut session = Session::new(plain_export(), limits);
        session.client.greet(3);
        let bytes = option(7, &go_data("root", &[]));
        // One byte every 20 ms keeps a time-out per message at bay, but not one for the whole handshake.
        for byte in bytes.iter().take(if slow { bytes.len() - 1 } else { 0 }) {
            let sent = std::io::Write::write_all(&mut session.client.stream, &[*byte]);
            if sent.is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(session.client.is_at_end());
        assert!(matches!(session.end(), Err(ConnectionError::HandshakeTimedOut(_))));
    }
}

#[test]
fn a_client_that_vanishes_in_the_handshake_is_no_error() {
    let mut session = Session::new(plain_export(), LIMITS);
    session.client.greet(3);
    session.end().unwrap();
}

#[test]
fn the_connection_cap_turns_clients_away_and_frees_places() {
    let served = Served::new(plain_export(), LIMITS);
    let mut clients: Vec<Client> = (0..4).map(|_| served.connect()).collect();
    clients.iter_mut().for_each(|client| client.greet(3));
    assert!(served.connect().is_at_end());
    drop(clients.pop());
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut late = loop {
        let mut late = served.connect();
        let mut first = [0; 1];
        if std::io::Read::read(&mut late.stream, &mut first).is_ok_and(|read| read == 1) {
            break late;
        }
        assert!(Instant::now() < deadline, "the place was not freed");
        std::thread::sleep(Duration::from_millis(5));
    };
    late.receive::<17>();
    assert!(served.server.stop(Duration::from_secs(5)).is_ok());
}

#[test]
fn options_in_odd_order() {
    let mut session = Session::new(plain_export(), LIMITS);
    let client = &mut session.client;
    client.greet(3);
    let mut bytes = option(6, &go_data("root", &[]));
    bytes.extend(option(3, &[]));
    bytes.extend(option(6, &go_data("other", &[3])));
    bytes.extend(option(10, &go_data("", &[])));
    bytes.extend(option(11, &[]));
    bytes.extend(option(8, &[]));
    bytes.extend(option(6, &go_data("root", &[])));
    bytes.extend(option(7, &go_data("other", &[])));
    client.send(&bytes);
    let kinds: Vec<u32> = (0..10).map(|_| client.option_reply().1).collect();
    let error = |number: u32| (1 << 31) + number;
    assert_eq!(kinds, [3, 1, 2, 1, error(6), error(3), 1, error(10), 3, 1]);
    assert_eq!(client.option_reply().1, error(6));
    client.send(&option(2, &[]));
    assert_eq!(client.option_reply(), (2, 1, vec![]));
    session.end().unwrap();
}

//! Points 13 to 18: ABORT, LIST, EXPORT_NAME.

use super::super::support::{LIMITS, SIZE, Session, go_data, option, plain_export};
use super::{ACK, INVALID, be32, greeted};
use vmd::nbd::connection::ConnectionError;
use vmd::nbd::handshake::Negotiation;

#[test]
fn point_13_abort() {
    for data in [&b""[..], b"with data"] {
        let mut session = greeted(plain_export());
        session.client.send(&option(2, data));
        assert_eq!(session.client.option_reply(), (2, ACK, vec![]));
        assert!(session.client.is_at_end());
        session.end().unwrap();
    }
    // A client that does not wait for the answer is no error.
    let mut session = greeted(plain_export());
    session.client.send(&option(2, &[]));
    assert!(matches!(session.end(), Ok(()) | Err(ConnectionError::Gone)));
}

#[test]
fn point_14_list() {
    let mut session = greeted(plain_export());
    session.client.send(&option(3, &[]));
    let (_, kind, data) = session.client.option_reply();
    assert_eq!(kind, 2);
    assert!(usize::try_from(be32(&data, 0)).unwrap() <= data.len() - 4);
    assert_eq!(data, b"\0\0\0\x04root");
    assert_eq!(session.client.option_reply(), (3, ACK, vec![]));
    // Where nothing is on offer there is only the acknowledgement.
    let mut out = Vec::new();
    let input = [&3u32.to_be_bytes()[..], &option(3, &[])].concat();
    Negotiation::new().feed(&input, &[], &mut out).unwrap();
    assert_eq!((out.len(), be32(&out, 12)), (20, ACK));
}

#[test]
fn point_15_list_with_data() {
    let mut session = greeted(plain_export());
    session.client.send(&option(3, b"x"));
    assert_eq!(session.client.option_reply().1, INVALID);
    session.client.go_on();
}

#[test]
fn point_16_export_name_of_nothing() {
    for name in [&b"other"[..], b"roo", b"root ", b"\xff"] {
        let mut session = greeted(plain_export());
        session.client.send(&option(1, name));
        assert!(session.client.is_at_end());
    }
}

#[test]
fn point_17_export_name() {
    for (flags, padding) in [(0, 124), (1, 124), (2, 0), (3, 0)] {
        let mut session = Session::new(plain_export(), LIMITS);
        let client = &mut session.client;
        client.greet(flags);
        client.send(&option(1, b"root"));
        assert_eq!(client.receive(), SIZE.to_be_bytes());
        let transmission = u16::from_be_bytes(client.receive());
        assert_eq!(transmission & 1, 1);
        assert_eq!(client.receive_vec(padding), vec![0; padding]);
        assert_eq!(client.read(0, 4).unwrap(), [0; 4], "nothing in between");
    }
}

#[test]
fn point_18_default_export() {
    let mut session = greeted(plain_export());
    session.client.send(&option(6, &go_data("", &[])));
    let unnamed = session.client.option_reply();
    session.client.option_reply();
    session.client.send(&option(6, &go_data("root", &[])));
    assert_eq!(session.client.option_reply(), unnamed);
    session.client.option_reply();
    session.client.send(&option(1, b""));
    assert_eq!(session.client.receive(), SIZE.to_be_bytes());
}

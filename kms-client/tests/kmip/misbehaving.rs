//! Servers that lie, stall, truncate, drip, oversize and reorder: each is its own error, which names server, operation and reason.

use crate::pki::Authority;
use crate::server::{Act, Server};
use crate::session::{BUDGETS, arena, node, node_of, session};
use kms_client::kmip::Budgets;
use kms_client::kmip::fault::{Fault, NodeError, Outcome};
use kms_client::kmip::key_block::KeyFault;
use kms_client::kmip::request::Attribute;
use kms_client::kmip::values::Operation;
use std::sync::Arc;
use std::time::Duration;

/// Short enough for a test of silence.
const SHORT: Budgets = Budgets { request: Duration::from_millis(300), ..BUDGETS };

/// The error of fetching a key from a server that answers Get so. Afterwards the key can be fetched.
fn fetching(act: Act, budgets: Budgets) -> NodeError {
    let authority = Authority::new();
    let server = Server::start(&authority);
    let (node, arena) = (node_of(authority.identity("client"), &server, budgets), arena());
    let uid = session(&node).unwrap().create(None).unwrap();
    server.once(Operation::Get, act);
    let mut talk = session(&node).unwrap();
    let error = talk.get(&uid, &arena).unwrap_err();
    if error.fault.outcome() == Outcome::InDoubt {
        // The connection is not used again: what would come next could be the answer to the first request.
        let again = talk.get(&uid, &arena).unwrap_err();
        assert!(matches!(again.fault, Fault::Closed), "{again}");
    }
    session(&node).unwrap().get(&uid, &arena).unwrap();
    assert_eq!(arena.usage().used, 0, "nothing stays of what was refused");
    let said = error.to_string();
    assert!(said.starts_with(&format!("KMIP server {}: Get: ", server.address)), "{said}");
    error
}

/// The answer with one run of bytes replaced by another of the same length.
fn replaced(from: &str, to: &str) -> Act {
    let (from, to) = (hex::decode(from).unwrap(), hex::decode(to).unwrap());
    assert_eq!(from.len(), to.len());
    Act::Edit(Arc::new(move |mut answer| {
        let at = answer.windows(from.len()).position(|part| part == from).expect("those bytes");
        answer[at..at + to.len()].copy_from_slice(&to);
        answer
    }))
}

#[test]
fn silence_ends_at_the_deadline() {
    let error = fetching(Act::Silent, SHORT);
    assert!(matches!(error.fault, Fault::Silent { got: 0, .. }), "{error}");
    assert!(error.to_string().contains("no whole answer within 300 ms"), "{error}");
}

#[test]
fn bytes_that_drip_do_not_prolong_the_deadline() {
    let error = fetching(Act::Drip(Duration::from_millis(20)), SHORT);
    assert!(matches!(error.fault, Fault::Silent { got: 1.., .. }), "{error}");
}

#[test]
fn a_connection_that_ends_is_told_from_a_cut_answer() {
    for act in [Act::Drop, Act::DoneAndDrop, Act::HalfClose, Act::Truncate(0)] {
        let error = fetching(act, BUDGETS);
        assert!(matches!(error.fault, Fault::Closed), "{error}");
        assert_eq!(error.fault.outcome(), Outcome::InDoubt);
    }
    let error = fetching(Act::Truncate(5), BUDGETS);
    assert!(matches!(error.fault, Fault::Truncated { got: 5, length: 8 }), "{error}");
    let error = fetching(Act::Truncate(100), BUDGETS);
    assert!(matches!(error.fault, Fault::Truncated { got: 100, length: 200.. }), "{error}");
}

#[test]
fn lengths_are_judged_before_anything_is_read() {
    let header = |length: u32| {
        let mut bytes = vec![0x42, 0x00, 0x7B, 1];
        bytes.extend(length.to_be_bytes());
        Act::Raw(bytes)
    };
    for (act, reason) in [
        (header(0xFFFF_FFF0), "a message of 4294967288 bytes, the limit is 1048576"),
        (header(0x0010_0000), "a message of 1048584 bytes"),
        (header(12), "a Structure cannot have 12 bytes"),
        (Act::Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), "where Response Message"),
        (Act::Raw(vec![0; 64]), "where Response Message"),
    ] {
        let error = fetching(act, BUDGETS);
        assert!(matches!(error.fault, Fault::Malformed(_)), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
        assert!(error.to_string().contains("at byte 0"), "{error}");
    }
}

#[test]
fn malformed_items_are_named_with_their_place() {
    // Cryptographic Length, an integer of 4 bytes, made one of 8; the type of Key Material made unknown.
    for (from, to, reason) in [
        ("42002A0200000004", "42002A0200000008", "Cryptographic Length (42002A) at byte"),
        ("4200430800000020", "4200430B00000020", "Key Material (420043) at byte"),
        ("4200430800000020", "4200430800000200", "its 512 bytes and their padding do not fit"),
        ("4200570500000004", "4200570600000004", "a Boolean cannot have 4 bytes"),
    ] {
        let error = fetching(replaced(from, to), BUDGETS);
        assert!(matches!(error.fault, Fault::Malformed(_)), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn answers_to_something_else_do_not_fit() {
    for (from, to, reason) in [
        // Another operation, another id, another version, two answers.
        ("42005C05000000040000000A", "42005C05000000040000000B", "answers Get Attributes"),
        ("4200930800000008434646", "4200930800000008434647", "no answer to Get has its id"),
        ("42006B020000000400000001", "42006B020000000400000004", "version 1.4, asked was 1.1"),
        ("42000D020000000400000001", "42000D020000000400000002", "says 2 answers and has 1"),
        ("42007F050000000400000000", "42007F050000000400000002", "asked again later"),
    ] {
        let error = fetching(replaced(from, to), BUDGETS);
        assert!(matches!(error.fault, Fault::Unfitting(_)), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(error.fault.outcome(), Outcome::InDoubt);
    }
}

#[test]
fn keys_that_are_none_are_refused() {
    let zeros = Act::Edit(Arc::new(|mut answer: Vec<u8>| {
        let tag = hex::decode("4200430800000020").unwrap();
        let at = answer.windows(8).position(|part| part == tag).unwrap() + 8;
        answer[at..at + 32].fill(0);
        answer
    }));
    let cases = [
        (zeros, "all zeros"),
        // The id "1" made "9".
        (replaced("42009407000000013100", "42009407000000013900"), "answered with key \"9\""),
        (replaced("42002A020000000400000100", "42002A020000000400000080"), "128 bits"),
        (replaced("420028050000000400000003", "420028050000000400000002"), "not for AES"),
        (replaced("420042050000000400000001", "420042050000000400000002"), "format 2"),
        (replaced("420057050000000400000002", "420057050000000400000007"), "no symmetric key"),
        // Cryptographic Algorithm made Key Wrapping Data.
        (replaced("4200280500000004", "4200460500000004"), "wrapped by another key"),
        // 32 bytes and no padding made 24 and 8 of padding that is not zero: malformed first of all.
        (replaced("4200430800000020", "4200430800000019"), "padding is not zero"),
    ];
    for (act, reason) in cases {
        let error = fetching(act, BUDGETS);
        assert!(error.to_string().contains(reason), "{error} is not about {reason}");
        if !matches!(error.fault, Fault::Malformed(_)) {
            assert!(matches!(error.fault, Fault::Key(_)), "{error}");
            assert_eq!(error.fault.outcome(), Outcome::Answered);
        }
    }
}

#[test]
fn keys_of_another_length_are_refused() {
    let authority = Authority::new();
    let server = Server::start(&authority);
    let (node, arena) = (node(&authority, &server), arena());
    let mut talk = session(&node).unwrap();
    for length in [0, 16, 24, 31, 33, 64] {
        let uid = talk.create(None).unwrap();
        server.store.lock().unwrap().keys.get_mut(&uid).unwrap().bytes = vec![7; length];
        let error = talk.get(&uid, &arena).unwrap_err();
        let fits = matches!(error.fault, Fault::Key(KeyFault::WrongLength(n)) if n == length);
        assert!(fits, "{error}");
    }
}

#[test]
fn ids_that_cannot_be_asked_for_again_are_refused() {
    let authority = Authority::new();
    let server = Server::start(&authority);
    let node = node(&authority, &server);
    server.once(Operation::Create, replaced("42009407000000013100", "42009407000000012F00"));
    let error = session(&node).unwrap().create(None).unwrap_err();
    assert!(error.to_string().contains("\"/\" cannot be the id of a key"), "{error}");
}

#[test]
fn answers_in_another_order_are_put_right() {
    let authority = Authority::new();
    let server = Server::start(&authority);
    let node = node(&authority, &server);
    let mut talk = session(&node).unwrap();
    let uid = talk.create(None).unwrap();
    // The second of three is refused, and the server turns the order of its answers round.
    let turn = |answer: Vec<u8>| {
        let root = kms_client::kmip::ttlv::Item::parse(&answer).unwrap();
        let mut items: Vec<_> = root.children().collect();
        items[1..].reverse();
        let mut writer = kms_client::kmip::ttlv::Writer::default();
        writer.structure(root.tag(), |w| items.iter().for_each(|item| w.copy(item)));
        writer.finish().unwrap().to_vec()
    };
    server.once(Operation::AddAttribute, Act::Edit(Arc::new(turn)));
    let tags = [Attribute::text("x-A", "1"), Attribute::text("x-B", "2")];
    let taken = talk.add_attributes(&uid, &tags).unwrap();
    assert_eq!(taken, [Ok(()), Ok(())]);
}

#[test]
fn a_message_refused_as_a_whole_refuses_the_batch() {
    // The bytes of PyKMIP 0.11 for operations that it does not have: version 1.0, one item, no operation, no id.
    let bytes = "42007B01000000904200 7A0100000048420069010000002042006A0200000004000000010000000042006B\
        0200000004000000000000000042009209000000080000000068F0000042000D0200000004000000010000000042000F\
        010000003842007F0500000004000000010000000042007E0500000004000000040000000042007D07000000096E6F20\
        737563682E2E00000000000000";
    let bytes = hex::decode(bytes.replace(' ', "")).unwrap();
    let authority = Authority::new();
    let server = Server::start(&authority);
    let node = node(&authority, &server);
    let mut talk = session(&node).unwrap();
    let uid = talk.create(None).unwrap();
    server.once(Operation::AddAttribute, Act::Raw(bytes));
    let tags = [Attribute::text("x-A", "1"), Attribute::text("x-B", "2")];
    let taken = talk.add_attributes(&uid, &tags).unwrap();
    let said: Vec<_> = taken.into_iter().map(|one| one.unwrap_err().to_string()).collect();
    assert_eq!(said, ["Invalid Message (no such..)", "Invalid Message (no such..)"]);
    talk.create(None).unwrap();
}

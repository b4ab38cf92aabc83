//! Sessions with a server that does as it should: every operation, and the choice of a version.

use crate::pki::Authority;
use crate::server::{Act, Server};
use crypto::{Arena, Kek};
use kms_client::kmip::Budgets;
use kms_client::kmip::fault::{Fault, NodeError};
use kms_client::kmip::node::{Node, Session};
use kms_client::kmip::operations::{Told, ToldValue};
use kms_client::kmip::request::Attribute;
use kms_client::kmip::tls::Identity;
use kms_client::kmip::values::{Operation, ResultReason, Revocation, State, Version};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) fn arena() -> Arena {
    Arena::new(64 * 1024).unwrap()
}

/// Times that fit a busy machine, but let tests of silence end.
pub(crate) const BUDGETS: Budgets = Budgets {
    connect: Duration::from_secs(5),
    handshake: Duration::from_secs(10),
    request: Duration::from_secs(10),
    operation: Duration::from_secs(30),
};

pub(crate) fn node_of(identity: Arc<Identity>, server: &Server, budgets: Budgets) -> Node {
    let (host, port) = (server.address.ip().to_string(), server.address.port());
    Node::new(&host, port, None, identity, Version::V1_1, budgets).unwrap()
}

pub(crate) fn node(authority: &Authority, server: &Server) -> Node {
    node_of(authority.identity("client"), server, BUDGETS)
}

pub(crate) fn session(node: &Node) -> Result<Session<'_>, NodeError> {
    node.session(Instant::now() + node.budgets().operation)
}

fn refused(error: &NodeError, reason: ResultReason) {
    assert_eq!(error.fault.reason(), Some(reason), "{error}");
}

/// A key from its making to its end; the same steps are done with every real server.
pub(crate) fn whole_life(session: &mut Session<'_>, arena: &Arena) -> String {
    let uid = session.create(Some("coffer-life")).unwrap();
    assert_eq!(session.state(&uid).unwrap(), Some(State::PreActive));
    session.activate(&uid).unwrap();
    assert_eq!(session.state(&uid).unwrap(), Some(State::Active));
    refused(&session.activate(&uid).unwrap_err(), ResultReason::PermissionDenied);
    let first = session.get(&uid, arena).unwrap().check_value();
    assert_eq!(session.get(&uid, arena).unwrap().check_value(), first);
    assert_eq!(session.locate(Some("coffer-life")).unwrap(), std::slice::from_ref(&uid));
    assert!(session.locate(Some("nobody's")).unwrap().is_empty());
    assert!(session.attribute_list(&uid).unwrap().contains(&"State".to_owned()));
    refused(&session.destroy(&uid).unwrap_err(), ResultReason::PermissionDenied);
    session.revoke(&uid, Revocation::CessationOfOperation, "the test is over").unwrap();
    assert_eq!(session.state(&uid).unwrap(), Some(State::Deactivated));
    assert_eq!(session.get(&uid, arena).unwrap().check_value(), first);
    session.destroy(&uid).unwrap();
    refused(&session.get(&uid, arena).unwrap_err(), ResultReason::ItemNotFound);
    uid
}

#[test]
fn a_key_lives_and_dies() {
    let authority = Authority::new();
    let server = Server::start(&authority);
    let (node, arena) = (node(&authority, &server), arena());
    let mut session = session(&node).unwrap();
    assert_eq!(session.version(), Version::V1_1);
    whole_life(&mut session, &arena);
    assert_eq!(arena.usage().used, 0);
}

#[test]
fn a_key_made_here_comes_back() {
    let authority = Authority::new();
    let server = Server::start(&authority);
    let (node, arena) = (node(&authority, &server), arena());
    let mut session = session(&node).unwrap();
    let made = Kek::generate(&arena).unwrap();
    let uid = session.register(&made, None).unwrap();
    assert_eq!(session.get(&uid, &arena).unwrap().check_value(), made.check_value());
    let other = session.rekey(&uid).unwrap();
    assert_ne!(session.get(&other, &arena).unwrap().check_value(), made.check_value());
}

#[test]
fn tags_are_added_and_read() {
    let authority = Authority::new();
    let server = Server::start(&authority);
    let node = node(&authority, &server);
    let mut session = session(&node).unwrap();
    let uid = session.create(None).unwrap();
    let tags = [Attribute::text("x-Vendor", "Coffer"), Attribute::text("x-Name", "web01")];
    assert_eq!(session.add_attributes(&uid, &tags).unwrap(), [Ok(()), Ok(())]);
    let told = session.attributes(&uid, &["x-Name", "x-None"]).unwrap();
    let expected = Told { name: "x-Name".into(), value: ToldValue::Text("web01".into()) };
    assert_eq!(told, [expected]);
    server.store.lock().unwrap().lacks.push(0x0D);
    let taken = session.add_attributes(&uid, &tags).unwrap();
    assert!(taken.iter().all(Result::is_err), "{taken:?}");
    assert_eq!(session.query().unwrap().vendor.as_deref(), Some("coffer tests"));
}

#[test]
fn a_version_is_agreed_on() {
    let authority = Authority::new();
    let server = Server::start(&authority);
    for (offers, wanted, agreed) in [
        (&[0, 1, 2, 3, 4][..], Version::V1_4, Some(Version::V1_4)),
        (&[0, 1, 2], Version::V1_4, Some(Version::V1_2)),
        (&[2, 3], Version::V1_1, Some(Version::V1_2)),
        (&[0], Version::V1_1, Some(Version::V1_0)),
        (&[7], Version::V1_1, None),
        (&[], Version::V1_1, None),
    ] {
        server.store.lock().unwrap().versions = offers.to_vec();
        let identity = authority.identity("client");
        let port = server.address.port();
        let node = Node::new("127.0.0.1", port, None, identity, wanted, BUDGETS).unwrap();
        match session(&node) {
            Ok(mut session) => {
                assert_eq!(Some(session.version()), agreed);
                session.create(None).unwrap();
                assert_eq!(node.version(), agreed);
            }
            Err(error) => {
                assert!(matches!(error.fault, Fault::NoCommonVersion), "{error}");
                assert_eq!(agreed, None);
            }
        }
    }
    // A server of the first version, which does not know the question.
    server.store.lock().unwrap().lacks.push(0x1E);
    let node = node(&authority, &server);
    assert_eq!(session(&node).unwrap().version(), Version::V1_0);
}

#[test]
fn a_server_that_was_replaced_by_an_older_one_is_found_out() {
    let authority = Authority::new();
    let server = Server::start(&authority);
    let node = node(&authority, &server);
    assert_eq!(session(&node).unwrap().version(), Version::V1_1);
    // It does not know version 1.1 any more.
    server.store.lock().unwrap().versions = vec![0];
    let refuse = |answer: Vec<u8>| {
        let (from, to) = ("42007F050000000400000000", "42007F050000000400000001");
        let (from, to) = (hex::decode(from).unwrap(), hex::decode(to).unwrap());
        let at = answer.windows(from.len()).position(|part| part == from).unwrap();
        let mut answer = answer;
        answer[at..at + to.len()].copy_from_slice(&to);
        // The payload becomes the reason: an enumeration is as long as an empty structure and its padding.
        let tag = hex::decode("42007C01").unwrap();
        let at = answer.windows(4).position(|part| part == tag).unwrap();
        let tail = hex::decode("42007E05000000040000000400000000").unwrap();
        answer.truncate(at);
        answer.extend(tail);
        set_lengths(answer)
    };
    server.once(Operation::Create, Act::Edit(Arc::new(refuse)));
    refused(&session(&node).unwrap().create(None).unwrap_err(), ResultReason::InvalidMessage);
    let mut again = session(&node).unwrap();
    assert_eq!(again.version(), Version::V1_0);
    again.create(None).unwrap();
}

/// Makes the lengths of message and batch item fit what they hold.
fn set_lengths(mut message: Vec<u8>) -> Vec<u8> {
    let item = hex::decode("42000F01").unwrap();
    let at = message.windows(4).position(|part| part == item).unwrap();
    for start in [0, at] {
        let length = u32::try_from(message.len() - start - 8).unwrap();
        message[start + 4..start + 8].copy_from_slice(&length.to_be_bytes());
    }
    message
}

#[test]
fn more_tags_than_fit_one_message_take_two() {
    let authority = Authority::new();
    let server = Server::start(&authority);
    let node = node(&authority, &server);
    let mut session = session(&node).unwrap();
    let uid = session.create(None).unwrap();
    let names: Vec<_> = (0..20).map(|count| format!("x-{count}")).collect();
    let tags: Vec<_> = names.iter().map(|name| Attribute::text(name, "1")).collect();
    assert_eq!(session.add_attributes(&uid, &tags).unwrap().len(), 20);
    assert_eq!(server.store.lock().unwrap().keys[&uid].attributes.len(), 20);
}

//! Certificates that do not fit, on either side, and ports where something else listens: each its own error with a remedy.

use crate::pki::{Authority, now, private};
use crate::server::Server;
use crate::session::{BUDGETS, arena, node, node_of, session};
use crate::store::Store;
use kms_client::kmip::Budgets;
use kms_client::kmip::fault::{Fault, NodeError, Outcome};
use kms_client::kmip::node::Node;
use kms_client::kmip::tls::{Identity, TlsFiles, Trust};
use kms_client::kmip::values::{Operation, Version};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// The error of the first operation: with TLS 1.3 a server can refuse a client only when the client thinks that it is connected.
fn refused(node: &Node) -> NodeError {
    match session(node) {
        Err(error) => error,
        Ok(mut talk) => talk.create(None).unwrap_err(),
    }
}

fn says(error: &NodeError, parts: &[&str]) {
    let said = error.to_string();
    for part in parts {
        assert!(said.contains(part), "{said} does not say {part}");
    }
    assert_eq!(error.fault.outcome(), Outcome::NotSent, "{said}");
}

#[test]
fn a_server_of_another_authority_is_not_trusted() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = Server::start(&theirs);
    let error = refused(&node(&ours, &server));
    assert!(matches!(error.fault, Fault::Untrusted(_)), "{error}");
    says(&error, &["no configured authority has signed it", "coffer key provider trust"]);
}

#[test]
fn a_wrong_name_tells_both_names_and_can_be_set() {
    let authority = Authority::new();
    authority.server("other", &["kms1.example", "kms2.example"], 4000);
    let server = Server::with(&authority, "other", Store::shared());
    let error = refused(&node(&authority, &server));
    assert!(matches!(error.fault, Fault::WrongName { .. }), "{error}");
    says(&error, &["not for 127.0.0.1", "kms1.example", "kms2.example", "set tls_name"]);

    let identity = authority.identity("client");
    let (host, port) = ("127.0.0.1", server.address.port());
    let name = Some("kms2.example");
    let node = Node::new(host, port, name, identity, Version::V1_1, BUDGETS).unwrap();
    session(&node).unwrap().create(None).unwrap();
}

#[test]
fn a_certificate_without_names_is_told_and_can_be_pinned() {
    let authority = Authority::new();
    authority.server("nameless", &[], 4000);
    let server = Server::with(&authority, "nameless", Store::shared());
    let error = refused(&node(&authority, &server));
    says(&error, &["not for 127.0.0.1", "no subject alternative name", "pin it"]);

    let pin = Trust::Pinned(authority.path("nameless.pem"));
    let files = TlsFiles { trust: pin, ..authority.files("client") };
    let identity = Arc::new(Identity::new(files, now));
    session(&node_of(identity, &server, BUDGETS)).unwrap().create(None).unwrap();
}

#[test]
fn only_the_pinned_certificate_is_taken() {
    let authority = Authority::new();
    authority.server("second", &["127.0.0.1"], 4000);
    authority.server("old", &["127.0.0.1"], 2020);
    let pinned = |who: &str| {
        let trust = Trust::Pinned(authority.path(&format!("{who}.pem")));
        Arc::new(Identity::new(TlsFiles { trust, ..authority.files("client") }, now))
    };
    let server = Server::start(&authority);
    session(&node_of(pinned("server"), &server, BUDGETS)).unwrap();
    let error = refused(&node_of(pinned("second"), &server, BUDGETS));
    let (chain, _) = authority.pair("server");
    assert!(matches!(error.fault, Fault::OtherPin { .. }), "{error}");
    says(&error, &[&crypto::sha256_hex(&chain[0]), "none of the pinned ones"]);

    // A pinned certificate can run out as well.
    let old = Server::with(&authority, "old", Store::shared());
    let error = refused(&node_of(pinned("old"), &old, BUDGETS));
    assert!(matches!(error.fault, Fault::ServerExpired { days: 1000.. }), "{error}");
}

#[test]
fn certificates_that_ran_out_are_told_on_both_sides() {
    let authority = Authority::new();
    authority.server("old", &["127.0.0.1"], 2020);
    authority.client("old-client", 2020);
    let server = Server::with(&authority, "old", Store::shared());
    let error = refused(&node(&authority, &server));
    assert!(matches!(error.fault, Fault::ServerExpired { days: 1000.. }), "{error}");
    says(&error, &["ran out", "the server needs a new one"]);

    let server = Server::start(&authority);
    let error = refused(&node_of(authority.identity("old-client"), &server, BUDGETS));
    assert!(matches!(error.fault, Fault::ClientExpired { days: 1000.., .. }), "{error}");
    says(&error, &["our certificate ran out", "CertificateExpired", "import a new one"]);

    // A clock that is far behind.
    let early = Arc::new(Identity::new(authority.files("client"), || 86_400));
    let error = refused(&node_of(early, &server, BUDGETS));
    assert!(matches!(error.fault, Fault::ServerTooYoung), "{error}");
}

#[test]
fn a_client_that_the_server_does_not_take_is_told() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = Server::start(&theirs);
    // We trust the server, but it does not know who signed our certificate.
    let trust = Trust::Authority(theirs.path("ca.pem"));
    let files = TlsFiles { trust, ..ours.files("client") };
    let error = refused(&node_of(Arc::new(Identity::new(files, now)), &server, BUDGETS));
    assert!(matches!(error.fault, Fault::ClientRejected { .. }), "{error}");
    says(&error, &["does not take our certificate", "UnknownCA"]);
    // A certificate for servers is none for clients.
    let error = refused(&node_of(theirs.identity("server"), &server, BUDGETS));
    assert!(matches!(error.fault, Fault::ClientRejected { .. }), "{error}");
}

/// A listener that does `act` with every connection.
fn listener(act: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            act(socket);
        }
    });
    port
}

fn at(authority: &Authority, host: &str, port: u16, budgets: Budgets) -> NodeError {
    let identity = authority.identity("client");
    let node = Node::new(host, port, None, identity, Version::V1_1, budgets).unwrap();
    refused(&node)
}

#[test]
fn whatever_else_is_at_the_address_is_told() {
    let authority = Authority::new();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = at(&authority, "127.0.0.1", closed, BUDGETS);
    assert!(matches!(error.fault, Fault::ConnectionRefused), "{error}");
    says(&error, &["nobody listens there", "check the port"]);

    let error = at(&authority, "no-such-host.invalid", 5696, BUDGETS);
    assert!(matches!(error.fault, Fault::Resolve(_)), "{error}");
    says(&error, &["no-such-host.invalid:5696", "its name has no address"]);

    let silent = listener(|mut socket| drop(socket.read_to_end(&mut Vec::new())));
    let short = Budgets { handshake: Duration::from_millis(300), ..BUDGETS };
    let error = at(&authority, "127.0.0.1", silent, short);
    assert!(matches!(error.fault, Fault::HandshakeTimeout(_)), "{error}");

    let plain = listener(|mut socket| {
        socket.write_all(b"220 mail.example ESMTP\r\n").unwrap();
        let _ = socket.read_to_end(&mut Vec::new());
    });
    let error = at(&authority, "127.0.0.1", plain, BUDGETS);
    assert!(matches!(error.fault, Fault::NotTls), "{error}");

    let hanging_up = listener(drop);
    let error = at(&authority, "127.0.0.1", hanging_up, BUDGETS);
    assert!(matches!(error.fault, Fault::Connect(_)), "{error}");

    // What a server without a common suite says: the alert handshake_failure.
    let alert = listener(|mut socket| {
        let _ = socket.read(&mut [0; 4096]);
        socket.write_all(&[0x15, 3, 3, 0, 2, 2, 40]).unwrap();
        let _ = socket.read_to_end(&mut Vec::new());
    });
    let error = at(&authority, "127.0.0.1", alert, BUDGETS);
    assert!(matches!(error.fault, Fault::NoCommonSuite(_)), "{error}");
    says(&error, &["HandshakeFailure", "ECDHE and AES-GCM"]);
}

#[test]
fn changed_files_count_from_the_next_connection_on() {
    let authority = Authority::new();
    let server = Server::start(&authority);
    let identity = authority.identity("client");
    let node = node_of(Arc::clone(&identity), &server, BUDGETS);
    session(&node).unwrap();
    let first = identity.expiries().certificate.unwrap();
    // A new certificate whose key is not there yet: the old pair stays in force.
    authority.client("next", 3000);
    fs::rename(authority.path("next.pem"), authority.path("client.pem")).unwrap();
    session(&node).unwrap().create(None).unwrap();
    assert_eq!(identity.expiries().certificate, Some(first));
    let problem = identity.problem().unwrap().to_string();
    assert!(problem.contains("is not the key of"), "{problem}");
    // The key comes.
    fs::rename(authority.path("next.key"), authority.path("client.key")).unwrap();
    session(&node).unwrap().create(None).unwrap();
    assert!(identity.expiries().certificate.unwrap().until < first.until);
    assert!(identity.problem().is_none());
    // What is removed stays in force as well, until something new is there.
    fs::remove_file(authority.path("client.key")).unwrap();
    session(&node).unwrap().create(None).unwrap();
}

#[test]
fn files_of_no_use_are_named_with_a_remedy() {
    let authority = Authority::new();
    let server = Server::start(&authority);
    let error = |files: TlsFiles| {
        let node = node_of(Arc::new(Identity::new(files, now)), &server, BUDGETS);
        session(&node).map(drop).unwrap_err()
    };
    let good = || authority.files("client");
    private(&authority.path("text"), "no PEM");
    authority.client("other", 4000);
    let readable = authority.path("readable.key");
    fs::copy(authority.path("client.key"), &readable).unwrap();
    fs::set_permissions(&readable, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let cases = [
        (TlsFiles { certificate: "/no/such".into(), ..good() }, "/no/such cannot be read"),
        (TlsFiles { certificate: authority.path("text"), ..good() }, "no certificate in PEM form"),
        (TlsFiles { key: authority.path("other.key"), ..good() }, "is not the key of"),
        (TlsFiles { key: authority.path("text"), ..good() }, "client key"),
        (TlsFiles { key: readable, ..good() }, "mode 0640"),
        (TlsFiles { key: "/dev/null".into(), ..good() }, "is not a regular file"),
        (
            TlsFiles { trust: Trust::Authority(authority.path("text")), ..good() },
            "file of the authorities",
        ),
        (
            TlsFiles { trust: Trust::Pinned(authority.path("text")), ..good() },
            "file of the pinned certificates",
        ),
    ];
    for (files, reason) in cases {
        let error = error(files);
        assert!(matches!(error.fault, Fault::Identity(_)), "{error}");
        says(&error, &[reason]);
    }
}

#[test]
fn every_authority_of_a_bundle_counts() {
    let (first, second) = (Authority::new(), Authority::new());
    let bundle = ["ca.pem"].map(|name| fs::read_to_string(first.path(name)).unwrap()).concat()
        + &fs::read_to_string(second.path("ca.pem")).unwrap();
    fs::write(first.path("bundle.pem"), bundle).unwrap();
    let server = Server::start(&second);
    let trust = Trust::Authority(first.path("bundle.pem"));
    let files = TlsFiles { trust, ..second.files("client") };
    let node = node_of(Arc::new(Identity::new(files, now)), &server, BUDGETS);
    let uid = session(&node).unwrap().create(None).unwrap();
    session(&node).unwrap().get(&uid, &arena()).unwrap();
    assert_eq!(server.store.lock().unwrap().count(Operation::Get), 1);
}

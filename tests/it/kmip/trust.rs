//! The ways to trust, each by its verb, each with a server that then gives keys.

use super::server::{KeyServer, skipped};
use super::{host_of, pin, set_up};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tests::host::Host;
use tests::needs;

/// The server takes this host: both sides are trusted, a key is fetched, and a VM gets one.
fn is_taken(host: &Host, vm: &str) {
    let status = host.json(&["key", "provider", "status"]);
    let server = &status[0]["servers"][0];
    for fact in ["up", "trusted", "trusts_us", "key_fetched"] {
        assert_eq!(server[fact], true, "{fact}: {status}");
    }
    host.coffer(&["vm", "create", vm]).ok();
    host.coffer(&["vm", "unlock", vm]).ok();
}

/// The private key is there for its owner alone, and is never shown.
fn key_is_private(host: &Host, shown: &str) {
    let key = host.state_dir().join("kmip/client.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(!shown.contains("PRIVATE"), "a private key was printed");
    assert!(!host.log().contains("PRIVATE"), "a private key is in the log");
}

#[test]
fn a_signed_request_and_a_pinned_server() {
    needs!(Root);
    if skipped("kmip::trust::a_signed_request_and_a_pinned_server") {
        return;
    }
    let (host, server) = host_of(KeyServer::start);
    // An answer without a question.
    let (stray, _) = server.pair("stray");
    host.coffer(&["key", "provider", "import", stray.to_str().unwrap()])
        .refused(8, &["coffer key provider csr"]);
    set_up(&host, &server, "host1");
    key_is_private(&host, "");
    is_taken(&host, "web01");
    assert!(server.has_seen("host1"));
    // Another request leaves what is in use; an answer for another key changes nothing.
    let request = host.coffer(&["key", "provider", "csr", "host1-new"]).ok();
    assert!(request.contains("BEGIN CERTIFICATE REQUEST"), "{request}");
    key_is_private(&host, &request);
    host.coffer(&["key", "provider", "import", stray.to_str().unwrap()])
        .refused(8, &["is not the key of"]);
    is_taken(&host, "web02");
    let signed = host.scratch().join("again.pem");
    fs::write(&signed, server.sign(&request)).unwrap();
    host.coffer(&["key", "provider", "import", signed.to_str().unwrap()]).ok();
    host.coffer(&["key", "provider", "status"]).ok();
    assert!(server.has_seen("host1-new"), "the new certificate counts without a restart");
}

#[test]
fn a_self_signed_certificate_that_the_server_is_told() {
    needs!(Root);
    if skipped("kmip::trust::a_self_signed_certificate_that_the_server_is_told") {
        return;
    }
    let (host, mut server) = host_of(KeyServer::start);
    let certificate = host.coffer(&["key", "provider", "self-signed", "host1"]).ok();
    assert!(certificate.contains("BEGIN CERTIFICATE"), "{certificate}");
    key_is_private(&host, &certificate);
    pin(&host, &server);
    // The server was not told yet.
    let status = host.json(&["key", "provider", "status"]);
    let shown = &status[0]["servers"][0];
    assert_eq!((&shown["trusted"], &shown["trusts_us"]), (&true.into(), &false.into()), "{status}");
    assert_eq!(shown["reason"], "KeyStateClusterInvalid", "{status}");
    server.admit(&certificate);
    is_taken(&host, "web01");
    assert!(server.has_seen("host1"));
}

#[test]
fn a_pair_that_the_server_made() {
    needs!(Root);
    if skipped("kmip::trust::a_pair_that_the_server_made") {
        return;
    }
    let (host, server) = host_of(KeyServer::start);
    let (certificate, key) = server.pair("host1");
    let (_, other) = server.pair("host2");
    let upload = |key: &std::path::Path| {
        let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
        host.coffer(&["key", "provider", "upload", certificate, key])
    };
    upload(&other).refused(8, &["is not the key of"]);
    fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).unwrap();
    upload(&other).refused(8, &["can be used by group or others"]);
    upload(&key).ok();
    key_is_private(&host, "");
    pin(&host, &server);
    is_taken(&host, "web01");
    assert!(server.has_seen("host1"));
}

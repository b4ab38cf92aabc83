//! Hosts whose keys come from PyKMIP: trust set up by the verbs, VMs that use its keys, the server lost and found again, and
//! other hosts.

mod account;
mod ending;
mod hosts;
mod server;
mod slow;
mod trust;

use server::{KeyServer, skipped};
use std::fs;
use std::path::Path;
use tests::host::Host;
use tests::{needs, wait};

/// The part of the configuration that names these servers, with `more` settings.
fn config(servers: &[&KeyServer], more: &str) -> String {
    let named = servers.iter().map(|server| {
        format!("[[provider.kmip.server]]\nhost = \"127.0.0.1\"\nport = {}\n", server.port)
    });
    let servers: String = named.collect();
    format!("[provider.kmip]\ntimeout_seconds = 10\n{more}\n{servers}")
}

/// A host that knows the server, but not yet whom to trust, nor has it a certificate.
fn host_of(server: impl FnOnce(&Path) -> KeyServer) -> (Host, KeyServer) {
    let mut host = Host::prepare(|scratch| scratch.join("store"));
    let server = server(&host.scratch().join("kms"));
    host.options.config = config(&[&server], "");
    host.write_config();
    host.init();
    host.up();
    (host, server)
}

/// Certificate and trust by the verbs.
fn set_up(host: &Host, server: &KeyServer, name: &str) {
    let request = host.coffer(&["key", "provider", "csr", name]).ok();
    let signed = host.scratch().join("signed.pem");
    fs::write(&signed, server.sign(&request)).unwrap();
    host.coffer(&["key", "provider", "import", signed.to_str().unwrap()]).ok();
    pin(host, server);
}

/// Looks at the certificate of a server, and pins it by what was seen.
fn pin(host: &Host, server: &KeyServer) {
    let address = format!("127.0.0.1:{}", server.port);
    let shown = host.json(&["key", "provider", "trust", &address]);
    assert_eq!(shown["pinned"], false);
    let wrong = "00".repeat(32);
    host.coffer(&["key", "provider", "trust", &address, "--pin", &wrong])
        .refused(6, &[shown["sha256"].as_str().unwrap()]);
    let seen = shown["sha256"].as_str().unwrap();
    let pinned = host.json(&["key", "provider", "trust", &address, "--pin", seen]);
    assert_eq!(pinned["pinned"], true);
}

#[test]
fn keys_come_from_a_kmip_server() {
    needs!(Root);
    if skipped("kmip::keys_come_from_a_kmip_server") {
        return;
    }
    let (mut host, mut server) = host_of(KeyServer::start);
    // Nothing is set up yet: no key, and the status says what is missing.
    host.coffer(&["vm", "create", "web01"]).refused(8, &["client certificate", "client.pem"]);
    let status = host.coffer(&["key", "provider", "status"]).ok();
    assert!(status.contains("client.pem"), "{status}");
    host.coffer(&["key", "provider", "trust", "other.example"])
        .refused(4, &["none of the servers"]);
    set_up(&host, &server, "host1");

    let status = host.json(&["key", "provider", "status"]);
    let provider = &status[0];
    assert_eq!((&provider["name"], &provider["default"]), (&"kmip".into(), &true.into()));
    assert_eq!(provider["servers"][0]["key_fetched"], true, "{status}");
    assert_eq!(provider["servers"][0]["trusts_us"], true, "{status}");

    host.coffer(&["vm", "create", "web01"]).ok();
    host.coffer(&["disk", "create", "web01", "data", "--size", "1M"]).ok();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    let shown = host.json(&["vm", "show", "web01"]);
    assert!(shown["key_ids"][0].as_str().unwrap().starts_with("kmip/"), "{shown}");

    // The server is lost: the VM runs on, but what needs a key that is not here waits for it.
    server.down();
    let status = host.json(&["key", "provider", "status"]);
    assert_eq!(status[0]["available"], false, "{status}");
    assert_eq!(status[0]["servers"][0]["reason"], "KeyStateClusterUnreachable");
    host.coffer(&["vm", "create", "web02"]).refused(8, &["nobody listens there"]);
    assert_eq!(host.state("web01"), "running");
    host.coffer(&["disk", "detach", "web01", "data"]).ok();
    host.coffer(&["vm", "lock", "web01"]).ok();
    assert_eq!(host.stop(), Some(0));
    host.up();
    host.coffer(&["vm", "unlock", "web01"])
        .refused(7, &["provider-unavailable (KeyStateClusterUnreachable)"]);

    // It is back, and so is the VM.
    server.up();
    wait::until("the key can be had again", wait::STEP * 2, || {
        (host.coffer(&["vm", "unlock", "web01"]).code == 0).then_some(())
    });
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    host.coffer(&["key", "rotate"]).ok();
}

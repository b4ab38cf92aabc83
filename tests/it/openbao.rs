//! A host whose keys stay in a real OpenBao: made, used, rotated, and out of reach for a while.

use crate::bao_servers::Servers;
use serde_json::json;
use std::fs;
use tests::host::Host;
use tests::nbd::Nbd;
use tests::{needs, wait};

/// A host that logs in with the certificate of `client`.
fn host_of(servers: &Servers) -> Host {
    let mut host = Host::prepare(|scratch| scratch.join("store"));
    let path = |name: &str| servers.authority.path(name);
    let (certificate, key, ca) = (path("client.pem"), path("client.key"), path("ca.pem"));
    let port = servers.ports()[0];
    host.options.config = format!(
        "[provider.openbao]\nrole = \"coffer\"\ncertificate = {certificate:?}\nkey = {key:?}\nca = {ca:?}\n\
         [[provider.openbao.server]]\nhost = \"127.0.0.1\"\nport = {port}\n"
    );
    host.write_config();
    host.init();
    host.up();
    host
}

/// The versions of the key that wrap the safe and the disk.
fn versions(host: &Host) -> Vec<String> {
    let version = |file: &str| {
        let text = fs::read_to_string(host.file("web01", file)).unwrap();
        assert!(text.contains(r#""features":["transit"]"#), "{text}");
        assert!(text.contains(r#""alg":"transit-aes256-gcm96""#), "{text}");
        let blob = text.split("vault:").nth(1).unwrap();
        blob.split(':').next().unwrap().to_owned()
    };
    ["vm.safe", "disks/data.disk"].map(version).to_vec()
}

fn holds(host: &Host, byte: u8) {
    let mut nbd = Nbd::open(&host.socket("web01", "data"), "data").unwrap();
    assert!(nbd.read(0, 8192).unwrap() == [byte; 8192]);
}

#[test]
fn keys_stay_in_openbao() {
    needs!(Root);
    let Some(servers) = Servers::start(1, true) else { return };
    let mut host = host_of(&servers);
    let status = host.json(&["key", "provider", "status"]);
    let provider = &status[0];
    assert_eq!((&provider["name"], &provider["kind"]), (&json!("openbao"), &json!("openbao")));
    assert_eq!((&provider["default"], &provider["available"]), (&json!(true), &json!(true)));
    let server = &provider["servers"][0];
    for what in ["up", "trusted", "trusts_us", "key_fetched"] {
        assert_eq!(server[what], true, "{what}: {status}");
    }
    assert!(server["latency_ms"].is_u64() && server["certificate_days"].is_i64(), "{status}");

    host.coffer(&["vm", "create", "web01"]).ok();
    host.coffer(&["disk", "create", "web01", "data", "--size", "1M"]).ok();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    let mut nbd = Nbd::open(&host.socket("web01", "data"), "data").unwrap();
    nbd.write(0, &[0x42; 8192]).unwrap();
    nbd.flush().unwrap();
    drop(nbd);
    let key = host.json(&["vm", "show", "web01"])["key_ids"][0].as_str().unwrap().to_owned();
    assert!(key.starts_with("openbao/coffer-"), "{key}");
    assert_eq!(host.json(&["key", "status"])["keys"][0]["keyring"], "remote");
    assert_eq!(versions(&host), ["v1", "v1"]);

    // A new hostd adopts the VM; a new vmd gets its keys from OpenBao.
    host.kill();
    host.up();
    assert_eq!(host.state("web01"), "running");
    host.kill_vmds();
    wait::until("the disk is served again", wait::STEP, || {
        Nbd::open(&host.socket("web01", "data"), "data").ok()?.read(0, 1).ok()
    });
    holds(&host, 0x42);

    // A rotation is a new version of the key; what the server rotated is followed.
    let report = host.json(&["key", "rotate", "--vm", "web01"]);
    assert_eq!(report["vms"][0]["rewrapped"], 2, "{report}");
    assert_eq!(report["vms"][0]["key_id"], key.as_str());
    assert_eq!(versions(&host), ["v2", "v2"]);
    let name = key.split('/').nth(1).unwrap();
    servers.does(0, &format!("POST transit/keys/{name}/rotate"), json!({}));
    assert_eq!(host.json(&["key", "rotate", "--rewrap"])["vms"][0]["rewrapped"], 2);
    assert_eq!(versions(&host), ["v3", "v3"]);
    assert_eq!(host.json(&["key", "rotate", "--rewrap"])["vms"][0]["rewrapped"], 0);

    out_of_reach(&servers, &mut host);
    no_right_any_more(&servers, &host);
}

/// Sealed, the VM runs on, and nothing opens that is not open; unsealed, all is well.
fn out_of_reach(servers: &Servers, host: &mut Host) {
    servers.does(0, "POST sys/seal", json!({}));
    servers.wait_for(0, &[503]);
    holds(host, 0x42);
    host.coffer(&["vm", "create", "web02"]).refused(8, &["127.0.0.1", "it is sealed"]);
    let status = host.json(&["key", "provider", "status"]);
    assert_eq!(status[0]["available"], false, "{status}");
    assert_eq!(status[0]["servers"][0]["reason"], "KeyStateClusterUnreachable");
    host.coffer(&["disk", "detach", "web01", "data"]).ok();
    host.coffer(&["vm", "lock", "web01"]).ok();
    assert_eq!(host.stop(), Some(0));
    host.up();
    host.coffer(&["vm", "unlock", "web01"]).refused(7, &["provider-unavailable", "sealed"]);
    servers.unseal(0);
    servers.wait_for(0, &[200]);
    wait::until("the key can be had again", wait::STEP, || {
        (host.coffer(&["vm", "unlock", "web01"]).code == 0).then_some(())
    });
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    holds(host, 0x42);
}

/// Without the right to decrypt, the VM cannot be opened again, and the reason says which right that is.
fn no_right_any_more(servers: &Servers, host: &Host) {
    servers.policy("path \"transit/keys/coffer-*\" { capabilities = [\"read\"] }");
    host.coffer(&["disk", "detach", "web01", "data"]).ok();
    host.coffer(&["vm", "lock", "web01"]).ok();
    let said = host.coffer(&["vm", "unlock", "web01"]);
    said.refused(7, &["permission denied", "update on transit/decrypt/coffer-"]);
    let status = host.json(&["key", "provider", "status"]);
    assert_eq!(status[0]["servers"][0]["reason"], "NoPermissionToAccessKeyProvider", "{status}");
}

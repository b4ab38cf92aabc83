//! Keys that are taken back and destroyed at a key server, and the VMs that are in the way.

use super::server::{KeyServer, skipped};
use super::{host_of, set_up};
use tests::host::Host;
use tests::needs;

fn key_of(host: &Host, vm: &str) -> String {
    host.json(&["vm", "show", vm])["key_ids"][0].as_str().unwrap().to_owned()
}

#[test]
fn a_key_is_taken_back_and_destroyed_when_nothing_uses_it() {
    needs!(Root);
    if skipped("kmip::ending::a_key_is_taken_back_and_destroyed_when_nothing_uses_it") {
        return;
    }
    let (host, server) = host_of(KeyServer::start);
    set_up(&host, &server, "host1");
    host.coffer(&["vm", "create", "web01"]).ok();
    host.coffer(&["disk", "create", "web01", "data", "--size", "1M"]).ok();
    host.coffer(&["vm", "create", "web02"]).ok();
    let old = key_of(&host, "web01");
    for verb in ["revoke", "destroy"] {
        host.coffer(&["key", verb, &old]).refused(2, &["--yes"]);
        host.coffer(&["key", verb, &old, "--yes"])
            .refused(6, &["web01/vm.safe", "web01/disks/data.disk", "key rotate"]);
    }
    host.coffer(&["key", "rotate", "--vm", "web01"]).ok();
    assert_ne!(key_of(&host, "web01"), old);
    // A copy of the VM from before the rotation would need the old key.
    let copy = host.store().join("web01.old");
    std::fs::create_dir(&copy).unwrap();
    let safe = std::fs::read_to_string(host.file("web02", "vm.safe")).unwrap();
    let other = key_of(&host, "web02");
    std::fs::write(
        copy.join("vm.safe"),
        safe.replace(&format!("\"{other}\""), &format!("\"{old}\"")),
    )
    .unwrap();
    host.coffer(&["key", "revoke", &old, "--yes"]).refused(6, &["web01.old/vm.safe"]);
    std::fs::remove_dir_all(&copy).unwrap();

    // First it is taken back, which other hosts can see, and only then destroyed.
    host.coffer(&["key", "destroy", &old, "--yes"]).refused(12, &["key revoke"]);
    let revoked = host.json(&["key", "revoke", &old, "--why", "web01 has another one", "--yes"]);
    assert_eq!(revoked["servers"][0]["state"], "Deactivated", "{revoked}");
    assert_eq!((&revoked["datastores"][0], &revoked["files"]), (&"local".into(), &3.into()));
    // Once more changes nothing.
    host.coffer(&["key", "revoke", &old, "--yes"]).ok();
    let destroyed = host.json(&["key", "destroy", &old, "--yes"]);
    assert_eq!(destroyed["servers"][0]["state"], "not found", "{destroyed}");
    host.coffer(&["key", "destroy", &old, "--yes"]).refused(4, &["was not found"]);
    let log = host.log();
    for verb in ["key-revoke", "key-destroy"] {
        let line = log.lines().find(|line| line.contains(verb) && line.contains("done"));
        assert!(line.is_some_and(|line| line.contains(&old)), "no audit line of {verb}: {log}");
    }
    // The VMs have what they need.
    for vm in ["web01", "web02"] {
        host.coffer(&["vm", "lock", vm]).ok();
        host.coffer(&["vm", "unlock", vm]).ok();
    }
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    host.coffer(&["key", "revoke", "nowhere/1", "--yes"]).refused(4, &["nowhere"]);
}

#[test]
fn a_key_that_is_taken_back_elsewhere_opens_and_is_an_alarm() {
    needs!(Root);
    if skipped("kmip::ending::a_key_that_is_taken_back_elsewhere_opens_and_is_an_alarm") {
        return;
    }
    let (mut host, server) = host_of(KeyServer::start);
    set_up(&host, &server, "host1");
    host.coffer(&["vm", "create", "web01"]).ok();
    let key = key_of(&host, "web01");
    // Somebody takes it back at the server, for whom this host's look is no obstacle: its datastore is elsewhere.
    let moved = host.scratch().join("elsewhere");
    assert_eq!(host.stop(), Some(0));
    std::fs::rename(host.file("web01", ""), &moved).unwrap();
    host.up();
    host.coffer(&["key", "revoke", &key, "--compromised", "--yes"]).ok();
    assert_eq!(host.stop(), Some(0));
    std::fs::rename(&moved, host.store().join("web01")).unwrap();
    host.up();
    // It opens, makes nothing new, and is told; another key ends that.
    host.coffer(&["vm", "unlock", "web01"]).ok();
    host.coffer(&["disk", "create", "web01", "data", "--size", "1M"])
        .refused(12, &["compromised", "key rotate"]);
    let told = tests::wait::until("the alarm", tests::wait::STEP, || {
        let warnings = host.json(&["host", "status"])["warnings"].to_string();
        warnings.contains("compromised").then_some(warnings)
    });
    assert!(told.contains(&key) && told.contains("key rotate"), "{told}");
    host.coffer(&["key", "rotate"]).ok();
    host.coffer(&["disk", "create", "web01", "data", "--size", "1M"]).ok();
}

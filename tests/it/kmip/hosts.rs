//! Two hosts, each with an identity of its own at the key servers, and the VMs that go from one to the other.

use super::server::{KeyServer, skipped};
use super::{config, set_up};
use std::fs;
use std::os::unix::fs::FileExt;
use tests::host::{Host, pattern};
use tests::nbd::Nbd;
use tests::{needs, wait};

/// The rules that the servers have for keys of hosts.
const SHARED: &str = "operation_policy = \"hosts\"";

/// A host that runs, with its certificate and its trust in the servers set up under `name`.
fn host(mut host: Host, name: &str, servers: &[&KeyServer], more: &str) -> Host {
    host.options.config = config(servers, more);
    host.write_config();
    host.init();
    host.up();
    set_up(&host, servers[0], name);
    host
}

/// What a machine that loses its power leaves: storage, and servers that go on.
fn lose(host: &mut Host) {
    host.kill();
    host.kill_vmds();
}

#[test]
fn a_vm_made_through_one_server_opens_on_another_host_through_the_other() {
    needs!(Root, Fuse);
    if skipped("kmip::a_vm_made_through_one_server_opens_on_another_host_through_the_other") {
        return;
    }
    let prepared = Host::prepare(|scratch| scratch.join("store"));
    let mut near = KeyServer::start(&prepared.scratch().join("kms"));
    let far = near.twin();
    let mut one = host(prepared, "machine-one", &[&near, &far], SHARED);
    one.coffer(&["vm", "create", "web01"]).ok();
    one.coffer(&["disk", "create", "web01", "data", "--size", "4M"]).ok();
    one.coffer(&["disk", "attach", "web01", "data"]).ok();
    let written = pattern(1 << 20, 7);
    let mut nbd = Nbd::open(&one.socket("web01", "data"), "data").unwrap();
    for (index, part) in written.chunks(64 << 10).enumerate() {
        nbd.write(u64::try_from(index).unwrap() << 16, part).unwrap();
    }
    nbd.flush().unwrap();
    drop(nbd);
    one.coffer(&["vm", "mount", "web01"]).ok();
    let note = fs::File::create(one.home("web01").join("note")).unwrap();
    note.write_all_at(b"made on machine one", 0).unwrap();
    note.sync_all().unwrap();
    drop(note);
    let status = one.json(&["key", "provider", "status"]);
    assert_eq!(status[0]["servers"][1]["key_fetched"], true, "{status}");
    assert!(near.has_seen("machine-one"));

    // The machine and the server that made the key are lost.
    lose(&mut one);
    near.down();
    let two = host(Host::prepare(|_| one.store().to_owned()), "machine-two", &[&far, &near], "");
    wait::until("the other host has the VM's key", wait::STEP, || {
        (two.coffer(&["vm", "unlock", "web01"]).code == 0).then_some(())
    });
    two.coffer(&["disk", "attach", "web01", "data"]).ok();
    let mut nbd = Nbd::open(&two.socket("web01", "data"), "data").unwrap();
    let mut found = Vec::new();
    for index in 0..16_u64 {
        found.extend(nbd.read(index << 16, 64 << 10).unwrap());
    }
    assert!(found == written, "the disk has other content on the second host");
    drop(nbd);
    two.coffer(&["vm", "mount", "web01"]).refused(6, &["--force"]);
    two.coffer(&["vm", "mount", "web01", "--force"]).ok();
    let note = fs::read_to_string(two.home("web01").join("note")).unwrap();
    assert_eq!(note, "made on machine one");
    assert!(far.has_seen("machine-two"), "it must not pass for the first host");
    let status = two.json(&["key", "provider", "status"]);
    assert_eq!(status[0]["servers"][1]["reason"], "KeyStateClusterUnreachable", "{status}");
}

/// Without rules that let them, servers give a key to the host that made it and to no other.
#[test]
fn a_host_that_may_not_have_a_key_is_told_so() {
    needs!(Root);
    if skipped("kmip::a_host_that_may_not_have_a_key_is_told_so") {
        return;
    }
    let prepared = Host::prepare(|scratch| scratch.join("store"));
    let server = KeyServer::start(&prepared.scratch().join("kms"));
    let mut one = host(prepared, "machine-one", &[&server], "");
    one.coffer(&["vm", "create", "web01"]).ok();
    lose(&mut one);
    let two = host(Host::prepare(|_| one.store().to_owned()), "machine-two", &[&server], "");
    two.coffer(&["vm", "unlock", "web01"])
        .refused(7, &["fetch-failed (NoPermissionToAccessKeyProvider)", "Permission Denied"]);
}

//! Locked and unlocked: what a lock ends, what it refuses, and the reasons it gives.

use std::fs;
use tests::client::Client;
use tests::host::{Host, PASSPHRASE};
use tests::nbd::Nbd;
use tests::needs;
use tests::scratch::mounts_below;

fn host_with_disk() -> Host {
    let host = Host::start();
    host.coffer(&["vm", "create", "web01"]).ok();
    host.coffer(&["disk", "create", "web01", "data", "--size", "1M"]).ok();
    host
}

/// The reason of a lock as `vm show --json` tells it.
fn reason(host: &Host) -> (String, String) {
    let vm = host.json(&["vm", "show", "web01"]);
    let text = |field: &str| vm["lock"][field].as_str().unwrap_or_default().to_owned();
    (text("code"), text("key_id"))
}

/// Verbs that need the keys.
const NEED_KEYS: [&[&str]; 3] = [
    &["vm", "mount", "web01"],
    &["disk", "attach", "web01", "data"],
    &["disk", "create", "web01", "more", "--size", "1M"],
];

#[test]
fn a_locked_vm_refuses_with_reason_and_key_until_unlocked() {
    needs!(Root);
    let host = host_with_disk();
    let key = host.json(&["vm", "show", "web01"])["key_ids"][0].as_str().unwrap().to_owned();
    host.coffer(&["vm", "lock", "web01"]).ok();
    assert_eq!(host.state("web01"), "locked");
    assert_eq!(reason(&host), ("locked-by-operator".into(), key.clone()));
    for verb in &NEED_KEYS {
        host.coffer(verb).refused(7, &["locked", "coffer vm unlock web01"]);
    }
    let said = host.coffer(&["--json", "vm", "mount", "web01"]);
    assert_eq!(said.code, 7, "{said}");
    let error: serde_json::Value = serde_json::from_str(&said.err).unwrap();
    assert!(said.err.contains("locked-by-operator") && said.err.contains(&key), "{error}");

    host.coffer(&["vm", "unlock", "web01"]).ok();
    assert_eq!(host.state("web01"), "unlocked");
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
}

#[test]
fn a_lock_outlives_hostd() {
    needs!(Root);
    let mut host = host_with_disk();
    host.coffer(&["vm", "lock", "web01"]).ok();
    host.kill();
    host.up();
    assert_eq!(host.state("web01"), "locked");
    host.coffer(&["vm", "mount", "web01"]).refused(7, &["locked"]);
    host.coffer(&["vm", "unlock", "web01"]).ok();
    host.kill();
    host.up();
    assert_eq!(host.state("web01"), "unlocked");
}

#[test]
fn a_vm_in_use_is_locked_only_by_force() {
    needs!(Root, Fuse, Program("qemu-io"));
    let host = host_with_disk();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    host.coffer(&["vm", "mount", "web01"]).ok();
    let client = Client::connect(&host, "web01", "data");
    let open = fs::File::create(host.home("web01").join("open")).unwrap();

    host.coffer(&["vm", "lock", "web01"]).refused(6, &["web01", "--force"]);
    assert_eq!(host.state("web01"), "running");
    assert!(host.home("web01").join("open").exists());

    host.coffer(&["vm", "lock", "web01", "--force"]).ok();
    assert_eq!(host.state("web01"), "locked");
    assert!(host.vmds().is_empty(), "a vmd still holds the keys");
    assert!(mounts_below(&host.run_dir()).is_empty());
    assert!(Nbd::open(&host.socket("web01", "data"), "data").is_err());
    drop((open, client));
}

#[test]
fn the_wrong_key_under_the_right_id_is_told_apart() {
    needs!(Root);
    let mut host = host_with_disk();
    let key = host.json(&["vm", "show", "web01"])["key_ids"][0].as_str().unwrap().to_owned();
    let foreign = Host::start();
    assert_eq!(host.stop(), Some(0));
    let right = fs::read(host.key_file()).unwrap();
    fs::copy(foreign.key_file(), host.key_file()).unwrap();
    host.up();
    for verb in &NEED_KEYS[..2] {
        host.coffer(verb).refused(7, &["key"]);
    }
    host.coffer(&["vm", "unlock", "web01"]).refused(7, &["key"]);
    assert_eq!(reason(&host), ("wrong-key".into(), key));

    assert_eq!(host.stop(), Some(0));
    fs::write(host.key_file(), right).unwrap();
    host.up();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
}

#[test]
fn a_wrong_passphrase_is_told_and_harms_nothing() {
    needs!(Root);
    let mut host = host_with_disk();
    assert_eq!(host.stop(), Some(0));
    let keys = fs::read(host.key_file()).unwrap();
    host.write_passphrase("not this one");
    let said = host.up_refused_or_locked();
    assert!(said.to_lowercase().contains("passphrase"), "{said}");
    assert_eq!(fs::read(host.key_file()).unwrap(), keys);
    host.write_passphrase(PASSPHRASE);
    host.kill();
    host.up();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
}

#[test]
fn a_damaged_or_missing_key_file_is_told() {
    needs!(Root);
    let mut host = host_with_disk();
    assert_eq!(host.stop(), Some(0));
    let keys = fs::read(host.key_file()).unwrap();
    let mut damaged = keys.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(host.key_file(), &damaged).unwrap();
    let said = host.up_refused_or_locked();
    assert!(said.contains("native.keys"), "{said}");
    host.kill();
    fs::remove_file(host.key_file()).unwrap();
    let said = host.up_refused_or_locked();
    assert!(said.contains("native.keys") && said.contains("init"), "{said}");
    host.kill();
    fs::write(host.key_file(), keys).unwrap();
    std::os::unix::fs::chown(host.key_file(), Some(0), Some(0)).unwrap();
    fs::set_permissions(host.key_file(), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    host.up();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
}

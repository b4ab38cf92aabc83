//! The native provider: no key without a backup, and new keys for old VMs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use tests::host::Host;
use tests::nbd::Nbd;
use tests::needs;

#[test]
fn no_key_is_made_before_a_backup() {
    needs!(Root);
    let mut host = Host::prepare(|scratch| scratch.join("store"));
    host.options.demo = false;
    host.init();
    host.up();
    host.coffer(&["vm", "create", "web01"]).refused(8, &["coffer key backup"]);
    assert!(!host.file("web01", "vm.safe").exists());
    let file = host.scratch().join("keys.backup");
    host.coffer(&["key", "backup", file.to_str().unwrap()]).ok();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o077, 0);
    host.coffer(&["vm", "create", "web01"]).ok();
    host.coffer(&["key", "backup", file.to_str().unwrap()]).refused(5, &["keys.backup", "--force"]);
    let status = host.json(&["key", "status"]);
    assert!(status["providers"][0]["backed_up_at"].is_u64(), "{status}");
    assert_eq!(status["keys"][0]["used_by"][0], "web01");
}

#[test]
fn a_backup_opens_vms_made_after_it() {
    needs!(Root);
    let mut host = Host::start();
    let file = host.scratch().join("keys.backup");
    host.coffer(&["key", "backup", file.to_str().unwrap()]).ok();
    host.coffer(&["vm", "create", "later"]).ok();
    assert_eq!(host.stop(), Some(0));
    fs::remove_file(host.key_file()).unwrap();
    fs::copy(&file, host.key_file()).unwrap();
    host.up();
    host.coffer(&["vm", "unlock", "later"]).ok();
}

#[test]
fn a_rotation_changes_the_key_and_not_the_data() {
    needs!(Root);
    let host = Host::start();
    for vm in ["web01", "web02"] {
        host.coffer(&["vm", "create", vm]).ok();
    }
    host.coffer(&["disk", "create", "web01", "data", "--size", "1M"]).ok();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    let mut nbd = Nbd::open(&host.socket("web01", "data"), "data").unwrap();
    nbd.write(0, &[0x42; 8192]).unwrap();
    nbd.flush().unwrap();
    let payload = fs::read(host.file("web01", "disks/data.data")).unwrap();
    let key_of =
        |vm: &str| host.json(&["vm", "show", vm])["key_ids"][0].as_str().unwrap().to_owned();
    let (old, other) = (key_of("web01"), key_of("web02"));

    // A shallow rotation does not disturb a running VM.
    let report = host.json(&["key", "rotate", "--vm", "web01"]);
    assert_eq!(report["vms"][0]["rewrapped"], 2, "{report}");
    assert_ne!(key_of("web01"), old);
    assert_eq!(key_of("web02"), other);
    let disk = host.json(&["disk", "list", "web01"])[0]["key_ids"][0].as_str().unwrap().to_owned();
    assert_eq!(disk, key_of("web01"));
    assert!(nbd.read(0, 8192).unwrap() == [0x42; 8192]);
    drop(nbd);
    assert!(
        fs::read(host.file("web01", "disks/data.data")).unwrap() == payload,
        "the payload was rewritten"
    );
    host.coffer(&["disk", "detach", "web01", "data"]).ok();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    let mut nbd = Nbd::open(&host.socket("web01", "data"), "data").unwrap();
    assert!(nbd.read(0, 8192).unwrap() == [0x42; 8192]);
    let all = host.json(&["key", "rotate"]);
    assert_eq!(all["vms"].as_array().unwrap().len(), 2, "{all}");
}

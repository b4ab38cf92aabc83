//! Disks of a VM between hosts: one that a host has attached is left alone by the others.

use super::lease::{first, hide_locks, host_id, second};
use std::fs;
use tests::host::Host;
use tests::nbd::Nbd;
use tests::needs;
use tests::wait::until_true;

fn mark_of(host: &Host) -> std::path::PathBuf {
    host.file("web01", "leases").join(format!("disks.{}", host_id(host)))
}

/// The verbs that change or remove a disk, a key or the VM.
const VERBS: [&[&str]; 4] = [
    &["disk", "resize", "web01", "root", "--size", "2M"],
    &["disk", "delete", "web01", "root", "--yes"],
    &["disk", "delete", "web01", "idle", "--yes"],
    &["vm", "delete", "web01", "--yes"],
];

fn with_disks() -> Host {
    let host = first();
    for disk in ["root", "idle"] {
        host.coffer(&["disk", "create", "web01", disk, "--size", "1M"]).ok();
    }
    host
}

#[test]
fn a_disk_that_another_host_has_attached_is_left_alone() {
    needs!(Root);
    let one = with_disks();
    one.coffer(&["disk", "attach", "web01", "root"]).ok();
    assert!(mark_of(&one).exists());
    let mut disk = Nbd::open(&one.socket("web01", "root"), "root").unwrap();
    disk.write(0, &[7; 512]).unwrap();
    hide_locks(&one);
    let two = second(&one);
    let id = host_id(&one);
    let words = [id.as_str(), "with disks attached since 20", "detach its disks", "--force"];
    for verb in VERBS {
        two.coffer(verb).refused(6, &words);
    }
    let said = two.coffer(&["--json", "key", "rotate", "--vm", "web01"]);
    assert_eq!(said.code, 8, "{said}");
    assert!(words.iter().all(|word| said.out.contains(word)), "{said}");
    disk.write(512, &[8; 512]).unwrap();
    disk.flush().unwrap();
    assert_eq!(disk.read(0, 1024).unwrap(), [[7; 512], [8; 512]].concat());
    drop(disk);

    // A second disk changes nothing; the last one that goes takes the mark along.
    one.coffer(&["disk", "attach", "web01", "idle"]).ok();
    one.coffer(&["disk", "detach", "web01", "root"]).ok();
    two.coffer(VERBS[0]).refused(6, &words);
    one.coffer(&["disk", "detach", "web01", "idle"]).ok();
    assert!(!mark_of(&one).exists());
    two.coffer(&["key", "rotate", "--vm", "web01"]).ok();
    two.coffer(VERBS[0]).ok();
    assert_eq!(two.json(&["disk", "list", "web01"])[1]["size"].as_u64(), Some(2 << 20));
    two.coffer(VERBS[1]).ok();
    two.coffer(VERBS[3]).ok();
}

#[test]
fn a_mark_outlives_hostd_and_vmd_and_not_the_host() {
    needs!(Root);
    let mut one = with_disks();
    one.coffer(&["disk", "attach", "web01", "root"]).ok();
    one.kill();
    one.up();
    assert!(mark_of(&one).exists());
    one.kill_vmds();
    until_true("the disk is served again", || {
        Nbd::open(&one.socket("web01", "root"), "root").is_ok()
    });
    assert!(mark_of(&one).exists());
    one.kill();
    one.kill_vmds();
    // What is gone for good is passed over by force only.
    let mut two = second(&one);
    for verb in VERBS {
        two.coffer(verb).refused(6, &[&host_id(&one), "--force"]);
    }
    two.coffer(&[VERBS[0], &["--force"]].concat()).ok();
    two.coffer(&["key", "rotate", "--vm", "web01", "--force"]).ok();
    two.coffer(&[VERBS[1], &["--force"]].concat()).ok();
    two.stop();
    fs::copy(two.key_file(), one.key_file()).unwrap();
    // A host that comes back and serves nothing takes its own mark away.
    one.up();
    until_true("the mark is gone", || !mark_of(&one).exists());
    one.coffer(VERBS[3]).ok();
}

#[test]
fn a_disk_is_served_from_a_datastore_that_cannot_be_marked() {
    needs!(Root);
    let one = with_disks();
    // In the place of the folder of leases there is a file.
    fs::write(one.file("web01", "leases"), "").unwrap();
    one.coffer(&["disk", "attach", "web01", "root"]).ok();
    let status = one.coffer(&["host", "status"]).ok();
    assert!(status.contains("other hosts are not told that disks of VM web01 are in use"));
    fs::remove_file(one.file("web01", "leases")).unwrap();
    one.coffer(&["disk", "attach", "web01", "idle"]).ok();
    assert!(mark_of(&one).exists());
    assert!(!one.coffer(&["host", "status"]).ok().contains("are not told"));
    for disk in ["root", "idle"] {
        one.coffer(&["disk", "detach", "web01", disk]).ok();
    }
}

//! Disks that belong to the user whom a VM's QEMU runs as.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use tests::command::{self, Said};
use tests::host::Host;
use tests::{needs, wait};

/// Ids that nothing on the machine needs to know.
const ONE: &str = "64101";
const OTHER: &str = "64102";
const GROUP: &str = "64103";

/// A host whose scratch folder others may pass through, as they may /run.
fn host() -> Host {
    let host = Host::start();
    fs::set_permissions(host.scratch().path(), fs::Permissions::from_mode(0o711)).unwrap();
    for vm in ["web01", "web02"] {
        host.coffer(&["vm", "create", vm]).ok();
        host.coffer(&["disk", "create", vm, "root", "--size", "1M"]).ok();
    }
    host
}

/// qemu-io as a user of one group, with none of root's rights.
fn qemu_io(host: &Host, vm: &str, user: &str, group: &str, command: &str) -> Said {
    let (user, group) = (format!("--reuid={user}"), format!("--regid={group}"));
    let uri = host.uri(vm, "root");
    let words = [&user, &group, "--clear-groups", "qemu-io", "-f", "raw", "-c", command, &uri];
    command::run("setpriv", &words, wait::STEP)
}

fn owner(path: &Path) -> (u32, u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
}

#[test]
fn a_disk_is_for_its_owner_alone_through_restarts() {
    needs!(Root, Program("qemu-io"), Program("setpriv"));
    let mut host = host();
    host.coffer(&["disk", "attach", "web01", "root", "--owner", ONE]).ok();
    host.coffer(&["disk", "attach", "web02", "root", "--owner", OTHER]).ok();
    let check = |host: &Host| {
        let socket = owner(&host.socket("web01", "root"));
        assert_eq!((socket.0, socket.2), (64101, 0o600));
        for (vm, user, stranger) in [("web01", ONE, OTHER), ("web02", OTHER, ONE)] {
            qemu_io(host, vm, user, user, "write -P 7 0 4k").ok();
            let said = qemu_io(host, vm, stranger, stranger, "read 0 4k");
            assert!(said.code != 0 && said.err.contains("Permission denied"), "{said}");
        }
    };
    check(&host);
    // What else is in the folder is not theirs: the link to the vmd, and the list of names.
    let link = owner(&host.run_dir().join("vm/web01/vmd.sock"));
    assert_eq!((link.0, link.2 & 0o077), (0, 0));
    let listed = command::run(
        "setpriv",
        &[
            &format!("--reuid={ONE}"),
            "--clear-groups",
            "--regid",
            ONE,
            "ls",
            host.run_dir().join("vm/web01").to_str().unwrap(),
        ],
        wait::STEP,
    );
    assert_ne!(listed.code, 0, "{listed}");

    host.kill_vmds();
    wait::until_true("the vmds are back", || {
        ["web01", "web02"].iter().all(|vm| host.json(&["vm", "show", vm])["vmd_restarts"] == 1)
    });
    check(&host);
    host.kill();
    host.up();
    check(&host);
    // The next attach decides anew.
    host.coffer(&["disk", "detach", "web01", "root"]).ok();
    host.coffer(&["disk", "attach", "web01", "root"]).ok();
    assert_eq!(owner(&host.socket("web01", "root")), (0, 0, 0o660));
    assert_ne!(qemu_io(&host, "web01", ONE, ONE, "read 0 4k").code, 0);
}

#[test]
fn an_owner_with_a_group_lets_its_members_in() {
    needs!(Root, Program("qemu-io"), Program("setpriv"));
    let host = host();
    let both = format!("{ONE}:{GROUP}");
    host.coffer(&["disk", "attach", "web01", "root", "--owner", &both]).ok();
    assert_eq!(owner(&host.socket("web01", "root")), (64101, 64103, 0o660));
    qemu_io(&host, "web01", ONE, ONE, "write -P 9 0 4k").ok();
    qemu_io(&host, "web01", OTHER, GROUP, "read -P 9 0 4k").ok();
    assert_ne!(qemu_io(&host, "web01", OTHER, OTHER, "read 0 4k").code, 0);
}

#[test]
fn an_owner_that_nobody_knows_is_refused_and_nothing_is_started() {
    needs!(Root);
    let host = host();
    for (unknown, named) in [
        ("nobody-of-that-name", "nobody-of-that-name"),
        ("root:no-such-group", "no-such-group"),
        ("", "/etc/passwd"),
        ("4294967295", "4294967295"),
    ] {
        let owner = format!("--owner={unknown}");
        host.coffer(&["disk", "attach", "web01", "root", &owner]).refused(2, &[named]);
    }
    assert!(host.vmds().is_empty());
    assert!(!host.socket("web01", "root").exists());
}

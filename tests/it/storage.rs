//! Datastores that are missing, read-only, full or taken.

use std::fs;
use std::io::Write;
use std::path::Path;
use tests::command;
use tests::host::{Host, write_pattern};
use tests::nbd::Nbd;
use tests::needs;
use tests::process::{Signal, send};
use tests::wait::until_true;

/// Room of the small datastores.
const SMALL: u64 = 24 << 20;

/// A running host whose datastore is a tmpfs of `SMALL` bytes.
fn small_host() -> Host {
    let mut host = Host::prepare(|scratch| scratch.tmpfs("store", SMALL));
    host.init();
    host.up();
    host.coffer(&["vm", "create", "web01"]).ok();
    host
}

fn remount(folder: &Path, mode: &str) {
    command::ok("mount", &["-o", &format!("remount,{mode}"), folder.to_str().unwrap()]);
}

#[test]
fn a_missing_datastore_is_named_and_found_when_it_is_back() {
    needs!(Root);
    let mut host = Host::prepare(|scratch| scratch.join("store"));
    host.init();
    let other = host.scratch().join("other");
    host.options.config = format!("[[datastore]]\nname = \"other\"\npath = {other:?}\n");
    host.write_config();
    host.up();
    let status = host.json(&["host", "status"]);
    let stores = status["datastores"].as_array().unwrap();
    let state =
        |name: &str| stores.iter().find(|store| store["name"] == name).unwrap()["state"].clone();
    assert_eq!(
        (&state("local")["state"], &state("other")["state"]),
        (&"ready".into(), &"unavailable".into())
    );
    let create = ["vm", "create", "web01", "--datastore", "other"];
    host.coffer(&create).refused(10, &["other", other.to_str().unwrap()]);
    host.coffer(&["vm", "create", "web00", "--datastore", "local"]).ok();
    fs::create_dir(&other).unwrap();
    host.coffer(&["host", "status"]).ok();
    host.coffer(&create).ok();
    assert!(other.join("web01/vm.safe").is_file());
}

#[test]
fn without_any_datastore_hostd_refuses_to_start() {
    needs!(Root);
    let host = Host::prepare(|scratch| scratch.join("store"));
    host.init();
    fs::remove_dir(host.store()).unwrap();
    host.up_refused()
        .refused(10, &["local", host.store().to_str().unwrap(), "mount or make the folder"]);
}

#[test]
fn a_read_only_datastore_is_named_and_its_vms_are_shown() {
    needs!(Root);
    let mut host = small_host();
    host.coffer(&["disk", "create", "web01", "data", "--size", "1M"]).ok();
    assert_eq!(host.stop(), Some(0));
    remount(host.store(), "ro");
    host.up();
    let status = host.json(&["host", "status"]);
    assert_eq!(status["datastores"][0]["state"]["state"], "read-only", "{status}");
    assert_eq!(host.json(&["disk", "list", "web01"])[0]["state"], "detached");
    for verb in [
        vec!["vm", "create", "web02"],
        vec!["vm", "delete", "web01", "--yes"],
        vec!["disk", "create", "web01", "more", "--size", "1M"],
        vec!["disk", "attach", "web01", "data"],
    ] {
        host.coffer(&verb).refused(10, &["read-only", "writable"]);
    }
    host.coffer(&["disk", "attach", "web01", "data", "--read-only"]).ok();
    let mut nbd = Nbd::open(&host.socket("web01", "data"), "data").unwrap();
    assert!(nbd.read(0, 4096).unwrap() == [0; 4096], "a new disk reads as zeros");
    drop(nbd);
    host.coffer(&["disk", "detach", "web01", "data"]).ok();
    // Without a restart of hostd.
    remount(host.store(), "rw");
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
}

#[test]
fn the_home_of_a_read_only_datastore_can_be_read() {
    needs!(Root, Fuse);
    let mut host = small_host();
    host.coffer(&["vm", "mount", "web01"]).ok();
    fs::write(host.home("web01").join("notes"), "kept").unwrap();
    host.coffer(&["vm", "umount", "web01"]).ok();
    assert_eq!(host.stop(), Some(0));
    remount(host.store(), "ro");
    host.up();
    host.coffer(&["vm", "mount", "web01"]).ok();
    assert_eq!(fs::read_to_string(host.home("web01").join("notes")).unwrap(), "kept");
    let error = fs::write(host.home("web01").join("more"), "x").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(30), "{error}");
    host.coffer(&["vm", "umount", "web01"]).ok();
}

/// A copy of a VM may come without its lock file, and a read-only datastore can be given none.
#[test]
fn a_vm_without_a_lock_file_is_served_read_only_and_adopted() {
    needs!(Root, Fuse);
    let mut host = small_host();
    host.coffer(&["disk", "create", "web01", "data", "--size", "1M"]).ok();
    host.coffer(&["vm", "mount", "web01"]).ok();
    fs::write(host.home("web01").join("notes"), "kept").unwrap();
    host.coffer(&["vm", "umount", "web01"]).ok();
    assert_eq!(host.stop(), Some(0));
    fs::remove_file(host.file("web01", ".lock")).unwrap();
    remount(host.store(), "ro");
    host.up();
    host.coffer(&["vm", "fsck", "web01"]).ok();
    host.coffer(&["vm", "mount", "web01"]).ok();
    host.coffer(&["disk", "attach", "web01", "data", "--read-only"]).ok();
    let read = |host: &Host| {
        assert_eq!(fs::read_to_string(host.home("web01").join("notes")).unwrap(), "kept");
        let mut nbd = Nbd::open(&host.socket("web01", "data"), "data").unwrap();
        assert!(nbd.read(0, 4096).unwrap() == [0; 4096], "a new disk reads as zeros");
    };
    read(&host);

    // The lock lives with the vmd, not with hostd: one that is left alone is not locked around.
    let vmds = host.vmds();
    host.kill();
    send(vmds[0], Signal::STOP);
    host.up();
    host.coffer(&["vm", "lock", "web01", "--force"]).refused(6, &["web01", "not under this hostd"]);
    send(vmds[0], Signal::CONT);
    until_true("the adoption", || host.state("web01") == "running");
    assert_eq!(host.vmds(), vmds);
    read(&host);

    // Writable again, it still is the one that is held.
    host.kill();
    send(vmds[0], Signal::STOP);
    remount(host.store(), "rw");
    host.up();
    host.coffer(&["disk", "delete", "web01", "data", "--yes"])
        .refused(6, &["not under this hostd"]);
    send(vmds[0], Signal::CONT);
    until_true("the adoption", || host.state("web01") == "running");
    host.kill_vmds();
    until_true("the disk is back", || Nbd::open(&host.socket("web01", "data"), "data").is_ok());
    host.coffer(&["disk", "detach", "web01", "data"]).ok();
    host.coffer(&["vm", "umount", "web01"]).ok();
    until_true("the vmd ends", || host.vmds().is_empty());
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    assert!(host.file("web01", ".lock").exists());
}

#[test]
fn a_full_datastore_fails_the_write_and_keeps_what_was_there() {
    needs!(Root);
    let host = small_host();
    host.coffer(&["disk", "create", "web01", "data", "--size", "64M"]).ok();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    let mut nbd = Nbd::open(&host.socket("web01", "data"), "data").unwrap();
    nbd.write(0, &[0x5a; 1 << 20]).unwrap();
    nbd.flush().unwrap();
    let full = (1..64_u64).find_map(|mib| nbd.write(mib << 20, &[0xa5; 1 << 20]).err());
    assert_eq!(full.unwrap().raw_os_error(), Some(28), "ENOSPC reaches the client");
    assert!(nbd.read(0, 1 << 20).unwrap() == [0x5a; 1 << 20], "the first MiB differs");
    assert!(nbd.read(5 << 20, 1 << 20).unwrap() == [0xa5; 1 << 20], "the sixth MiB differs");

    let said = host.coffer(&["vm", "create", "web02"]);
    assert_eq!(said.code, 10, "{said}");
    assert!(!host.file("web02", "vm.safe").exists());
    drop(nbd);
    host.coffer(&["disk", "detach", "web01", "data"]).ok();
    host.coffer(&["disk", "delete", "web01", "data", "--yes"]).ok();
    host.coffer(&["vm", "create", "web02"]).ok();
}

#[test]
fn an_import_that_does_not_fit_leaves_nothing() {
    needs!(Root, Program("qemu-img"));
    let host = small_host();
    let image = host.scratch().join("big.raw");
    write_pattern(&image, 40 << 20, 3);
    let said = host.coffer(&["disk", "import", "web01", "root", image.to_str().unwrap()]);
    let error = said.refused(10, &["full", "No space left on device"]);
    assert!(!error.contains("panicked") && !error.contains("100%"), "{error}");
    assert_eq!(host.json(&["disk", "list", "web01"]).as_array().unwrap().len(), 0);
    assert!(!host.file("web01", "disks/root.data").exists());
    assert!(host.vmds().is_empty());
}

#[test]
fn a_full_datastore_fails_the_write_to_a_home_file() {
    needs!(Root, Fuse);
    let host = small_host();
    host.coffer(&["vm", "mount", "web01", "--shared"]).ok();
    let kept = host.home("web01").join("kept");
    fs::write(&kept, [7; 100_000]).unwrap();
    let error = fs::write(host.home("web01").join("big"), vec![1; 40 << 20]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(28), "{error}");
    assert!(fs::read(&kept).unwrap() == [7; 100_000], "the old file differs");
    fs::remove_file(host.home("web01").join("big")).unwrap();
    fs::write(host.home("web01").join("small"), "fits again").unwrap();
}

#[test]
fn a_full_datastore_fails_the_sync_where_the_kernel_collects_writes() {
    needs!(Root, Fuse);
    let host = small_host();
    host.coffer(&["vm", "mount", "web01", "--exclusive"]).ok();
    let kept = host.home("web01").join("kept");
    fs::write(&kept, [7; 100_000]).unwrap();
    let mut file = fs::File::create(host.home("web01").join("big")).unwrap();
    let error = file.write_all(&vec![1; 40 << 20]).and_then(|()| file.sync_all()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(28), "{error}");
    drop(file);
    assert!(fs::read(&kept).unwrap() == [7; 100_000], "the old file differs");
    fs::remove_file(host.home("web01").join("big")).unwrap();
    // The kernel gives up the file that is gone, and with it the room, in its own time.
    let fits = || -> std::io::Result<()> {
        let mut small = fs::File::create(host.home("web01").join("small"))?;
        small.write_all(b"fits again").and_then(|()| small.sync_all())
    };
    until_true("a small file fits again", || fits().is_ok());
    assert_eq!(fs::read(host.home("web01").join("small")).unwrap(), b"fits again");
}

#[test]
fn a_datastore_belongs_to_one_hostd() {
    needs!(Root);
    let first = Host::start();
    first.coffer(&["vm", "create", "web01"]).ok();
    let store = first.store().to_owned();
    let second = Host::prepare(|_| store.clone());
    second.init();
    let said = second.up_refused();
    let pid = first.pid().unwrap().to_string();
    said.refused(10, &["another hostd", &pid, store.to_str().unwrap()]);
    first.coffer(&["vm", "create", "web02"]).ok();
    assert_eq!(first.json(&["vm", "list"]).as_array().unwrap().len(), 2);
}

#[test]
fn a_second_hostd_with_the_same_folders_refuses_to_start() {
    needs!(Root);
    let host = Host::start();
    let said = host.up_refused();
    assert_ne!(said.code, 0, "{said}");
    assert!(said.err.to_lowercase().contains("hostd"), "{said}");
    host.coffer(&["host", "status"]).ok();
}

//! VMs come and go: create, list, show, register, delete, and the names that are refused.

use std::fs;
use tests::command;
use tests::host::Host;
use tests::needs;

#[test]
fn a_vm_is_made_shown_and_deleted() {
    needs!(Root);
    let host = Host::start();
    let made = host.json(&["vm", "create", "web01"]);
    assert_eq!(made["name"], "web01");
    assert_eq!(made["state"], "unlocked");
    assert_eq!(made["key_ids"].as_array().unwrap().len(), 1);
    assert!(host.file("web01", "vm.safe").is_file());

    let listed = host.json(&["vm", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 1);
    let shown = host.json(&["vm", "show", "web01"]);
    assert_eq!(shown["id"], made["id"]);
    let text = host.coffer(&["vm", "show", "web01"]).ok();
    assert!(text.contains("web01") && text.contains("unlocked"), "{text}");

    host.coffer(&["vm", "delete", "web01"]).refused(2, &["confirm", "--yes"]);
    assert!(host.file("web01", "vm.safe").is_file());
    host.coffer(&["vm", "delete", "web01", "--yes"]).ok();
    assert!(!host.store().join("web01").exists());
    host.coffer(&["vm", "show", "web01"]).refused(4, &["web01"]);
}

#[test]
fn names_that_could_leave_the_datastore_are_refused() {
    needs!(Root);
    let host = Host::start();
    let long = "x".repeat(65);
    for name in ["a/b", "..", "../x", ".hidden", "/etc", "a b", "-", &long, "caf\u{e9}", "a\nb"] {
        let said = host.coffer(&["vm", "create", "--", name]);
        assert_eq!(said.code, 2, "{name:?}: {said}");
        assert!(!said.err.contains("panicked"), "{said}");
        let shown = host.coffer(&["vm", "show", "--", name]);
        assert!([2, 4].contains(&shown.code), "{name:?}: {shown}");
    }
    host.coffer(&["vm", "create", "ok"]).ok();
    for name in ["a/b", "..", "../../../etc/passwd"] {
        host.coffer(&["disk", "create", "ok", name, "--size", "1M"]).refused(2, &[]);
    }
    let made: Vec<_> =
        fs::read_dir(host.store()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let visible = made.iter().filter(|name| !name.to_string_lossy().starts_with('.'));
    assert_eq!(visible.count(), 1, "{made:?}");
}

#[test]
fn a_name_taken_is_refused_and_nothing_is_changed() {
    needs!(Root);
    let host = Host::start();
    host.coffer(&["vm", "create", "web01"]).ok();
    let safe = fs::read(host.file("web01", "vm.safe")).unwrap();
    host.coffer(&["vm", "create", "web01"]).refused(5, &["web01"]);
    assert_eq!(fs::read(host.file("web01", "vm.safe")).unwrap(), safe);
    host.coffer(&["disk", "create", "web01", "root", "--size", "1M"]).ok();
    let disk = fs::read(host.file("web01", "disks/root.disk")).unwrap();
    host.coffer(&["disk", "create", "web01", "root", "--size", "2M"]).refused(5, &["root"]);
    assert_eq!(fs::read(host.file("web01", "disks/root.disk")).unwrap(), disk);
}

#[test]
fn a_folder_in_the_way_is_no_vm_and_is_left_alone() {
    needs!(Root);
    let host = Host::start();
    fs::create_dir(host.store().join("web01")).unwrap();
    fs::write(host.store().join("web01/precious"), "mine").unwrap();
    host.coffer(&["vm", "create", "web01"]).refused(5, &["web01"]);
    assert_eq!(fs::read_to_string(host.store().join("web01/precious")).unwrap(), "mine");
}

#[test]
fn a_new_hostd_finds_the_vms_of_the_datastore() {
    needs!(Root);
    let mut host = Host::start();
    host.coffer(&["vm", "create", "web01"]).ok();
    assert_eq!(host.stop(), Some(0));
    host.up();
    assert_eq!(host.state("web01"), "unlocked");
    let listed = host.json(&["vm", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 1);
}

#[test]
fn a_folder_that_came_later_is_registered() {
    needs!(Root);
    let mut host = Host::start();
    host.coffer(&["vm", "create", "web01"]).ok();
    assert_eq!(host.stop(), Some(0));
    let away = host.scratch().join("away");
    fs::rename(host.store().join("web01"), &away).unwrap();
    host.up();
    host.coffer(&["vm", "show", "web01"]).refused(4, &["web01"]);

    let folder = host.store().join("web01");
    command::ok("cp", &["-a", away.to_str().unwrap(), folder.to_str().unwrap()]);
    host.coffer(&["vm", "register", folder.to_str().unwrap()]).ok();
    assert_eq!(host.state("web01"), "unlocked");
    host.coffer(&["vm", "mount", "web01"]).ok();

    // A copy has the same identity: two VMs under one key and one name would overwrite each other.
    let copy = host.store().join("copy");
    command::ok("cp", &["-a", away.to_str().unwrap(), copy.to_str().unwrap()]);
    let said = host.coffer(&["vm", "register", copy.to_str().unwrap()]);
    assert!([2, 5].contains(&said.code), "{said}");
    let outside = host.coffer(&["vm", "register", away.to_str().unwrap()]);
    assert!([2, 4, 12].contains(&outside.code), "{outside}");
    host.coffer(&["vm", "register", host.store().join("none").to_str().unwrap()]).refused(4, &[]);
}

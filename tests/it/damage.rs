//! Damaged, swapped and cut files of a VM folder: refused with a name and a reason, and nothing served.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use tests::host::{Host, set_length};
use tests::needs;

/// Exit codes of a refusal that blames the files: locked because the safe is damaged, or damaged.
const BLAMED: [i32; 2] = [7, 9];

/// One in so many bytes is flipped here; the crates flip every one, without processes.
const STRIDE: usize = 9;

fn host_with_disks() -> Host {
    let host = Host::start();
    for vm in ["web01", "web02"] {
        host.coffer(&["vm", "create", vm]).ok();
        for disk in ["a", "b"] {
            host.coffer(&["disk", "create", vm, disk, "--size", "1M"]).ok();
        }
    }
    host
}

fn flip(path: &Path, at: usize) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let offset = u64::try_from(at).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

#[test]
fn a_flipped_byte_of_a_safe_is_never_accepted() {
    needs!(Root);
    let host = host_with_disks();
    let path = host.file("web01", "vm.safe");
    let length = fs::read(&path).unwrap().len();
    for at in (0..length).step_by(STRIDE) {
        flip(&path, at);
        let said = host.coffer(&["vm", "unlock", "web01"]);
        assert!(BLAMED.contains(&said.code), "byte {at}: {said}");
        assert!(!said.err.contains("panicked"), "byte {at}: {said}");
        flip(&path, at);
    }
    host.coffer(&["vm", "unlock", "web01"]).ok();
    // A VM whose safe is damaged is still listed, with the reason.
    flip(&path, length / 2);
    host.coffer(&["vm", "unlock", "web01"]).refused(7, &["web01"]);
    assert_eq!(host.json(&["vm", "list"]).as_array().unwrap().len(), 2);
    host.coffer(&["disk", "attach", "web02", "a"]).ok();
}

#[test]
fn a_flipped_byte_of_a_descriptor_is_never_accepted() {
    needs!(Root);
    let host = host_with_disks();
    let path = host.file("web01", "disks/a.disk");
    let length = fs::read(&path).unwrap().len();
    for at in (0..length).step_by(STRIDE) {
        flip(&path, at);
        let said = host.coffer(&["disk", "attach", "web01", "a"]);
        assert!(BLAMED.contains(&said.code), "byte {at}: {said}");
        assert!(!said.err.contains("panicked"), "byte {at}: {said}");
        flip(&path, at);
    }
    flip(&path, length / 2);
    let disks = host.json(&["disk", "list", "web01"]);
    assert_eq!(disks.as_array().unwrap().len(), 2, "a damaged disk hides no other: {disks}");
    host.coffer(&["disk", "attach", "web01", "b"]).ok();
    flip(&path, length / 2);
    host.coffer(&["disk", "attach", "web01", "a"]).ok();
}

#[test]
fn swapped_descriptors_and_safes_are_refused() {
    needs!(Root);
    let host = host_with_disks();
    let read = |vm: &str, name: &str| fs::read(host.file(vm, name)).unwrap();
    let own = read("web01", "disks/a.disk");
    for foreign in [read("web01", "disks/b.disk"), read("web02", "disks/a.disk")] {
        fs::write(host.file("web01", "disks/a.disk"), foreign).unwrap();
        let said = host.coffer(&["disk", "attach", "web01", "a"]);
        assert!(BLAMED.contains(&said.code), "{said}");
        assert!(said.err.contains("a.disk"), "{said}");
    }
    fs::write(host.file("web01", "disks/a.disk"), own).unwrap();
    host.coffer(&["disk", "attach", "web01", "a"]).ok();
    host.coffer(&["disk", "detach", "web01", "a"]).ok();

    let own = read("web01", "vm.safe");
    fs::write(host.file("web01", "vm.safe"), read("web02", "vm.safe")).unwrap();
    let said = host.coffer(&["vm", "mount", "web01"]);
    assert!(BLAMED.contains(&said.code), "{said}");
    fs::write(host.file("web01", "vm.safe"), own).unwrap();
    host.coffer(&["vm", "unlock", "web01"]).ok();
}

#[test]
fn a_body_under_the_mac_of_another_file_is_refused() {
    needs!(Root);
    let host = host_with_disks();
    let lines = |name: &str| {
        let text = fs::read_to_string(host.file("web01", name)).unwrap();
        let (body, mac) =
            text.trim_end().split_once('\n').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        (body, mac)
    };
    let (body, _) = lines("disks/a.disk");
    let (_, mac) = lines("disks/b.disk");
    let edited = body.replace("1048576", "2097152");
    assert_ne!(edited, body, "the size is in the body");
    let (_, own) = lines("disks/a.disk");
    for text in [format!("{body}\n{mac}\n"), format!("{edited}\n{own}\n"), format!("{body}\n")] {
        fs::write(host.file("web01", "disks/a.disk"), text).unwrap();
        set_length(&host.file("web01", "disks/a.data"), 2 << 20);
        let said = host.coffer(&["disk", "attach", "web01", "a"]);
        assert!(BLAMED.contains(&said.code), "{said}");
    }
}

#[test]
fn a_version_of_the_future_is_refused_by_name() {
    needs!(Root);
    let host = host_with_disks();
    let path = host.file("web01", "disks/a.disk");
    let text = fs::read_to_string(&path).unwrap();
    let newer = text.replacen("\"version\":1", "\"version\":9", 1);
    assert_ne!(newer, text);
    fs::write(&path, newer).unwrap();
    host.coffer(&["disk", "attach", "web01", "a"]).refused(9, &["version", "9"]);
}

#[test]
fn a_cut_or_missing_payload_is_refused() {
    needs!(Root);
    let host = host_with_disks();
    let payload = host.file("web01", "disks/a.data");
    set_length(&payload, (1 << 20) - 512);
    host.coffer(&["disk", "attach", "web01", "a"]).refused(9, &["disk a", "payload", "cut"]);
    let disks = host.json(&["disk", "list", "web01"]);
    assert_eq!(disks[0]["state"], "damaged", "{disks}");
    fs::remove_file(&payload).unwrap();
    let said = host.coffer(&["disk", "attach", "web01", "a"]);
    assert!([4, 9, 10].contains(&said.code) && said.err.contains("a.data"), "{said}");
    std::os::unix::fs::symlink("/etc/passwd", &payload).unwrap();
    let said = host.coffer(&["disk", "attach", "web01", "a"]);
    assert!([9, 10].contains(&said.code), "a link is no payload: {said}");
    host.coffer(&["disk", "attach", "web01", "b"]).ok();
}

#[test]
fn a_missing_safe_locks_the_vm_with_a_reason() {
    needs!(Root);
    let host = host_with_disks();
    fs::remove_file(host.file("web01", "vm.safe")).unwrap();
    let said = host.coffer(&["vm", "mount", "web01"]);
    assert!([4, 7, 9].contains(&said.code) && said.err.contains("vm.safe"), "{said}");
    fs::remove_file(host.file("web01", "disks/a.disk")).unwrap();
    let said = host.coffer(&["disk", "attach", "web01", "a"]);
    assert_ne!(said.code, 0, "{said}");
}

#[test]
fn a_flipped_header_of_a_home_file_is_an_error_of_that_file_alone() {
    needs!(Root, Fuse);
    let host = host_with_disks();
    host.coffer(&["vm", "mount", "web01"]).ok();
    for name in ["good", "bad"] {
        fs::write(host.home("web01").join(name), name).unwrap();
    }
    host.coffer(&["vm", "umount", "web01"]).ok();
    flip(&host.file("web01", "home/bad"), 20);
    host.coffer(&["vm", "mount", "web01"]).ok();
    assert!(fs::read(host.home("web01").join("bad")).is_err());
    assert_eq!(fs::read(host.home("web01").join("good")).unwrap(), b"good");
}

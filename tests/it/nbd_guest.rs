//! A guest kernel that uses a disk over NBD as disks are used: a file system, data that is verified, trim.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use tests::guest::{self, Guest};
use tests::host::Host;
use tests::{needs, wait};

const MIB: u64 = 1 << 20;

/// Size of the file that fio writes and verifies.
const FILE: u64 = 32 * MIB;

/// Bytes of the storage that a file takes.
fn allocated(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().blocks() * 512
}

/// Number at the end of the guest's line that starts with `words`.
fn number(report: &[String], words: &str) -> u64 {
    let line = report.iter().find(|line| line.starts_with(words));
    let last = line.and_then(|line| line.rsplit(' ').next()).and_then(|word| word.parse().ok());
    last.unwrap_or_else(|| panic!("no number after `{words}`: {report:?}"))
}

/// A running host whose datastore is a tmpfs, which can punch holes on every machine, with a disk `data` for the
/// guest; and QEMU's arguments for it.
fn host_with_disk() -> (Host, Vec<String>) {
    let mut host = Host::prepare(|scratch| scratch.tmpfs("store", 4 * FILE));
    host.init();
    host.up();
    host.coffer(&["vm", "create", "web01"]).ok();
    host.coffer(&["disk", "create", "web01", "data", "--size", "96M"]).ok();
    let attached = host.json(&["disk", "attach", "web01", "data"]);
    let args = attached["qemu_args"].as_array().unwrap().iter();
    let args = args.map(|word| word.as_str().unwrap().to_owned()).collect();
    (host, args)
}

#[test]
fn a_guest_makes_a_file_system_verifies_its_data_and_trims() {
    needs!(Root, Program("qemu-system-x86_64"));
    let (host, args) = host_with_disk();
    let payload = host.file("web01", "disks/data.data");
    // First in the list, so that it is the guest's /dev/vda.
    let root = guest::files().disk.to_str().unwrap();
    let root = format!("if=none,id=system,file={root},format=raw,snapshot=on");
    let mut words = vec!["-drive", &root, "-device", "virtio-blk-pci,drive=system"];
    words.extend(args.iter().map(String::as_str));
    let mut guest = Guest::boot_with(&words, &format!("coffer.do=exercise coffer.size={FILE}"));

    guest.wait_for("mkfs done");
    // fio needs longer to read everything back than this loop to look once.
    let mut most = 0;
    wait::until("fio verifies", wait::GUEST, || {
        most = most.max(allocated(&payload));
        let report = guest.report();
        let done = ["fio verified", "error"];
        report.iter().any(|line| done.iter().any(|words| line.starts_with(words))).then_some(())
    });
    let report = guest.finish();
    assert_eq!(number(&report, "fio verified"), FILE);
    assert!(number(&report, "trimmed") >= FILE, "{report:?}");
    assert!(report.contains(&"clean".to_owned()), "{report:?}");

    let least = allocated(&payload);
    assert!(most >= FILE, "{most} bytes were allocated with a file of {FILE} on the disk");
    assert!(least + FILE <= most + MIB, "trim left {least} of {most} bytes");
    let shown = host.json(&["vm", "show", "web01"]);
    assert_eq!(shown["vmd_restarts"], 0, "the vmd went down under the guest: {shown}");
    host.coffer(&["disk", "detach", "web01", "data"]).ok();
}

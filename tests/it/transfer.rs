//! Images come in and go out: raw, qcow2 and vmdk, and those that are refused.

use std::fs;
use std::path::{Path, PathBuf};
use tests::command;
use tests::host::{Host, pattern};
use tests::needs;

/// A raw image with data at both ends and a hole between.
fn image(host: &Host, name: &str, size: usize) -> PathBuf {
    let path = host.scratch().join(name);
    let mut bytes = pattern(256 << 10, 11);
    bytes.resize(size, 0);
    let end = pattern(70_000, 12);
    let start = size - end.len();
    bytes[start..].copy_from_slice(&end);
    fs::write(&path, bytes).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Imports `file` as a disk, exports it, and gives back the plain bytes.
fn through(host: &Host, disk: &str, file: &Path) -> Vec<u8> {
    host.coffer(&["disk", "import", "web01", disk, text(file)]).ok();
    let out = host.scratch().join(&format!("{disk}.out"));
    host.coffer(&["disk", "export", "web01", disk, text(&out)]).ok();
    fs::read(out).unwrap()
}

fn host_with_vm() -> Host {
    let host = Host::start();
    host.coffer(&["vm", "create", "web01"]).ok();
    host
}

#[test]
fn raw_qcow2_and_vmdk_come_out_as_they_went_in() {
    needs!(Root, Program("qemu-img"));
    let host = host_with_vm();
    let raw = image(&host, "in.raw", (5 << 20) + 4096);
    let expected = fs::read(&raw).unwrap();
    assert!(through(&host, "raw", &raw) == expected, "raw differs");
    for format in ["qcow2", "vmdk"] {
        let file = host.scratch().join(&format!("in.{format}"));
        command::ok("qemu-img", &["convert", "-f", "raw", "-O", format, text(&raw), text(&file)]);
        let out = through(&host, format, &file);
        assert!(out[..expected.len()] == expected[..], "{format} differs");
        assert!(out[expected.len()..].iter().all(|byte| *byte == 0), "{format} has more");
        assert!(out.len() - expected.len() < 64 << 10, "{format}: {} bytes", out.len());
    }
    let disks = host.json(&["disk", "list", "web01"]);
    assert!(
        disks
            .as_array()
            .unwrap()
            .iter()
            .all(|disk| disk["state"] == "detached" && disk["unit"] == 4096)
    );
}

#[test]
fn an_export_to_qcow2_holds_the_same() {
    needs!(Root, Program("qemu-img"));
    let host = host_with_vm();
    let raw = image(&host, "in.raw", 3 << 20);
    host.coffer(&["disk", "import", "web01", "root", text(&raw)]).ok();
    let out = host.scratch().join("out.qcow2");
    host.coffer(&["disk", "export", "web01", "root", text(&out), "--format", "qcow2"]).ok();
    command::ok("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", text(&raw), text(&out)]);
    host.coffer(&["disk", "export", "web01", "root", text(&out)])
        .refused(5, &["out.qcow2", "--force"]);
    host.coffer(&["disk", "export", "web01", "root", text(&out), "--force"]).ok();
    assert!(fs::read(&out).unwrap() == fs::read(&raw).unwrap(), "the forced export differs");
}

#[test]
fn sizes_that_are_no_multiple_of_4096_are_kept_or_padded() {
    needs!(Root, Program("qemu-img"));
    let host = host_with_vm();
    let sectors = image(&host, "sectors.raw", (1 << 20) + 512);
    let out = through(&host, "sectors", &sectors);
    assert!(out == fs::read(&sectors).unwrap(), "an image of whole sectors differs");
    let odd = image(&host, "odd.raw", (1 << 20) + 100);
    let out = through(&host, "odd", &odd);
    let plain = fs::read(&odd).unwrap();
    assert_eq!(out.len(), (1 << 20) + 512);
    assert!(out[..plain.len()] == plain[..] && out[plain.len()..].iter().all(|byte| *byte == 0));
    let disks = host.json(&["disk", "list", "web01"]);
    assert!(disks.as_array().unwrap().iter().all(|disk| disk["unit"] == 512), "{disks}");
}

#[test]
fn images_that_cannot_be_taken_are_refused_and_leave_no_disk() {
    needs!(Root, Program("qemu-img"));
    let host = host_with_vm();
    let raw = image(&host, "in.raw", 1 << 20);
    let missing = host.scratch().join("missing.raw");
    host.coffer(&["disk", "import", "web01", "a", text(&missing)]).refused(4, &["missing.raw"]);
    let empty = host.scratch().join("empty.raw");
    fs::write(&empty, "").unwrap();
    host.coffer(&["disk", "import", "web01", "b", text(&empty)]).refused(2, &["empty"]);
    let qcow2 = host.scratch().join("bad.qcow2");
    command::ok("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", text(&raw), text(&qcow2)]);
    // An impossible cluster size in the header.
    let file = fs::File::options().write(true).open(&qcow2).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 4], 20).unwrap();
    let said = host.coffer(&["disk", "import", "web01", "c", text(&qcow2)]);
    assert!([9, 13].contains(&said.code), "{said}");
    host.coffer(&["disk", "import", "none", "d", text(&raw)]).refused(4, &["none"]);
    host.coffer(&["disk", "import", "web01", "../d", text(&raw)]).refused(2, &[]);
    assert_eq!(host.json(&["disk", "list", "web01"]).as_array().unwrap().len(), 0);
    let left: Vec<_> =
        fs::read_dir(host.file("web01", "disks")).map(Iterator::collect).unwrap_or_default();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_image_that_would_read_other_files_is_refused() {
    needs!(Root, Program("qemu-img"));
    let host = host_with_vm();
    let raw = image(&host, "base.raw", 1 << 20);
    let overlay = host.scratch().join("overlay.qcow2");
    command::ok(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-b", text(&raw), "-F", "raw", text(&overlay)],
    );
    host.coffer(&["disk", "import", "web01", "a", text(&overlay)]).refused(12, &["base.raw"]);
    host.coffer(&["disk", "import", "web01", "a", text(&overlay), "--allow-backing"]).ok();
    let out = host.scratch().join("a.out");
    host.coffer(&["disk", "export", "web01", "a", text(&out)]).ok();
    assert!(fs::read(out).unwrap() == fs::read(raw).unwrap(), "the overlay differs");
}

#[test]
fn an_import_over_a_disk_is_refused() {
    needs!(Root, Program("qemu-img"));
    let host = host_with_vm();
    let raw = image(&host, "in.raw", 1 << 20);
    host.coffer(&["disk", "import", "web01", "a", text(&raw)]).ok();
    let payload = fs::read(host.file("web01", "disks/a.data")).unwrap();
    host.coffer(&["disk", "import", "web01", "a", text(&raw)]).refused(5, &["a"]);
    assert!(
        fs::read(host.file("web01", "disks/a.data")).unwrap() == payload,
        "the payload was touched"
    );
}

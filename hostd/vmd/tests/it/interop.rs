//! Real NBD clients against the real, confined binary. A client that is not installed is skipped, visibly.

use super::process::{Disk, Host, Process, ok};
use super::support::{LIMITS, Served, file, volume};
use hostd_api::link::Request;
use std::process::Command;
use vmd::nbd::export::Export;

const SIZE: u64 = 16 * 1024 * 1024;

/// A vmd with one disk.
fn serve(read_only: bool) -> (Host, Process, Disk) {
    let host = Host::new();
    let vmd = host.start();
    let disk = host.disk("root", SIZE);
    ok(&vmd.attach(&disk, read_only));
    (host, vmd, disk)
}

pub(crate) fn installed(tool: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file()));
    if !found {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: {tool} is not installed\n"),
        );
    }
    found
}

/// Runs a tool, which must succeed, and returns what it printed.
pub(crate) fn run(tool: &str, arguments: &[&str]) -> String {
    let output = Command::new(tool).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {said}{complained}");
    said
}

pub(crate) fn fails(tool: &str, arguments: &[&str]) -> bool {
    !Command::new(tool).args(arguments).output().unwrap().status.success()
}

#[test]
fn nbdinfo_sees_what_is_offered() {
    if !installed("nbdinfo") {
        return;
    }
    let (_host, _vmd, disk) = serve(false);
    let uri = disk.uri();
    let info: serde_json::Value =
        serde_json::from_str(&run("nbdinfo", &["--json", "--no-content", &uri])).unwrap();
    assert_eq!(info["protocol"], "newstyle-fixed");
    let export = &info["exports"][0];
    assert_eq!(export["export-size"], SIZE);
    for yes in [
        "can_flush",
        "can_fua",
        "can_trim",
        "can_zero",
        "can_multi_conn",
        "can_cache",
        "can_df",
        "can_fast_zero",
    ] {
        assert_eq!(export[yes], true, "{yes}");
    }
    for no in ["is_read_only", "is_rotational"] {
        assert_eq!(export[no], false, "{no}");
    }
    assert_eq!(export["block_size_minimum"], 1);
    assert_eq!(export["block_size_preferred"], 4096);
    assert_eq!(export["block_size_maximum"], 32 * 1024 * 1024);
    assert!(run("nbdinfo", &["--list", "--no-content", &uri]).contains("export=\"root\""));
    assert!(fails("nbdinfo", &[&uri.replace("///root", "///other")]));
    run("nbdinfo", &["--no-content", &uri.replace("///root", "///")]);
}

#[test]
fn nbdcopy_brings_back_what_it_took() {
    if !installed("nbdcopy") {
        return;
    }
    let (host, vmd, disk) = serve(false);
    let (original, back) = (host.dir.path().join("original"), host.dir.path().join("back"));
    let size = usize::try_from(SIZE).unwrap();
    let mut content: Vec<u8> =
        (0u32..).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).take(size).collect();
    content[1_000_000..3_000_000].fill(0);
    std::fs::write(&original, &content).unwrap();
    let (original, back) = (original.to_str().unwrap(), back.to_str().unwrap());
    run("nbdcopy", &["--flush", original, &disk.uri()]);
    let four = ["--connections=4", "--requests=16"];
    run("nbdcopy", &[&four[..], &["--flush", original, &disk.uri()]].concat());
    for options in [&["--connections=1", "--requests=64"][..], &["--synchronous"], &[], &four] {
        run("nbdcopy", &[options, &[&disk.uri(), back]].concat());
        assert!(std::fs::read(back).unwrap() == content, "{options:?}");
    }
    let payload = std::fs::read(&disk.payload).unwrap();
    assert!(payload[..4096] != content[..4096]);
    assert!(vmd.status().disks[0].bytes_written > 0);
}

#[test]
fn qemu_io_writes_zeroes_discards_and_flushes() {
    if !installed("qemu-io") {
        return;
    }
    let (_host, _vmd, disk) = serve(false);
    let commands = [
        "write -P 0x5a 0 1M",
        "write -f -P 0x11 512 512",
        "read -P 0x5a 0 512",
        "read -P 0x11 512 512",
        "read -P 0x5a 1k 1047552",
        "write -z 4k 64k",
        "read -P 0 4k 64k",
        "write -z -u 128k 64k",
        "read -P 0 128k 64k",
        "discard 256k 64k",
        "write -z -f 512k 64k",
        "read -P 0 512k 64k",
        "write -z -u -f 640k 1000",
        "read -P 0 640k 1000",
        "write -z -n 704k 64k",
        "read -P 0 704k 64k",
        "discard 777k 333",
        "read -P 0x5a 320k 64k",
        "aio_write -P 0x77 1M 1M",
        "aio_write -P 0x78 2M 1M",
        "aio_flush",
        "flush",
        "read -P 0x77 1M 1M",
        "read -P 0x78 2M 1M",
        "write -P 0x33 3333 777",
        "read -P 0x33 3333 777",
    ];
    let mut arguments = vec!["-f", "raw"];
    arguments.extend(commands.iter().flat_map(|command| ["-c", command]));
    let uri = disk.uri();
    arguments.push(&uri);
    let said = run("qemu-io", &arguments);
    assert!(!said.contains("failed"), "{said}");
}

#[test]
fn a_read_only_disk_cannot_be_written() {
    if !installed("qemu-io") {
        return;
    }
    let (_host, _vmd, disk) = serve(true);
    let uri = disk.uri();
    run("qemu-io", &["-r", "-f", "raw", "-c", "read -P 0 0 64k", &uri]);
    assert!(fails("qemu-io", &["-f", "raw", "-c", "write 0 64k", &uri]));
}

#[test]
fn qemu_img_converts_and_compares() {
    if !installed("qemu-img") {
        return;
    }
    let (host, vmd, disk) = serve(false);
    let image = host.dir.path().join("image.qcow2");
    let image = image.to_str().unwrap();
    let uri = disk.uri();
    run("qemu-img", &["create", "-q", "-f", "qcow2", image, "16M"]);
    if installed("qemu-io") {
        run("qemu-io", &["-c", "write -P 1 1M 3M", "-c", "write -P 2 9M 65k", image]);
    }
    run("qemu-img", &["convert", "-n", "-W", "-m", "16", "-O", "raw", image, &uri]);
    run("qemu-img", &["compare", "-f", "qcow2", "-F", "raw", image, &uri]);
    // The other way.
    let out = host.dir.path().join("out.qcow2");
    let out = out.to_str().unwrap();
    run("qemu-img", &["convert", "-W", "-m", "16", "-f", "raw", "-O", "qcow2", &uri, out]);
    run("qemu-img", &["compare", "-f", "qcow2", "-F", "qcow2", image, out]);
    // As many zeros as the image has, in the same places.
    let map = |file: &str, format: &str| {
        run("qemu-img", &["map", "--output=json", "-f", format, file])
            .lines()
            .filter(|line| line.contains("\"zero\": true"))
            .count()
    };
    assert!(map(&uri, "raw") >= map(image, "qcow2"));
    for options in [&["-w", "--flush-interval=64"][..], &["-w", "--pattern=7"], &[]] {
        let common = ["bench", "-f", "raw", "-c", "1000", "-d", "16", "-s", "4k"];
        run("qemu-img", &[&common[..], options, &[&uri]].concat());
    }
    assert!(run("qemu-img", &["info", &uri]).contains("16 MiB"));
    ok(&vmd.ask(&Request::Detach { disk: "root".into() }));
}

#[test]
fn fio_verifies_on_one_connection_and_on_four() {
    if !installed("fio") {
        return;
    }
    let (host, vmd, disk) = serve(false);
    let uri = format!("--uri={}", disk.uri());
    let output = format!("--aux-path={}", host.dir.path().display());
    let common =
        ["--ioengine=nbd", &uri, "--rw=randrw", "--verify=crc32c", "--iodepth=16", &output];
    let places = ["--size=4M", "--offset_increment=4M"];
    // 4 KiB alone is what guests send most; mixed sizes share sectors and units at their edges.
    for shape in ["--bs=4k", "--bsrange=512-1M"] {
        for jobs in ["--numjobs=1", "--numjobs=4"] {
            run("fio", &[&["--name=verify", shape, jobs][..], &common, &places].concat());
        }
    }
    let served = &vmd.status().disks[0];
    assert!(served.bytes_read > 0 && served.bytes_written > 0);
}

#[test]
fn nbdinfo_maps_holes_and_data() {
    if !installed("nbdinfo") || !installed("qemu-io") {
        return;
    }
    let (_host, _vmd, disk) = serve(false);
    let uri = disk.uri();
    run("qemu-io", &["-f", "raw", "-c", "write 1M 1M", "-c", "write 15M 1M", &uri]);
    let map: serde_json::Value =
        serde_json::from_str(&run("nbdinfo", &["--map", "--json", &uri])).unwrap();
    let extents: Vec<(u64, u64, u64)> = map
        .as_array()
        .unwrap()
        .iter()
        .map(|e| ["offset", "length", "type"].map(|field| e[field].as_u64().unwrap()).into())
        .collect();
    let mib = 1 << 20;
    let want = [(0, mib, 3), (mib, mib, 0), (2 * mib, 13 * mib, 3), (15 * mib, mib, 0)];
    assert_eq!(extents, want);
    let info = run("nbdinfo", &["--no-content", &uri]);
    assert!(info.contains("base:allocation"), "{info}");
    for can in ["cache", "df", "fast-zero", "flush", "fua", "multi-conn", "trim", "zero"] {
        run("nbdinfo", &[&format!("--can={can}"), &uri]);
    }
    assert!(fails("nbdinfo", &["--is=read-only", &uri]));
}

#[test]
fn qemu_img_maps_the_tail() {
    if !installed("qemu-img") {
        return;
    }
    let host = Host::new();
    let vmd = host.start();
    let disk = host.disk("tail", 5 * 4096);
    ok(&vmd.attach(&disk, false));
    let map = run("qemu-img", &["map", "--output=json", "-f", "raw", &disk.uri()]);
    let map: serde_json::Value = serde_json::from_str(&map).unwrap();
    assert_eq!((map[0]["length"].as_u64(), map[0]["zero"].as_bool()), (Some(20_480), Some(true)));
}

/// The interpreter that libnbd's module was installed for.
const PYTHON: &str = "/usr/bin/python3";

/// Runs the checks in `libnbd.py`, if there is libnbd.
fn libnbd(check: &str, uri: &str) {
    let there = Command::new(PYTHON).args(["-c", "import nbd"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: libnbd for Python is not installed");
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/libnbd.py");
    run(PYTHON, &[script, check, uri]);
}

#[test]
fn libnbd_negotiates_by_hand() {
    let (_host, _vmd, disk) = serve(false);
    libnbd("options", &disk.uri());
}

#[test]
fn libnbd_sends_odd_requests() {
    let (_host, _vmd, disk) = serve(false);
    libnbd("requests", &disk.uri());
}

#[test]
fn libnbd_sees_chunks_and_extents() {
    let (_host, _vmd, disk) = serve(false);
    libnbd("chunks", &disk.uri());
}

#[test]
fn libnbd_finds_a_name_with_a_slash() {
    let export = Export::new("/a disk", "web01", volume(file(SIZE), SIZE, false));
    let served = Served::new(export, LIMITS);
    libnbd("name", &format!("nbd+unix:////a%20disk?socket={}", served.path.display()));
}

/// Tools that pass a listening socket to the server that they start, and end it.
#[test]
fn a_scratch_disk_is_served_by_socket_activation() {
    let vmd = env!("CARGO_BIN_EXE_vmd");
    if installed("nbdinfo") {
        let activated = ["[", vmd, "scratch", "--size", "3M", "]"];
        let size = run("nbdinfo", &[&["--size", "--"], &activated[..]].concat());
        assert_eq!(size.trim(), (3 << 20).to_string());
        let list = run("nbdinfo", &[&["--list", "--"], &activated[..]].concat());
        assert!(list.contains("\"scratch\""), "{list}");
    }
    if installed("nbdcopy") {
        let dir = tempfile::tempdir().unwrap();
        let (from, size) = (dir.path().join("from"), 64 << 20);
        std::fs::write(&from, vec![7; size]).unwrap();
        run("nbdcopy", &["--", from.to_str().unwrap(), "[", vmd, "scratch", "]"]);
        let refused = ["[", vmd, "scratch", "--read-only", "]"];
        assert!(fails("nbdcopy", &[&["--", from.to_str().unwrap()], &refused[..]].concat()));
    }
    let by_hand = Command::new(vmd).arg("scratch").output().unwrap();
    let said = String::from_utf8_lossy(&by_hand.stderr);
    assert!(!by_hand.status.success() && said.contains("LISTEN_PID"), "{said}");
}

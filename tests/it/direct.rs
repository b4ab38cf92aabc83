//! Disks past the page cache (`--cache none`), as users see them.

use std::time::Duration;
use tests::command::{self, Said};
use tests::host::Host;
use tests::{needs, wait};

/// A host whose datastore is on a drive, with a disk that is attached past the page cache; `None`, said aloud, where
/// the drive's file system has no direct I/O.
fn host() -> Option<(Host, tempfile::TempDir)> {
    let drive = tempfile::tempdir_in("/var/tmp").unwrap();
    let mut host = Host::prepare(|_| drive.path().join("store"));
    host.init();
    host.up();
    host.coffer(&["vm", "create", "web01"]).ok();
    host.coffer(&["disk", "create", "web01", "data", "--size", "64M"]).ok();
    let said = host.coffer(&["disk", "attach", "web01", "data", "--cache", "none"]);
    if said.err.contains("O_DIRECT") {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: no direct I/O in /var/tmp\n"),
        );
        return None;
    }
    assert!(said.ok().contains("cache none"));
    Some((host, drive))
}

fn qemu_io(host: &Host, commands: &[&str]) -> Said {
    let uri = host.uri("web01", "data");
    let mut args = vec!["-f", "raw"];
    for command in commands {
        args.extend(["-c", command]);
    }
    args.push(&uri);
    command::run("qemu-io", &args, wait::STEP * 2)
}

fn cache(host: &Host) -> String {
    let vm = host.json(&["vm", "show", "web01"]);
    vm["disks"][0]["attachment"]["cache"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn the_mode_is_shown_and_outlives_hostd_and_vmd() {
    needs!(Root, Program("qemu-io"));
    let Some((mut host, _drive)) = host() else { return };
    let write = ["write -P 0xa5 0 1M", "write -P 0x3c 12345 777", "write -z 2M 64k", "flush"];
    qemu_io(&host, &write).ok();
    let read = [
        "read -P 0xa5 0 12345",
        "read -P 0x3c 12345 777",
        "read -P 0xa5 13122 1035454",
        "read -P 0 1M 3M",
    ];
    qemu_io(&host, &read).ok();
    assert_eq!(cache(&host), "none");
    assert!(host.coffer(&["disk", "list", "web01"]).ok().contains("attached cache=none"));

    host.kill();
    host.up();
    assert_eq!(cache(&host), "none", "hostd adopts it as it is");
    qemu_io(&host, &read).ok();

    host.kill_vmds();
    wait::until_true("the vmd is back", || host.vmds().len() == 1);
    qemu_io(&host, &read).ok();
    assert_eq!(cache(&host), "none", "a new vmd serves it as before");

    host.coffer(&["disk", "detach", "web01", "data"]).ok();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    assert_eq!(cache(&host), "writeback");
    qemu_io(&host, &read).ok();
}

#[test]
fn fio_reads_what_it_wrote_past_the_page_cache() {
    needs!(Root, Program("fio"));
    let Some((host, _drive)) = host() else { return };
    let uri = format!("--uri={}", host.uri("web01", "data"));
    // Sizes of which some are aligned to no block, many at once.
    for bsrange in ["--bsrange=512-128k", "--bsrange=4k-1m"] {
        let args = [
            "--name=x",
            "--ioengine=nbd",
            &uri,
            "--rw=randwrite",
            bsrange,
            "--bs_unaligned=1",
            "--size=64M",
            "--io_size=48M",
            "--iodepth=16",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--verify_state_save=0",
            "--fsync=64",
            "--randseed=7",
        ];
        command::run("fio", &args, Duration::from_secs(120)).ok();
    }
}

#[test]
fn a_file_system_without_direct_io_is_refused_with_a_way_out() {
    needs!(Root);
    let mut host = Host::prepare(|scratch| scratch.ramfs("store"));
    host.init();
    host.up();
    host.coffer(&["vm", "create", "web01"]).ok();
    host.coffer(&["disk", "create", "web01", "data", "--size", "1M"]).ok();
    let attach = ["disk", "attach", "web01", "data", "--cache", "none"];
    host.coffer(&attach).refused(11, &["O_DIRECT", "data.data", "--cache none"]);
    assert_eq!(host.state("web01"), "unlocked", "no vmd was started");
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
}

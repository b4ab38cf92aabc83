//! A real guest kernel on an encrypted disk, and power cuts under it.

use std::time::Duration;
use tests::command;
use tests::guest::{self, Guest};
use tests::host::Host;
use tests::{needs, wait};

/// A running host whose VM `web01` has the guest disk as `root`, attached.
fn host_with_guest() -> (Host, Vec<String>) {
    let host = Host::start();
    host.coffer(&["vm", "create", "web01"]).ok();
    let disk = guest::files().disk.to_str().unwrap();
    host.coffer(&["disk", "import", "web01", "root", disk]).ok();
    let args = attach(&host);
    (host, args)
}

/// Attaches the disk and gives back the QEMU arguments that coffer prints.
fn attach(host: &Host) -> Vec<String> {
    let attached = host.json(&["disk", "attach", "web01", "root"]);
    let args = attached["qemu_args"].as_array().unwrap().iter();
    args.map(|word| word.as_str().unwrap().to_owned()).collect()
}

fn boot(args: &[String], job: &str) -> Guest {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    Guest::boot_with(&args, job)
}

/// Copies the disk out over NBD and has e2fsck look at it without changing anything.
fn assert_clean(host: &Host) {
    let copy = host.scratch().join("fsck.raw");
    command::ok("nbdcopy", &[&host.uri("web01", "root"), copy.to_str().unwrap()]);
    let said = command::run("e2fsck", &["-f", "-n", copy.to_str().unwrap()], wait::STEP * 2);
    assert_eq!(said.code, 0, "{said}");
    std::fs::remove_file(copy).unwrap();
}

#[test]
fn a_guest_finds_its_data_after_everything_was_killed() {
    needs!(Root, Program("qemu-system-x86_64"), Program("nbdcopy"), Program("e2fsck"));
    let (mut host, args) = host_with_guest();
    let mut guest = boot(&args, "coffer.do=load coffer.count=100000");
    guest.wait_for("synced 8");
    guest.kill();
    host.kill();
    host.kill_vmds();
    let synced = guest.synced();
    assert!(synced >= 8);

    host.up();
    let args = attach(&host);
    let report = boot(&args, &format!("coffer.do=verify coffer.count={synced}")).finish();
    assert!(report.contains(&format!("verified {synced}")), "{report:?}");
    assert_clean(&host);
}

#[test]
fn a_guest_under_load_sees_no_error_when_hostd_and_vmd_die() {
    needs!(Root, Program("qemu-system-x86_64"), Program("nbdcopy"), Program("e2fsck"));
    let (mut host, args) = host_with_guest();
    let count = 30;
    let mut guest = boot(&args, &format!("coffer.do=load coffer.count={count}"));
    guest.wait_for("synced 3");
    host.kill();
    let at_death = guest.synced();
    guest.wait_for(&format!("synced {}", at_death + 3));
    host.up();
    assert_eq!(host.state("web01"), "running");

    for _ in 0..2 {
        let before = guest.synced();
        host.kill_vmds();
        guest.wait_for(&format!("synced {}", before + 3));
    }
    let shown = host.json(&["vm", "show", "web01"]);
    assert_eq!(shown["vmd_restarts"], 2, "{shown}");

    // Both at once: nobody starts the vmd again, but QEMU waits on the same path for the next attach.
    let before = guest.synced();
    host.kill();
    host.kill_vmds();
    host.up();
    attach(&host);
    guest.wait_for(&format!("synced {}", before + 3));
    let report = guest.finish();
    assert!(report.contains(&format!("load done {count}")), "{report:?}");
    std::thread::sleep(Duration::from_millis(100));
    assert_clean(&host);
}

#[test]
fn a_guest_loses_nothing_in_many_power_cuts() {
    needs!(Root, Long, Program("qemu-system-x86_64"), Program("nbdcopy"), Program("e2fsck"));
    let (mut host, mut args) = host_with_guest();
    for round in 1..=6_u32 {
        let mut guest = boot(&args, "coffer.do=load coffer.count=100000");
        guest.wait_for(&format!("synced {}", 3 * round));
        // A different moment of a write each time.
        std::thread::sleep(Duration::from_millis(u64::from(97 * round)));
        guest.kill();
        host.kill();
        host.kill_vmds();
        let synced = guest.synced();
        host.up();
        args = attach(&host);
        let report = boot(&args, &format!("coffer.do=verify coffer.count={synced}")).finish();
        assert!(report.contains(&format!("verified {synced}")), "round {round}: {report:?}");
        assert_clean(&host);
    }
}

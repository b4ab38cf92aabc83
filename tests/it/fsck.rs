//! `coffer vm fsck` over the real programs: a VM in order, every kind of damage at once, and a repair.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use tests::host::{Host, set_length};
use tests::process::{self, Signal};
use tests::{needs, wait};

/// Paths and repairs of the findings, sorted.
fn findings(report: &serde_json::Value) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let all = report["findings"].as_array().unwrap();
    let mut found: Vec<_> = all.iter().map(|f| (text(&f["path"]), text(&f["repair"]))).collect();
    found.sort();
    found
}

#[test]
fn damage_is_named_and_remains_are_cleared() {
    needs!(Root, Fuse);
    let host = Host::start();
    host.coffer(&["vm", "create", "web01"]).ok();
    host.coffer(&["disk", "create", "web01", "root", "--size", "1M"]).ok();
    host.coffer(&["vm", "mount", "web01"]).ok();
    let home = host.home("web01");
    fs::create_dir(home.join("sub")).unwrap();
    fs::write(home.join("sub/notes"), [7; 5000]).unwrap();
    fs::write(home.join("edited"), "content").unwrap();
    host.coffer(&["vm", "fsck", "web01"]).refused(6, &["mounted", "coffer vm umount web01"]);
    host.coffer(&["vm", "umount", "web01"]).ok();
    assert_eq!(findings(&host.json(&["vm", "fsck", "web01"])), []);
    host.coffer(&["disk", "attach", "web01", "root"]).ok();
    host.coffer(&["vm", "fsck", "web01"]).ok();
    host.coffer(&["vm", "fsck", "web01", "--repair"])
        .refused(6, &["attached", "detach web01 root"]);
    host.coffer(&["disk", "detach", "web01", "root"]).ok();

    // Remains alone are no damage, and a repair clears them.
    let notes = host.file("web01", "home/sub/notes");
    File::options().write(true).open(&notes).unwrap().write_all_at(b"remains", 3 * 4096).unwrap();
    fs::write(host.file("web01", "disks/.root.disk.0011.coffer-tmp"), "x").unwrap();
    let remains = |repair: &str| {
        let paths = ["disks/.root.disk.0011.coffer-tmp", "home/sub/notes"];
        paths.map(|path| (path.to_owned(), repair.to_owned()))
    };
    assert_eq!(findings(&host.json(&["vm", "fsck", "web01"])), remains("possible"));
    assert_eq!(findings(&host.json(&["vm", "fsck", "web01", "--repair"])), remains("done"));
    assert_eq!(findings(&host.json(&["vm", "fsck", "web01"])), []);

    // Damage is named, left alone, and the end of the command.
    let edited = host.file("web01", "home/edited");
    let mut bytes = fs::read(&edited).unwrap();
    bytes[20] ^= 1;
    fs::write(&edited, bytes).unwrap();
    set_length(&host.file("web01", "disks/root.data"), 4096);
    let said = host.coffer(&["vm", "fsck", "web01", "--repair"]);
    said.refused(9, &["2 findings are not mended"]);
    assert!(host.coffer(&["vm", "show", "web01"]).ok().contains("unlocked"));
    set_length(&host.file("web01", "disks/root.data"), 1 << 20);
    fs::remove_file(&edited).unwrap();
    host.coffer(&["vm", "fsck", "web01"]).ok();
    host.coffer(&["vm", "mount", "web01"]).ok();
    assert_eq!(fs::read(home.join("sub/notes")).unwrap(), [7; 5000]);
}

/// Ctrl-C ends the command, and with it the work in hostd and vmd.
#[test]
fn a_check_that_nobody_waits_for_ends() {
    needs!(Root, Fuse);
    let host = Host::start();
    host.coffer(&["vm", "create", "web01"]).ok();
    host.coffer(&["disk", "create", "web01", "root", "--size", "1M"]).ok();
    // With a disk attached the vmd outlives the check.
    host.coffer(&["disk", "attach", "web01", "root"]).ok();
    let vmd = host.vmds()[0];
    let home = host.file("web01", "home");
    for folder in 0..20 {
        fs::create_dir(home.join(folder.to_string())).unwrap();
        for file in 0..2000 {
            File::create(home.join(format!("{folder}/{file}"))).unwrap();
        }
    }
    let mut coffer = host.spawn_coffer(&["vm", "fsck", "web01"]);
    wait::until_true("the check begins", || host.log().contains("checking the home"));
    process::send(vmd, Signal::STOP);
    coffer.kill().unwrap();
    coffer.wait().unwrap();
    let given_up =
        || host.log().lines().any(|line| line.contains("vm-check") && line.contains("has left"));
    wait::until_true("hostd gives it up", given_up);
    process::send(vmd, Signal::CONT);
    wait::until_true("the vmd gives it up", || host.log().contains("told to nobody"));
    assert_eq!(host.vmds(), [vmd]);
    host.coffer(&["vm", "fsck", "web01"]).ok();
}

//! A VM whose names are encrypted: from its making to the check, through every process that has to know of it.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tests::host::{Host, pattern};
use tests::{needs, wait};

/// Part of every name and target below, and written nowhere else.
const MARKER: &str = "payroll-4f1c9a72";

fn host() -> Host {
    let host = Host::start();
    host.coffer(&["vm", "create", "web01", "--names", "encrypted"]).ok();
    host
}

/// Paths below a folder.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(below(&path));
        }
        found.push(path);
    }
    found
}

/// What the storage has below the home: names, and targets of links.
fn leaks(host: &Host) -> Vec<PathBuf> {
    let holds = |bytes: &[u8]| bytes.windows(7).any(|piece| piece == &MARKER.as_bytes()[..7]);
    let target = |path: &Path| fs::read_link(path).map(|t| t.into_os_string().into_encoded_bytes());
    let leaks = |path: &PathBuf| {
        holds(path.file_name().unwrap().as_bytes()) || target(path).is_ok_and(|t| holds(&t))
    };
    below(&host.file("web01", "home")).into_iter().filter(leaks).collect()
}

fn fill(home: &Path) {
    let folder = home.join(MARKER);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(format!("{MARKER}.txt")), pattern(5000, 1)).unwrap();
    symlink(format!("{MARKER}/{MARKER}.txt"), home.join(format!("{MARKER} link"))).unwrap();
    fs::hard_link(folder.join(format!("{MARKER}.txt")), home.join("b")).unwrap();
    fs::rename(home.join("b"), folder.join("c")).unwrap();
}

fn is_filled(home: &Path) -> bool {
    let link = home.join(format!("{MARKER} link"));
    fs::read(home.join(MARKER).join("c")).is_ok_and(|bytes| bytes == pattern(5000, 1))
        && fs::read(link).is_ok_and(|bytes| bytes == pattern(5000, 1))
}

#[test]
fn the_policy_outlives_every_process() {
    needs!(Root, Fuse);
    let mut host = host();
    assert_eq!(host.json(&["vm", "show", "web01"])["names"], "encrypted");
    assert!(host.coffer(&["vm", "show", "web01"]).ok().contains("encrypted"));
    host.coffer(&["vm", "mount", "web01"]).ok();
    let home = host.home("web01");
    fill(&home);
    assert!(is_filled(&home));
    assert_eq!(below(&host.file("web01", "home")).len(), 4);
    assert_eq!(leaks(&host), <[PathBuf; 0]>::default());
    // A new vmd gets it from hostd, also from the next one; and so does the next mount.
    host.kill_vmds();
    wait::until_true("the home is served again", || is_filled(&home));
    host.kill();
    host.up();
    assert!(is_filled(&home));
    host.kill_vmds();
    wait::until_true("the home is served again", || is_filled(&home));
    host.coffer(&["vm", "umount", "web01"]).ok();
    host.coffer(&["key", "backup", host.scratch().join("backup").to_str().unwrap()]).ok();
    host.coffer(&["key", "rotate"]).ok();
    assert_eq!(host.json(&["vm", "show", "web01"])["names"], "encrypted");
    host.coffer(&["vm", "mount", "web01", "--shared"]).ok();
    assert!(is_filled(&home));
    fs::write(home.join("one more"), b"x").unwrap();
    host.coffer(&["vm", "umount", "web01"]).ok();
    assert_eq!(leaks(&host), <[PathBuf; 0]>::default());
}

#[test]
fn it_is_chosen_once_and_for_each_vm() {
    needs!(Root);
    let host = host();
    host.coffer(&["vm", "create", "web02"]).ok();
    assert_eq!(host.json(&["vm", "show", "web02"])["names"], "plain");
    // By hand it cannot be changed: the MAC of the safe is under the key inside.
    let safe = host.file("web01", "vm.safe");
    let text = fs::read_to_string(&safe).unwrap();
    let plain = text.replace(r#"["encrypted-names"]"#, "[]").replace("encrypted", "plain");
    fs::write(&safe, plain).unwrap();
    let said = host.coffer(&["vm", "mount", "web01"]);
    said.refused(7, &["safe-damaged", "MAC"]);
    fs::write(&safe, text).unwrap();
    host.coffer(&["vm", "create", "web03", "--names", "none"]).refused(2, &["plain", "encrypted"]);
}

#[test]
fn a_check_names_what_is_stored_and_what_a_program_sees() {
    needs!(Root, Fuse);
    let host = host();
    host.coffer(&["vm", "mount", "web01"]).ok();
    let home = host.home("web01");
    fill(&home);
    host.coffer(&["vm", "umount", "web01"]).ok();
    assert_eq!(host.json(&["vm", "fsck", "web01"])["findings"].as_array().unwrap().len(), 0);
    let stored = host.file("web01", "home");
    fs::write(stored.join("lost"), "x").unwrap();
    let file =
        below(&stored).into_iter().find(|path| path.is_file() && path.parent() != Some(&stored));
    let file = file.unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes[20] ^= 1;
    fs::write(&file, bytes).unwrap();
    let said = host.coffer(&["--json", "vm", "fsck", "web01", "--repair"]);
    assert_eq!(said.code, 9, "{said}");
    let report: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let of = |path: &str| findings.iter().find(|found| found["path"] == path).unwrap();
    let lost = of("home/lost");
    assert_eq!((&lost["grade"], &lost["plain"]), (&"leftover".into(), &serde_json::Value::Null));
    assert!(stored.join("lost").exists(), "a repair took what is not ours");
    // Both names of the file.
    assert_eq!(findings.len(), 3, "{report}");
    let path = format!("home/{}", file.strip_prefix(&stored).unwrap().display());
    let plain = of(&path)["plain"].as_str().unwrap();
    assert!(plain.starts_with(&format!("/{MARKER}/")), "{plain}");
    let text = host.coffer(&["vm", "fsck", "web01"]);
    assert!(text.out.contains(&format!("{path}, {plain} in the home: damaged")), "{text}");
}

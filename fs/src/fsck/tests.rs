//! Names in a VM folder: what is known, what is left over, and what is nobody's.

use super::*;
use crate::folder::VmFolder;
use std::collections::BTreeSet;
use std::fs;

struct Fixture {
    dir: tempfile::TempDir,
    folder: VmFolder,
}

/// A VM folder with a disk `root`.
fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let folder = VmFolder::new(dir.path());
    for part in ["home", "disks"] {
        fs::create_dir(dir.path().join(part)).unwrap();
    }
    for file in ["vm.safe", ".lock", "disks/root.disk", "disks/root.data"] {
        fs::write(dir.path().join(file), "x").unwrap();
    }
    Fixture { dir, folder }
}

fn run(f: &Fixture, repair: bool) -> (Vec<Finding>, Totals) {
    run_with(f, repair, true)
}

/// With descriptors that have all said what belongs to them, or not.
fn run_with(f: &Fixture, repair: bool, complete: bool) -> (Vec<Finding>, Totals) {
    let mut findings = Vec::new();
    let mut emit = |line: &Line| {
        if let Line::Finding(finding) = line {
            findings.push(finding.clone());
        }
        Ok(())
    };
    let mut report = Report::new(&mut emit);
    let claims = Claims { payloads: BTreeSet::from(["root.data".to_owned()]), complete };
    check_folder(&f.folder, &claims, repair, &mut report).unwrap();
    let totals = report.totals();
    (findings, totals)
}

#[test]
fn a_folder_in_order_has_no_findings() {
    let f = fixture();
    assert_eq!(run(&f, true), (vec![], Totals { objects: 9, ..Totals::default() }));
}

#[test]
fn leases_are_known_and_what_is_none_is_left_alone() {
    let f = fixture();
    let leases = f.folder.leases();
    fs::create_dir(&leases).unwrap();
    let known = [
        "exclusive.00000000000000ff".to_owned(),
        format!("shared.{}", uuid::Uuid::max()),
        ".exclusive.0000000000000100.0011.coffer-tmp".to_owned(),
    ];
    for name in known {
        fs::write(leases.join(name), "x").unwrap();
    }
    assert_eq!(run(&f, true).0, []);
    for name in ["exclusive.1", "shared.host", "notes"] {
        fs::write(leases.join(name), "x").unwrap();
    }
    let (found, _) = run(&f, true);
    let mut paths: Vec<_> = found.iter().map(|finding| finding.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["leases/exclusive.1", "leases/notes", "leases/shared.host"]);
    assert_eq!(fs::read_dir(&leases).unwrap().count(), 6);
    fs::remove_dir_all(&leases).unwrap();
    std::os::unix::fs::symlink("/", &leases).unwrap();
    let (found, _) = run(&f, true);
    assert_eq!((found[0].path.as_str(), found[0].grade), ("leases", Grade::Damaged));
    assert_eq!(found.len(), 1, "what the link leads to is not looked at");
}

#[test]
fn remains_are_removed_by_a_repair_only() {
    let f = fixture();
    let remains =
        [".vm.safe.0011.coffer-tmp", "disks/.root.disk.22.coffer-tmp", "disks/.root.data.recover"];
    for file in remains {
        fs::write(f.dir.path().join(file), "x").unwrap();
    }
    let (found, totals) = run(&f, false);
    let mut paths: Vec<_> = found.iter().map(|finding| finding.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, [remains[0], remains[2], remains[1]]);
    let how = "removes it".to_owned();
    assert!(found.iter().all(|one| one.mend == Mend::Possible { how: how.clone() }), "{found:?}");
    assert_eq!((totals.leftovers, totals.mended), (3, 0));
    let (found, totals) = run(&f, true);
    assert!(found.iter().all(|one| one.mend == Mend::Done { how: how.clone() }), "{found:?}");
    assert_eq!((totals.leftovers, totals.mended), (0, 3));
    assert!(remains.iter().all(|file| !f.dir.path().join(file).exists()));
    assert_eq!(run(&f, true).0, []);
}

/// Who can write to the storage swaps the folder while it is looked at.
#[test]
fn a_repair_is_not_led_out_of_a_folder() {
    let f = fixture();
    let (disks, elsewhere) = (f.folder.disks(), f.dir.path().join("home"));
    let remains = [".a.data.recover", ".b.disk.22.coffer-tmp", "c.data"];
    for folder in [&disks, &elsewhere] {
        for name in remains {
            fs::write(folder.join(name), "").unwrap();
        }
    }
    let aside = f.dir.path().join("aside");
    let mut swap = |line: &Line| {
        let in_disks = matches!(line, Line::Finding(found) if found.path.starts_with("disks/"));
        if in_disks && !aside.exists() {
            fs::rename(&disks, &aside)?;
            std::os::unix::fs::symlink(&elsewhere, &disks)?;
        }
        Ok(())
    };
    let claims = Claims { payloads: BTreeSet::from(["root.data".to_owned()]), complete: true };
    check_folder(&f.folder, &claims, true, &mut Report::new(&mut swap)).unwrap();
    assert!(remains.iter().all(|name| elsewhere.join(name).exists()));
    assert!(remains.iter().all(|name| !aside.join(name).exists()));
}

#[test]
fn strays_are_never_removed() {
    let f = fixture();
    let strays = ["notes", "disks/old.data", "disks/-x.disk", "disks/notes", "disks/.x.recover"];
    for file in strays {
        fs::write(f.dir.path().join(file), "x").unwrap();
    }
    fs::create_dir(f.dir.path().join("disks/.folder.coffer-tmp")).unwrap();
    let (found, totals) = run(&f, true);
    assert_eq!((found.len(), totals.leftovers, totals.mended), (6, 6, 0), "{found:?}");
    assert!(strays.iter().all(|file| f.dir.path().join(file).exists()));
    let old = found.iter().find(|one| one.path == "disks/old.data").unwrap();
    assert!(old.what.contains("no descriptor names it"), "{old:?}");
}

#[test]
fn missing_parts_and_links_in_their_place_are_damage() {
    let f = fixture();
    fs::remove_file(f.dir.path().join("vm.safe")).unwrap();
    fs::remove_dir(f.dir.path().join("home")).unwrap();
    std::os::unix::fs::symlink("/", f.dir.path().join("home")).unwrap();
    let (found, totals) = run(&f, true);
    let what: Vec<_> = found.iter().map(|one| (one.path.as_str(), one.what.as_str())).collect();
    assert_eq!(totals.damaged, 2);
    assert!(what[0].0 == "vm.safe" && what[0].1.contains("cannot be read"), "{what:?}");
    assert_eq!(what[1], ("home", "it is not a folder"));
}

#[test]
fn a_repair_that_fails_is_said() {
    let mend = Mend::by("removes it", true, || Err(io::Error::other("no")));
    assert_eq!(mend, Mend::Failed { how: "removes it".into(), reason: "no".into() });
}

#[test]
fn paths_are_fit_for_terminals() {
    assert_eq!(shown_path("home/gr\u{fc}n".as_bytes()), "home/gr\u{fc}n");
    assert_eq!(shown_path(b"a\nb\\\x1b[0m\xff"), "a\\nb\\\\\\u{1b}[0m\\xff");
    assert_eq!(shown_path(&[b'x'; MAX_PATH + 1]), format!("...{}", "x".repeat(MAX_PATH)));
}

#[test]
fn an_empty_payload_of_nobody_goes_with_a_repair_and_one_with_data_stays() {
    let f = fixture();
    let [cut, sized, full] =
        ["cut.data", "sized.data", "full.data"].map(|n| f.folder.disks().join(n));
    fs::write(&cut, "").unwrap();
    fs::File::create(&sized).unwrap().set_len(1 << 30).unwrap();
    fs::write(&full, "x").unwrap();
    fs::write(f.folder.payload(&"root".parse().unwrap()), "").unwrap();
    let strays = |findings: Vec<Finding>| {
        let mut known: Vec<_> = findings
            .into_iter()
            .map(|f| (f.path, matches!(f.mend, Mend::Possible { .. } | Mend::Done { .. })))
            .collect();
        known.sort();
        known
    };
    let named = |cut: bool| {
        ["cut", "full", "sized"].map(|n| (format!("disks/{n}.data"), cut && n != "full")).to_vec()
    };
    assert_eq!(strays(run(&f, false).0), named(true));
    // A descriptor that cannot be read may name any of them.
    assert_eq!(strays(run_with(&f, true, false).0), named(false));
    assert_eq!(strays(run(&f, true).0), named(true));
    assert!(!cut.exists() && !sized.exists() && full.exists());
    assert!(f.folder.payload(&"root".parse().unwrap()).exists());
}

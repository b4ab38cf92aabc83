//! What is found around the home. These VMs have no vmd program, so homes are checked by the integration tests.

use super::*;
use crate::testing::{TestHost, code, create_disk, refused};
use std::fs::{self, File};

/// What the check of everything but the home says.
fn check(t: &TestHost, repair: bool) -> CheckReport {
    let vm = t.host.inventory.get("web01").unwrap();
    let mut inner = vm.enter().unwrap();
    at_rest(&vm, &inner, repair).unwrap();
    let mut found = Collected::default();
    t.host.check_files(&vm, &mut inner, repair, &|| None, &mut found).unwrap();
    found.report("web01")
}

fn host() -> TestHost {
    let t = TestHost::new();
    t.vm("web01");
    t.host.create_disk("web01", &create_disk("root", 1 << 20)).unwrap();
    t
}

/// The one finding.
fn only(report: &CheckReport) -> &types::Finding {
    let [one] = &report.findings[..] else { panic!("{report:?}") };
    one
}

#[test]
fn a_vm_in_order_has_no_findings() {
    let report = check(&host(), true);
    assert_eq!(report.findings, []);
    assert_eq!((report.damaged, report.leftovers, report.mended, report.unlisted), (0, 0, 0, 0));
}

#[test]
fn an_edited_safe_is_a_finding_and_the_disks_are_looked_at_all_the_same() {
    let t = host();
    let folder = t.store().join("web01");
    let safe = fs::read_to_string(folder.join("vm.safe")).unwrap();
    fs::write(folder.join("vm.safe"), safe.replace("\"keep\"", "\"fail\"")).unwrap();
    fs::write(folder.join("disks/notes"), "x").unwrap();
    let report = check(&t, true);
    assert_eq!((report.damaged, report.leftovers), (1, 1));
    let paths: Vec<_> = report.findings.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(paths, ["vm.safe", "disks/notes"]);
}

#[test]
fn an_edited_descriptor_is_damage_and_its_payload_no_stray() {
    let t = host();
    let path = t.store().join("web01/disks/root.disk");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"size\":1048576", "\"size\":1048064")).unwrap();
    let report = check(&t, true);
    let one = only(&report);
    assert_eq!((one.path.as_str(), one.grade), ("disks/root.disk", FindingGrade::Damaged));
    assert_eq!(one.repair, FindingRepair::None);
}

#[test]
fn a_descriptor_under_another_name_is_misplaced() {
    let t = host();
    let disks = t.store().join("web01/disks");
    fs::copy(disks.join("root.disk"), disks.join("copy.disk")).unwrap();
    let report = check(&t, true);
    let one = only(&report);
    assert_eq!((one.path.as_str(), one.grade), ("disks/copy.disk", FindingGrade::Damaged));
    assert!(one.what.contains("root"), "{one:?}");
}

#[test]
fn payloads_of_another_length_or_kind_are_found() {
    let t = host();
    let payload = t.store().join("web01/disks/root.data");
    let set_len = |len| File::options().write(true).open(&payload).unwrap().set_len(len).unwrap();
    set_len((1 << 20) + 1);
    assert_eq!(only(&check(&t, true)).grade, FindingGrade::Leftover);
    assert_eq!(payload.metadata().unwrap().len(), (1 << 20) + 1, "bytes were cut off");
    set_len((1 << 20) - 1);
    let report = check(&t, true);
    assert_eq!((only(&report).grade, report.damaged), (FindingGrade::Damaged, 1));
    fs::remove_file(&payload).unwrap();
    assert_eq!(only(&check(&t, true)).grade, FindingGrade::Damaged);
    fs::create_dir(&payload).unwrap();
    assert_eq!(only(&check(&t, true)).grade, FindingGrade::Damaged);
}

#[test]
fn remains_go_with_a_repair_and_strays_stay() {
    let t = host();
    let disks = t.store().join("web01/disks");
    fs::write(disks.join(".root.disk.0011.coffer-tmp"), "x").unwrap();
    assert_eq!(only(&check(&t, false)).repair, FindingRepair::Possible);
    let report = check(&t, true);
    assert_eq!((only(&report).repair, report.mended), (FindingRepair::Done, 1));
    fs::write(disks.join("old.data"), "x").unwrap();
    let report = check(&t, true);
    assert_eq!((only(&report).repair, report.leftovers), (FindingRepair::None, 1));
    assert!(disks.join("old.data").exists());
}

#[test]
fn an_empty_payload_without_a_disk_goes_with_a_repair_once_all_descriptors_are_read() {
    let t = host();
    let disks = t.store().join("web01/disks");
    File::create(disks.join("cut.data")).unwrap().set_len(1 << 20).unwrap();
    assert_eq!(only(&check(&t, false)).repair, FindingRepair::Possible);
    let text = fs::read_to_string(disks.join("root.disk")).unwrap();
    fs::write(disks.join("root.disk"), text.replace("root.data", "cut.data")).unwrap();
    let report = check(&t, true);
    assert_eq!((report.damaged, report.leftovers, report.mended), (1, 1, 0));
    assert!(disks.join("cut.data").exists(), "the damaged descriptor may be right");
    fs::write(disks.join("root.disk"), text).unwrap();
    assert_eq!(only(&check(&t, true)).repair, FindingRepair::Done);
    assert!(!disks.join("cut.data").exists() && disks.join("root.data").exists());
}

#[test]
fn a_check_ends_when_whoever_asked_has_left() {
    let (t, asker) = (host(), Asker::default());
    drop(asker.waits());
    let error = refused(t.host.check_vm("web01", &CheckVm::default(), &asker));
    assert_eq!(error.code, ErrorCode::DataPlane);
    assert!(error.message.contains("has left"), "{}", error.message);
}

#[test]
fn a_locked_vm_is_not_checked() {
    let (t, asker) = (host(), Asker::default());
    t.host.lock_vm("web01", &hostd_api::types::Force { force: false }).unwrap();
    assert_eq!(code(t.host.check_vm("web01", &CheckVm::default(), &asker)), ErrorCode::VmLocked);
    assert_eq!(code(t.host.check_vm("web02", &CheckVm::default(), &asker)), ErrorCode::NotFound);
}

#[test]
fn who_enters_urgently_is_wanted_until_inside() {
    let t = host();
    let vm = t.host.inventory.get("web01").unwrap();
    let held = vm.enter().unwrap();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| vm.enter_urgently().map(drop));
        let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !vm.is_wanted() {
            assert!(std::time::Instant::now() < end, "nobody waits");
            std::thread::yield_now();
        }
        drop(held);
        other.join().unwrap().unwrap();
    });
    assert!(!vm.is_wanted());
}

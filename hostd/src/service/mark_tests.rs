//! Disks that another host has attached, and marks of this host that were left.

use super::*;
use crate::files::{self, Locked};
use crate::testing::{TestHost, refused};
use cryptfs::lease::Holder;
use hostd_api::types::{Force, ResizeDisk, RotateKeys};

fn bench() -> TestHost {
    let t = TestHost::new();
    t.vm("web01");
    t.disk("web01", "root");
    t
}

fn leases(t: &TestHost) -> Leases {
    let vm = t.host.inventory.get("web01").unwrap();
    let opened = t.host.open_safe(&vm, &mut vm.try_enter().unwrap()).unwrap();
    Leases::new(&vm.folder, vm.id, &opened.key, t.host.keyring.arena()).unwrap()
}

fn other() -> Holder {
    Holder { id: Uuid::from_u128(2), name: "node2".into() }
}

fn delete(t: &TestHost, force: bool) -> Result<(), Fault> {
    t.host.delete_disk("web01", "root", &Force { force }).map(drop)
}

fn resize(t: &TestHost, force: bool) -> Result<(), Fault> {
    let request = ResizeDisk { size: 2 << 20, shrink: false, force };
    t.host.resize_disk("web01", "root", &request).map(drop)
}

fn rotation(t: &TestHost, force: bool) -> Option<String> {
    let report = t.host.rotate_keys(&RotateKeys { force, ..Default::default() }).unwrap();
    report.vms.into_iter().next().unwrap().error
}

#[test]
fn disks_that_another_host_has_attached_are_left_alone() {
    for (how, words) in [(Use::Disks, "with disks attached"), (Use::Exclusive, "exclusively")] {
        let t = bench();
        let claim = leases(&t).take(&other(), how, false, 1_700_000_000).unwrap().claim;
        for error in [refused(delete(&t, false)), refused(resize(&t, false))] {
            assert_eq!(error.code, ErrorCode::InUse);
            let expected = format!("node2 ({}), {words} since 2023-11-14", other().id);
            assert!(error.message.contains(&expected), "{error:?}");
            assert!(error.remedy.contains("--force"), "{error:?}");
        }
        let error = rotation(&t, false).unwrap();
        assert!(error.contains("node2") && error.contains("--force"), "{error}");
        let error = refused(t.host.delete_vm("web01", &Force::default()));
        assert!(error.message.contains("node2") && error.remedy.contains("--force"), "{error:?}");

        resize(&t, true).unwrap();
        assert_eq!(rotation(&t, true), None);
        assert!(delete(&t, false).is_err());
        leases(&t).release(&claim, 1_700_000_001).unwrap();
        assert_eq!(rotation(&t, false), None);
        delete(&t, false).unwrap();
    }
}

#[test]
fn a_home_that_is_shared_elsewhere_is_no_matter_of_the_disks() {
    let t = bench();
    leases(&t).take(&other(), Use::Shared, false, 1).unwrap();
    resize(&t, false).unwrap();
    assert_eq!(rotation(&t, false), None);
    delete(&t, false).unwrap();
}

#[test]
fn without_the_key_a_mark_of_another_host_is_believed_and_no_old_lease() {
    let t = bench();
    let claim = leases(&t).take(&other(), Use::Exclusive, false, 1).unwrap().claim;
    leases(&t).release(&claim, 2).unwrap();
    let marked = leases(&t).take(&other(), Use::Disks, false, 1).unwrap().claim;
    let t = t.restarted_without_keys();
    let error = refused(delete(&t, false));
    assert_eq!(error.code, ErrorCode::InUse);
    assert!(error.message.contains("seems to") && error.remedy.contains("--force"), "{error:?}");
    let t = t.restarted();
    leases(&t).release(&marked, 3).unwrap();
    let t = t.restarted_without_keys();
    delete(&t, false).unwrap();
}

#[test]
fn what_cannot_be_read_is_no_absence_and_force_goes_past_it() {
    let t = bench();
    leases(&t).take(&other(), Use::Disks, false, 1).unwrap();
    let vm = t.host.inventory.get("web01").unwrap();
    let record = vm.folder.leases().join(format!("disks.{}", other().id));
    std::fs::write(record, "rubbish").unwrap();
    assert!(delete(&t, false).is_err() && rotation(&t, false).is_some());
    delete(&t, true).unwrap();
}

#[test]
fn a_mark_that_was_left_is_taken_away_unless_something_serves_the_vm() {
    let t = bench();
    leases(&t).take(&t.host.holder(), Use::Disks, false, 1).unwrap();
    leases(&t).take(&other(), Use::Disks, false, 1).unwrap();
    let vm = t.host.inventory.get("web01").unwrap();
    let Locked::Ours(lock) = files::lock(&vm.folder.lock()).unwrap() else { panic!("not free") };
    t.host.clear_marks();
    assert!(t.host.has_mark(&vm));
    drop(lock);
    t.host.clear_marks();
    assert!(!t.host.has_mark(&vm));
    assert!(lease::has_disks(&vm.folder, other().id), "the mark of another host");
}

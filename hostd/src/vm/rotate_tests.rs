//! Tests of the shallow recrypt: a new key, and what a stop at any file leaves.

use super::*;
use crate::testing::TestHost;
use cryptfs::descriptor::Descriptor;
use cryptfs::safe::Safe;
use cryptfs::seal::Sealed;
use hostd_api::types::KeyringState;

fn host() -> TestHost {
    let t = TestHost::new();
    t.vm("web01");
    t.disk("web01", "a");
    t.disk("web01", "b");
    t
}

/// Key ids of the safe and of both descriptors.
fn keys(t: &TestHost) -> Vec<Vec<String>> {
    let folder = cryptfs::folder::VmFolder::new(t.store().join("web01"));
    let of_disk = |name: &str| {
        let sealed = Sealed::<Descriptor>::read(&folder.descriptor(&name.parse().unwrap()));
        sealed.unwrap().key_ids().map(ToString::to_string).collect()
    };
    let safe = Sealed::<Safe>::read(&folder.safe()).unwrap();
    vec![safe.key_ids().map(ToString::to_string).collect(), of_disk("a"), of_disk("b")]
}

fn rotate(t: &TestHost) -> RotatedVm {
    let report =
        t.host.rotate_keys(&RotateKeys { vm: Some("web01".into()), rewrap: false }).unwrap();
    report.vms.into_iter().next().unwrap()
}

/// Everything of the VM opens without the key `lost`.
fn opens_without(t: &TestHost, lost: &str) {
    let lost: KeyId = lost.parse().unwrap();
    t.host.keyring.evict(&lost, true).unwrap();
    let vm = t.host.inventory.get("web01").unwrap();
    let mut inner = vm.enter().unwrap();
    t.host.open_safe(&vm, &mut inner).unwrap();
    for disk in ["a", "b"] {
        t.host.open_disk(&vm, &inner, &disk.parse().unwrap()).unwrap();
    }
    t.host.keyring.readmit(&lost);
}

#[test]
fn every_file_gets_the_new_key_and_only_that() {
    let t = host();
    let old = keys(&t)[0][0].clone();
    let done = rotate(&t);
    let new = done.key_id.unwrap();
    assert_ne!(new, old);
    assert_eq!((done.rewrapped, done.error), (3, None));
    assert_eq!(keys(&t), vec![vec![new.clone()]; 3]);
    opens_without(&t, &old);
    let t = t.restarted();
    assert_eq!(t.host.show_vm("web01").unwrap().key_ids, std::slice::from_ref(&new));
    assert_eq!(t.host.keyring.state(&old.parse().unwrap()), KeyringState::Absent);
    let used = t.host.key_status().unwrap().keys;
    let info = |id: &str| used.iter().find(|k| k.id == id).unwrap();
    assert_eq!(info(&new).used_by, ["web01", "web01/a", "web01/b"]);
    assert!(info(&old).used_by.is_empty());
}

#[test]
fn all_vms_are_rotated_and_one_that_fails_stops_no_other() {
    let t = host();
    t.vm("web02");
    std::fs::write(t.store().join("web01/disks/a.disk"), "{").unwrap();
    let before = std::fs::read(t.store().join("web01/vm.safe")).unwrap();
    let report = t.host.rotate_keys(&RotateKeys::default()).unwrap();
    let failed = &report.vms[0];
    assert!(failed.error.as_ref().unwrap().contains("a.disk"), "{failed:?}");
    assert_eq!((failed.rewrapped, failed.key_id.clone()), (0, None));
    assert_eq!(std::fs::read(t.store().join("web01/vm.safe")).unwrap(), before, "untouched");
    assert_eq!(report.vms[1].error, None);
}

#[test]
fn a_stop_in_the_first_half_leaves_the_old_key_enough_and_can_be_resumed() {
    let t = host();
    let old = keys(&t)[0][0].clone();
    let target = {
        let vm = t.host.inventory.get("web01").unwrap();
        let mut inner = vm.enter().unwrap();
        let safe = t.host.open_safe(&vm, &mut inner).unwrap();
        let target = t.host.target(&vm, &safe).unwrap();
        let first = BTreeSet::from(["a".parse().unwrap()]);
        t.host.add_wraps(&vm, &mut inner, safe, &first, &target).unwrap();
        target.id().to_string()
    };
    assert_eq!(keys(&t)[1..], [vec![old.clone(), target.clone()], vec![old.clone()]]);
    opens_without(&t, &target);
    let done = rotate(&t);
    assert_eq!(done.key_id, Some(target.clone()), "the same new key is taken again");
    assert_eq!(keys(&t), vec![vec![target]; 3]);
    opens_without(&t, &old);
}

#[test]
fn a_stop_in_the_second_half_leaves_the_new_key_enough_and_can_be_resumed() {
    let t = host();
    let old = keys(&t)[0][0].clone();
    let target = {
        let vm = t.host.inventory.get("web01").unwrap();
        let mut inner = vm.enter().unwrap();
        let safe = t.host.open_safe(&vm, &mut inner).unwrap();
        let target = t.host.target(&vm, &safe).unwrap();
        let disks = disk_names(&vm.folder.disks());
        t.host.add_wraps(&vm, &mut inner, safe, &disks, &target).unwrap();
        let disk: Name = "a".parse().unwrap();
        let opened = t.host.open_disk(&vm, &inner, &disk).unwrap();
        t.host.rewrap(&vm.folder.descriptor(&disk), opened, &target, true).unwrap();
        target.id().to_string()
    };
    opens_without(&t, &old);
    let done = rotate(&t);
    assert_eq!((done.key_id, done.error), (Some(target.clone()), None));
    assert_eq!(keys(&t), vec![vec![target]; 3]);
}

#[test]
fn a_locked_vm_is_not_rotated() {
    let t = host();
    t.host.lock_vm("web01", &hostd_api::types::Force::default()).unwrap();
    let done = rotate(&t);
    assert!(done.error.unwrap().contains("locked"));
    assert!(t.host.rotate_keys(&RotateKeys { vm: Some("nope".into()), rewrap: false }).is_err());
}

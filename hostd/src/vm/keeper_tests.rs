//! VMs whose key never leaves its provider.

use crate::testing::{Keeper, TestHost};
use cryptfs::descriptor::Descriptor;
use cryptfs::folder::VmFolder;
use cryptfs::safe::Safe;
use cryptfs::seal::{Body, Sealed};
use hostd_api::error::LockCode;
use hostd_api::types::{Force, KeyringState, RotateKeys, VmState};
use std::sync::Arc;
use std::sync::atomic::Ordering;

fn host() -> (TestHost, Arc<Keeper>) {
    let keeper = Arc::new(Keeper::new());
    let t = TestHost::new().with_keeper(&keeper);
    t.vm("web01");
    t.disk("web01", "a");
    (t, keeper)
}

/// The versions in the blobs of the safe and the descriptor.
fn versions(t: &TestHost) -> Vec<String> {
    let folder = VmFolder::new(t.store().join("web01"));
    let safe = Sealed::<Safe>::read(&folder.safe()).unwrap();
    let disk = Sealed::<Descriptor>::read(&folder.descriptor(&"a".parse().unwrap())).unwrap();
    let wraps = [safe.unverified().wraps().to_vec(), disk.unverified().wraps().to_vec()];
    let version = |wrap: &cryptfs::seal::Wrap| {
        let text = String::from_utf8(wrap.blob.clone()).unwrap();
        text.split(':').nth(1).unwrap().to_owned()
    };
    wraps.iter().flatten().map(version).collect()
}

fn rotate(t: &TestHost, rewrap: bool) -> (u32, Option<String>) {
    let request = RotateKeys { vm: Some("web01".into()), rewrap, ..Default::default() };
    let done = t.host.rotate_keys(&request).unwrap().vms.remove(0);
    assert_eq!(done.error, None);
    (done.rewrapped, done.key_id)
}

#[test]
fn each_opening_asks_the_provider_and_no_key_is_kept() {
    let (t, keeper) = host();
    let vm = t.host.inventory.get("web01").unwrap();
    let mut inner = vm.enter().unwrap();
    let before = keeper.unwraps.load(Ordering::SeqCst);
    let opened = t.host.open_safe(&vm, &mut inner).unwrap();
    t.host.open_disk(&vm, &inner, &"a".parse().unwrap()).unwrap();
    assert_eq!(keeper.unwraps.load(Ordering::SeqCst), before + 2);
    assert_eq!(t.host.keyring.state(opened.lease.id()), KeyringState::Remote);
}

#[test]
fn an_outage_locks_with_the_reason_and_ends_with_it() {
    let (t, keeper) = host();
    t.host.lock_vm("web01", &Force::default()).unwrap();
    keeper.down.store(true, Ordering::SeqCst);
    assert!(t.host.unlock_vm("web01").is_err());
    let lock = t.host.show_vm("web01").unwrap().lock.unwrap();
    assert_eq!(lock.code, LockCode::ProviderUnavailable);
    assert_eq!(lock.key_id.as_deref(), Some("vault/k"));
    keeper.down.store(false, Ordering::SeqCst);
    assert_eq!(t.host.unlock_vm("web01").unwrap().state, VmState::Unlocked);
}

#[test]
fn a_rotation_is_a_new_version_of_the_same_key() {
    let (t, _keeper) = host();
    assert_eq!(versions(&t), ["v1", "v1"]);
    assert_eq!(rotate(&t, false), (2, Some("vault/k".into())));
    assert_eq!(versions(&t), ["v2", "v2"]);
    assert_eq!(rotate(&t, true), (0, Some("vault/k".into())), "the newest already");
    assert_eq!(versions(&t), ["v2", "v2"]);
}

#[test]
fn what_the_server_rotated_is_followed_and_a_stop_in_the_middle_resumed() {
    let (t, keeper) = host();
    keeper.version.store(7, Ordering::SeqCst);
    {
        let vm = t.host.inventory.get("web01").unwrap();
        let mut inner = vm.enter().unwrap();
        let safe = t.host.open_safe(&vm, &mut inner).unwrap();
        t.host.renew_wraps(&vm, &mut inner, safe, &std::collections::BTreeSet::new()).unwrap();
    }
    assert_eq!(versions(&t), ["v7", "v1"], "both open");
    assert_eq!(rotate(&t, true).0, 1);
    assert_eq!(versions(&t), ["v7", "v7"]);
}

#[test]
fn vms_that_share_a_key_share_its_new_version() {
    let (t, keeper) = host();
    t.vm("web02");
    t.host.rotate_keys(&RotateKeys::default()).unwrap();
    assert_eq!(keeper.version.load(Ordering::SeqCst), 2);
}

#[test]
fn the_wrap_of_another_vm_opens_nothing() {
    let (t, _keeper) = host();
    t.vm("web02");
    let safe = |vm: &str| t.store().join(vm).join("vm.safe");
    let blob = |text: &str| {
        let start = text.find("vault:v").unwrap();
        let length = text[start..].find('"').unwrap();
        text[start..start + length].to_owned()
    };
    let [own, other] = ["web01", "web02"].map(|vm| std::fs::read_to_string(safe(vm)).unwrap());
    std::fs::write(safe("web01"), own.replace(&blob(&own), &blob(&other))).unwrap();
    let vm = t.host.inventory.get("web01").unwrap();
    let mut inner = vm.enter().unwrap();
    assert!(t.host.open_safe(&vm, &mut inner).is_err());
    assert_eq!(inner.trouble.as_ref().unwrap().code, LockCode::WrongKey);
}

#[test]
fn a_vm_moves_to_the_provider_that_new_keys_come_from() {
    let t = TestHost::new();
    t.vm("web01");
    t.disk("web01", "a");
    let keeper = Arc::new(Keeper::new());
    let t = t.with_keeper(&keeper);
    assert_eq!(rotate(&t, true).0, 0, "no new key was asked for");
    assert_eq!(rotate(&t, false), (2, Some("vault/k".into())));
    assert_eq!(versions(&t), ["v1", "v1"]);
    assert_eq!(t.host.show_vm("web01").unwrap().key_ids, ["vault/k"]);
}

//! Who uses a key, as far as the datastores show. That keys really end is tested with a key server, in `tests/it/kmip`.

use super::*;
use crate::testing::TestHost;
use std::os::unix::fs::symlink;

fn key_of(t: &TestHost, vm: &str) -> KeyId {
    t.host.show_vm(vm).unwrap().key_ids[0].parse().unwrap()
}

fn users(t: &TestHost, key: &KeyId) -> Result<u64, String> {
    t.host.unused(key).map(|looked| looked.files).map_err(|fault| fault.to_string())
}

#[test]
fn a_key_is_used_by_safes_and_descriptors_that_name_it() {
    let t = TestHost::new();
    t.vm("web01");
    t.disk("web01", "a");
    t.vm("web02");
    let key = key_of(&t, "web01");
    let said = users(&t, &key).unwrap_err();
    assert!(said.contains("web01/vm.safe") && said.contains("disks/a.disk"), "{said}");
    assert!(!said.contains("web02"), "{said}");
    // An id that another one begins with is another key.
    let longer: KeyId = format!("{key}0").parse().unwrap();
    assert_eq!(users(&t, &longer), Ok(3));
    std::fs::remove_dir_all(t.store().join("web01")).unwrap();
    assert_eq!(users(&t, &key), Ok(1));
}

#[test]
fn copies_and_damaged_ones_count_as_well() {
    let t = TestHost::new();
    t.vm("web01");
    let key = key_of(&t, "web01");
    let safe = std::fs::read(t.store().join("web01/vm.safe")).unwrap();
    std::fs::remove_dir_all(t.store().join("web01")).unwrap();
    assert_eq!(users(&t, &key), Ok(0));
    let deep = t.store().join("backups/2026/web01");
    std::fs::create_dir_all(deep.join("home/vm.safe.d")).unwrap();
    std::fs::write(deep.join("vm.safe"), &safe[..safe.len() - 40]).unwrap();
    let said = users(&t, &key).unwrap_err();
    assert!(said.contains("backups/2026/web01/vm.safe"), "{said}");
    std::fs::write(deep.join("vm.safe"), "").unwrap();
    // Nothing of a home is looked into, and no link is followed.
    std::fs::write(deep.join("home/x.disk"), &safe).unwrap();
    std::fs::write(t.dir.path().join("elsewhere.disk"), &safe).unwrap();
    symlink(t.dir.path().join("elsewhere.disk"), t.store().join("link.disk")).unwrap();
    assert_eq!(users(&t, &key), Ok(1));
}

#[test]
fn a_datastore_that_cannot_be_looked_at_may_have_users() {
    let t = TestHost::new();
    t.vm("web01");
    let key = key_of(&t, "web01");
    std::fs::remove_dir_all(t.store().join("web01")).unwrap();
    let mut deep = t.store();
    for _ in 0..=MAX_DEPTH {
        deep.push("d");
    }
    std::fs::create_dir_all(&deep).unwrap();
    let said = users(&t, &key).unwrap_err();
    assert!(said.contains("too deep"), "{said}");
}

#[test]
fn the_native_provider_ends_no_keys_one_by_one() {
    let t = TestHost::new();
    let key = t.host.keyring.providers()[0].create_key().unwrap().to_string();
    let request = DestroyKey { key: key.clone() };
    let said = t.host.destroy_key(&request).unwrap_err().to_string();
    assert!(said.contains("one by one"), "{said}");
    // It can be fetched all the same afterwards.
    drop(t.host.keyring.lease(&key.parse().unwrap(), "a test").unwrap());
    let stranger = RevokeKey { key: "kmip/1".into(), compromised: false, why: None };
    let said = t.host.revoke_key(&stranger).unwrap_err().to_string();
    assert!(said.contains("no open key provider kmip"), "{said}");
}

#[test]
fn a_key_that_a_verb_is_using_is_not_ended() {
    let t = TestHost::new();
    let id = t.host.keyring.providers()[0].create_key().unwrap();
    let lease = t.host.keyring.lease(&id, "web09").unwrap();
    let said = t.host.destroy_key(&DestroyKey { key: id.to_string() }).unwrap_err().to_string();
    assert!(said.contains("used by web09"), "{said}");
    let request = RevokeKey { key: id.to_string(), compromised: true, why: None };
    let said = t.host.revoke_key(&request).unwrap_err().to_string();
    assert!(said.contains("a verb that runs now"), "{said}");
    drop(lease);
}

//! Keys, safes and descriptors for the unit tests of this crate.

use crate::descriptor::Descriptor;
use crate::safe::{Policy, Safe};
use crate::seal::Wrap;
use crypto::{Arena, Dek, HomeKey, Kek, KeyId};
use uuid::Uuid;

/// Room for the keys of one test.
pub(crate) fn arena() -> Arena {
    Arena::new(64 * 1024).unwrap()
}

/// A key-encrypting key and its name.
pub(crate) struct TestKek {
    pub(crate) kek: Kek,
    pub(crate) id: KeyId,
}

impl TestKek {
    pub(crate) fn new(arena: &Arena, id: &str) -> Self {
        Self { kek: Kek::generate(arena).unwrap(), id: id.parse().unwrap() }
    }
}

/// A safe of the VM `web01`, not yet written, and its key.
pub(crate) fn safe(arena: &Arena, keks: &[&TestKek]) -> (Safe, HomeKey) {
    let key = HomeKey::generate(arena).unwrap();
    let wraps = keks.iter().map(|k| Wrap::make(&k.kek, &k.id, &key).unwrap()).collect();
    let name = "web01".parse().unwrap();
    (Safe::new(Uuid::from_u128(7), name, Policy::default(), wraps), key)
}

/// A descriptor of the disk `root` of that VM, not yet written, and its key.
pub(crate) fn descriptor(arena: &Arena, kek: &TestKek, size: u64) -> (Descriptor, Dek) {
    let key = Dek::generate(arena).unwrap();
    let wraps = vec![Wrap::make(&kek.kek, &kek.id, &key).unwrap()];
    let (id, vm) = (Uuid::from_u128(8), Uuid::from_u128(7));
    (Descriptor::new(id, "root".parse().unwrap(), vm, size, None, wraps).unwrap(), key)
}

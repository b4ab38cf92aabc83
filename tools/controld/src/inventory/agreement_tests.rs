//! Random changes of an inventory whose store fails at any commit, and whose process is killed there.

use super::tests::{cluster, disk, key, name, vm};
use super::*;
use crate::store::{EmbeddedStore, Lease, Page, Watch};
use proptest::prelude::{Strategy, any, prop_oneof, proptest};
use proptest::test_runner::Config;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

/// A store whose commits fail from some time on: before or after they are done.
struct Fragile {
    inner: EmbeddedStore,
    commits_left: AtomicU32,
    dies_after: bool,
}

impl Store for Fragile {
    fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.inner.get(key)
    }

    fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.inner.scan(prefix, after, limit)
    }

    fn commit(&self, txn: &Txn) -> Result<Revision, StoreError> {
        let left = self.commits_left.load(Ordering::Relaxed);
        if left > 0 {
            self.commits_left.store(left - 1, Ordering::Relaxed);
            return self.inner.commit(txn);
        }
        if self.dies_after {
            self.inner.commit(txn)?;
        }
        Err(StoreError::Uncertain { reason: "the process is gone".into() })
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.inner.watch(prefix, after)
    }

    fn grant(&self, life: Duration) -> Result<Lease, StoreError> {
        self.inner.grant(life)
    }

    fn keep_alive(&self, lease: Lease) -> Result<(), StoreError> {
        self.inner.keep_alive(lease)
    }

    fn revoke(&self, lease: Lease) -> Result<(), StoreError> {
        self.inner.revoke(lease)
    }
}

#[derive(Debug, Clone)]
enum Step {
    PutVm { vm: u128, called: u8, key: usize, host: Option<u8> },
    RemoveVm { vm: u128 },
    PutDisk { disk: u128, vm: Option<u128>, called: u8, keys: Vec<usize> },
    RemoveDisk { disk: u128 },
    Backup { vm: u128, key: usize },
    Retire { key: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let vm = 0_u128..3;
    prop_oneof![
        4 => (vm.clone(), 0_u8..4, 0_usize..4, proptest::option::of(0_u8..2))
            .prop_map(|(vm, called, key, host)| Step::PutVm { vm, called, key, host }),
        2 => vm.clone().prop_map(|vm| Step::RemoveVm { vm }),
        6 => (0_u128..5, proptest::option::of(vm.clone()), 0_u8..3, proptest::collection::vec(0_usize..4, 0..3))
            .prop_map(|(disk, vm, called, keys)| Step::PutDisk { disk, vm, called, keys }),
        2 => (0_u128..5).prop_map(|disk| Step::RemoveDisk { disk }),
        1 => (vm, 0_usize..4).prop_map(|(vm, key)| Step::Backup { vm, key }),
        1 => (0_usize..4).prop_map(|key| Step::Retire { key }),
    ]
}

/// Does a step; a refusal is an outcome like any other.
fn take(inventory: &Inventory, step: &Step) -> Result<(), InventoryError> {
    match step {
        Step::PutVm { vm: id, called, key, host } => {
            let record = Vm {
                host: host.map(|host| name(&format!("h{host}"))),
                ..vm(*id, &format!("vm{called}"), &[KEYS[*key]])
            };
            let held = inventory.vm(record.id).ok();
            inventory.put(&record, held.as_ref()).map(|_| ())
        }
        Step::RemoveVm { vm } => inventory.remove(&inventory.vm(Uuid::from_u128(*vm))?),
        Step::PutDisk { disk: id, vm, called, keys } => {
            let keys: Vec<_> = keys.iter().map(|key| KEYS[*key]).collect();
            let record = disk(*id, *vm, &format!("d{called}"), &keys);
            let held = inventory.disk(record.id).ok();
            inventory.put(&record, held.as_ref()).map(|_| ())
        }
        Step::RemoveDisk { disk } => {
            inventory.remove(&inventory.disk(Uuid::from_u128(1000 + disk))?)
        }
        Step::Backup { vm, key: id } => {
            let record = Backup {
                id: Uuid::from_u128(*vm),
                vm: Uuid::from_u128(*vm),
                note: "tape".into(),
                made_at: 1,
                key_ids: vec![key(KEYS[*id])],
            };
            let held = inventory.get::<Backup>(&record.place()).ok();
            inventory.put(&record, held.as_ref()).map(|_| ())
        }
        Step::Retire { key: id } => inventory.retire(&key(KEYS[*id])),
    }
}

/// Who needs a key, found without the index.
fn needed_by(inventory: &Inventory, id: &KeyId) -> BTreeSet<String> {
    fn of<R: Record>(inventory: &Inventory, id: &KeyId) -> Vec<String> {
        let all = inventory.list::<R>("", None, 1000).unwrap().records;
        let users = all.into_iter().filter(|held| held.record.key_ids().contains(id));
        users.map(|held| format!("{}/{}", R::KIND, held.record.place())).collect()
    }
    let all = [of::<Vm>(inventory, id), of::<Disk>(inventory, id), of::<Backup>(inventory, id)];
    all.into_iter().flatten().collect()
}

/// What must hold whenever somebody looks.
fn holds(inventory: &Inventory) {
    assert_eq!(inventory.check().unwrap(), []);
    for id in KEYS.map(key) {
        let (users, _) = inventory.users(&id, None, 1000).unwrap();
        let users: BTreeSet<_> =
            users.into_iter().map(|user| format!("{}/{}", user.kind, user.place)).collect();
        assert_eq!(users, needed_by(inventory, &id));
        let state = inventory.key(&id).unwrap().map(|held| held.record.state);
        match state {
            Some(KeyState::Retired) | None => assert!(users.is_empty(), "{id} {users:?}"),
            Some(KeyState::Active | KeyState::Retiring) => {}
        }
    }
}

/// The file as it is at this moment, in another place: what a kill leaves.
fn killed(path: &PathBuf, number: usize) -> PathBuf {
    let copy = path.with_file_name(format!("{number}.redb"));
    std::fs::copy(path, &copy).unwrap();
    copy
}

proptest! {
    #![proptest_config(Config { cases: 32, ..Config::default() })]
    #[test]
    fn records_and_index_agree_after_every_step_and_every_crash(
        steps in proptest::collection::vec((step(), proptest::option::weighted(0.3, (0_u32..4, any::<bool>()))), 1..25)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut path = dir.path().join("first.redb");
        Inventory::new(Arc::new(EmbeddedStore::open(&path).unwrap())).put(&cluster("berlin"), None).unwrap();
        for (number, (step, crash)) in steps.iter().enumerate() {
            let (commits, dies_after) = crash.unwrap_or((u32::MAX, false));
            let commits_left = AtomicU32::new(commits);
            let inner = EmbeddedStore::open(&path).unwrap();
            let store = Arc::new(Fragile { inner, commits_left, dies_after });
            let inventory = Inventory::new(Arc::clone(&store) as Arc<dyn Store>);
            let outcome = take(&inventory, step);
            if let Err(InventoryError::Damaged { .. } | InventoryError::Unsupported { .. }) = outcome {
                panic!("{outcome:?}");
            }
            let next = killed(&path, number);
            drop((inventory, store));
            path = next;
            holds(&Inventory::new(Arc::new(EmbeddedStore::open(&path).unwrap())));
        }
    }
}

use super::*;
use crate::store::EmbeddedStore;

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(super) fn key(text: &str) -> KeyId {
    format!("kmip/{text}").parse().unwrap()
}

pub(super) fn cluster(text: &str) -> Cluster {
    Cluster { name: name(text), provider: None, made_at: 1 }
}

pub(super) fn vm(number: u128, text: &str, keys: &[&str]) -> Vm {
    Vm {
        id: Uuid::from_u128(number),
        name: name(text),
        cluster: name("berlin"),
        host: None,
        datastore: None,
        policy: None,
        key_ids: keys.iter().map(|id| key(id)).collect(),
    }
}

pub(super) fn disk(number: u128, vm: Option<u128>, text: &str, keys: &[&str]) -> Disk {
    Disk {
        id: Uuid::from_u128(1000 + number),
        name: name(text),
        vm: vm.map(Uuid::from_u128),
        size: 4096,
        key_ids: keys.iter().map(|id| key(id)).collect(),
    }
}

struct T {
    inventory: Inventory,
    store: Arc<dyn Store>,
    _dir: tempfile::TempDir,
}

fn new() -> T {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> =
        Arc::new(EmbeddedStore::open(&dir.path().join("store.redb")).unwrap());
    let inventory = Inventory::new(Arc::clone(&store));
    inventory.put(&cluster("berlin"), None).unwrap();
    T { inventory, store, _dir: dir }
}

impl T {
    fn users(&self, id: &str) -> Vec<String> {
        let (users, _) = self.inventory.users(&key(id), None, 100).unwrap();
        users.into_iter().map(|user| format!("{} {}", user.kind, user.title)).collect()
    }

    fn agrees(&self) {
        assert_eq!(self.inventory.check().unwrap(), []);
    }
}

#[test]
fn a_vm_is_found_by_name_identity_and_key() {
    let t = new();
    let i = &t.inventory;
    i.put(&vm(1, "web01", &["a"]), None).unwrap();
    i.put(&disk(1, Some(1), "root", &["a", "b"]), None).unwrap();
    assert_eq!(i.vm(Uuid::from_u128(1)).unwrap().record.name, name("web01"));
    assert_eq!(i.get::<Vm>("berlin/web01").unwrap().record.id, Uuid::from_u128(1));
    assert_eq!(t.users("a").len(), 2);
    assert_eq!(t.users("b"), [format!("disk root of VM {}", Uuid::from_u128(1))]);
    assert!(t.users("c").is_empty());
    t.agrees();
}

#[test]
fn what_a_change_leaves_behind_is_gone() {
    let t = new();
    let i = &t.inventory;
    i.put(&vm(1, "web01", &["a"]), None).unwrap();
    let held = i.vm(Uuid::from_u128(1)).unwrap();
    let moved = Vm { name: name("web02"), host: Some(name("h1")), ..vm(1, "x", &["b"]) };
    i.put(&moved, Some(&held)).unwrap();
    assert!(matches!(i.get::<Vm>("berlin/web01"), Err(InventoryError::NotFound { .. })));
    assert_eq!((t.users("a").len(), t.users("b").len()), (0, 1));
    let stale = i.put(&vm(1, "web01", &["a"]), Some(&held));
    assert!(matches!(stale, Err(InventoryError::Changed { .. })), "{stale:?}");
    t.agrees();
}

#[test]
fn names_and_identities_are_taken_once() {
    let t = new();
    let i = &t.inventory;
    i.put(&vm(1, "web01", &["a"]), None).unwrap();
    for other in [vm(2, "web01", &["b"]), vm(1, "web02", &["b"]), vm(1, "web01", &["b"])] {
        let refused = i.put(&other, None);
        assert!(matches!(refused, Err(InventoryError::Exists { .. })), "{refused:?}");
    }
    i.put(&vm(2, "web02", &["b"]), None).unwrap();
    let held = i.vm(Uuid::from_u128(2)).unwrap();
    let refused = i.put(&vm(2, "web01", &["b"]), Some(&held));
    assert!(matches!(refused, Err(InventoryError::Exists { .. })), "{refused:?}");
    assert_eq!(t.users("b").len(), 1);
    t.agrees();
}

#[test]
fn parents_must_be_there_and_not_be_leaving() {
    let t = new();
    let i = &t.inventory;
    let homeless = Vm { cluster: name("nowhere"), ..vm(1, "web01", &["a"]) };
    assert!(matches!(i.put(&homeless, None), Err(InventoryError::NotFound { .. })));
    assert!(matches!(
        i.put(&disk(1, Some(1), "root", &["a"]), None),
        Err(InventoryError::NotFound { .. })
    ));
    i.put(&vm(1, "web01", &["a"]), None).unwrap();
    // A removal that was begun and cut short.
    let leaving = rooted(&Parent::Vm(Uuid::from_u128(1)).leaving());
    t.store.commit(&Txn::new().put(leaving, "")).unwrap();
    let held = i.vm(Uuid::from_u128(1)).unwrap();
    let late = i.put(&disk(1, Some(1), "root", &["a"]), None);
    assert!(matches!(late, Err(InventoryError::Leaving { .. })), "{late:?}");
    let late = i.put(&vm(1, "web02", &["a"]), Some(&held));
    assert!(matches!(late, Err(InventoryError::Leaving { .. })), "{late:?}");
    i.remove(&held).unwrap();
    i.put(&vm(1, "web01", &["a"]), None).unwrap();
    t.agrees();
}

#[test]
fn a_vm_goes_with_its_disks_and_a_cluster_must_be_empty() {
    let t = new();
    let i = &t.inventory;
    i.put(&vm(1, "web01", &["a"]), None).unwrap();
    for n in 0..40 {
        i.put(&disk(n, Some(1), &format!("d{n}"), &["a", "b"]), None).unwrap();
    }
    i.put(&disk(99, None, "loose", &["a"]), None).unwrap();
    let berlin = i.get::<Cluster>("berlin").unwrap();
    let full = i.remove(&berlin);
    assert!(matches!(full, Err(InventoryError::NotEmpty { .. })), "{full:?}");
    i.put(&vm(2, "web02", &["c"]), None).unwrap();
    i.remove(&i.vm(Uuid::from_u128(2)).unwrap()).unwrap();
    i.remove(&i.vm(Uuid::from_u128(1)).unwrap()).unwrap();
    assert_eq!(t.users("a"), ["disk loose, detached"]);
    assert!(t.users("b").is_empty());
    i.remove(&i.get::<Cluster>("berlin").unwrap()).unwrap();
    assert!(matches!(i.put(&vm(3, "web03", &["a"]), None), Err(InventoryError::NotFound { .. })));
    t.agrees();
}

#[test]
fn a_key_is_destroyed_only_when_nothing_needs_it_and_nothing_will() {
    let t = new();
    let i = &t.inventory;
    i.put(&vm(1, "web01", &["a"]), None).unwrap();
    let backup = Backup {
        id: Uuid::from_u128(5),
        vm: Uuid::from_u128(1),
        note: "tape 7".into(),
        made_at: 1,
        key_ids: vec![key("a")],
    };
    i.put(&backup, None).unwrap();
    i.put(
        &Policy { name: name("gold"), encrypted: true, provider: None, key_ids: vec![key("a")] },
        None,
    )
    .unwrap();
    let refused = i.retire(&key("a"));
    assert!(matches!(&refused, Err(InventoryError::Needed { users: 3, .. })), "{refused:?}");
    assert_eq!(i.key(&key("a")).unwrap().unwrap().record.state, KeyState::Active);
    i.remove(&i.vm(Uuid::from_u128(1)).unwrap()).unwrap();
    i.remove(&i.get::<Policy>("gold").unwrap()).unwrap();
    assert!(
        matches!(i.verdict(&key("a")).unwrap(), Verdict::Needed { users, .. } if users[0].kind == "backup")
    );
    i.remove(&i.get::<Backup>(&backup.place()).unwrap()).unwrap();
    assert_eq!(i.verdict(&key("a")).unwrap(), Verdict::Unused);
    i.retire(&key("a")).unwrap();
    i.retire(&key("a")).unwrap();
    let late = i.put(&vm(1, "web01", &["a"]), None);
    assert!(matches!(late, Err(InventoryError::Retired { .. })), "{late:?}");
    i.retire(&key("never-seen")).unwrap();
    assert!(i.put(&vm(1, "web01", &["never-seen"]), None).is_err());
    t.agrees();
}

/// A thing begins to need a key between the two steps of its retirement, and before them.
#[test]
fn a_retirement_and_a_new_use_never_both_come_through() {
    let t = new();
    let i = &t.inventory;
    i.put(&vm(9, "other", &["a"]), None).unwrap();
    i.remove(&i.vm(Uuid::from_u128(9)).unwrap()).unwrap();
    // The transaction is made while the key is active, and committed after it was retired.
    let late = i.change(Some(&vm(1, "web01", &["a"])), None).unwrap();
    i.retire(&key("a")).unwrap();
    assert!(t.store.commit(&late).unwrap_err().is_conflict());
    // The same for a key that nothing ever needed.
    let late = i.change(Some(&vm(1, "web01", &["new"])), None).unwrap();
    i.retire(&key("new")).unwrap();
    assert!(t.store.commit(&late).unwrap_err().is_conflict());
    t.agrees();
}

#[test]
fn lists_come_in_pages() {
    let t = new();
    let i = &t.inventory;
    i.put(&cluster("paris"), None).unwrap();
    for n in 0..25 {
        i.put(&vm(n, &format!("web{n:02}"), &["a"]), None).unwrap();
    }
    i.put(&Vm { cluster: name("paris"), ..vm(99, "x", &["a"]) }, None).unwrap();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = i.list::<Vm>("berlin/", after.as_deref(), 10).unwrap();
        seen.extend(page.records.into_iter().map(|held| held.record.name));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..25).map(|n| name(&format!("web{n:02}"))).collect::<Vec<_>>());
    assert_eq!(i.list::<Vm>("", None, 100).unwrap().records.len(), 26);
    let (first, more) = i.users(&key("a"), None, 20).unwrap();
    assert!(more && first.len() == 20);
    let last = first.last().map(|user| format!("{}/{}", user.kind, user.place));
    let (rest, more) = i.users(&key("a"), last.as_deref(), 20).unwrap();
    assert!(!more && rest.len() == 6, "{rest:?}");
}

#[test]
fn records_that_cannot_be_read_are_named() {
    let t = new();
    let put =
        |value: &str| t.store.commit(&Txn::new().put("inventory/vm/berlin/x", value)).unwrap();
    put("{\"v\":2,\"record\":{\"new\":1}}");
    let newer = t.inventory.get::<Vm>("berlin/x").unwrap_err();
    assert!(matches!(newer, InventoryError::Unsupported { found: 2, .. }), "{newer}");
    for bad in ["", "{", "{\"v\":1}", "{\"v\":1,\"record\":{\"id\":7}}"] {
        put(bad);
        let damaged = t.inventory.get::<Vm>("berlin/x").unwrap_err();
        assert!(damaged.to_string().contains("inventory/vm/berlin/x"), "{damaged}");
    }
    let many = ["a", "b", "c", "d", "e"];
    let refused = t.inventory.put(&vm(1, "web01", &many), None);
    assert!(matches!(refused, Err(InventoryError::TooManyKeys { count: 5, .. })));
}

#[test]
fn the_check_finds_what_does_not_agree() {
    let t = new();
    t.inventory.put(&vm(1, "web01", &["a"]), None).unwrap();
    let used = rooted(&records::use_key(&key("a"), "vm", "berlin/web01"));
    for (txn, what) in [
        (Txn::new().delete(used.clone()), "is missing"),
        (Txn::new().put(used.clone(), "other"), "has another value than its record"),
        (Txn::new().put(used, "web01 in berlin").put(rooted("use/x/vm/y"), ""), "leads to nothing"),
        (Txn::new().delete(rooted("use/x/vm/y")).delete(rooted("cluster/berlin")), "is missing"),
    ] {
        t.store.commit(&txn).unwrap();
        let found = t.inventory.check().unwrap();
        assert_eq!(found.iter().map(|one| one.what).collect::<Vec<_>>(), [what], "{found:?}");
    }
}

use super::*;
use std::os::unix::fs::PermissionsExt;

#[test]
fn what_is_stored_is_there_after_a_restart_without_what_was_leased() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = EmbeddedStore::open(&path).unwrap();
    let lease = store.grant(Duration::from_secs(60)).unwrap();
    let first = store.commit(&Txn::new().put("a", "1")).unwrap();
    store.commit(&Txn::new().put_under(lease, "b", b"2")).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(EmbeddedStore::open(&path), Err(StoreError::InUse { .. })));
    drop(store);
    let store = EmbeddedStore::open(&path).unwrap();
    assert_eq!(store.get("a").unwrap().unwrap().revision, first);
    assert_eq!(store.get("b").unwrap(), None);
    let next = store.commit(&Txn::new().put("a", "2")).unwrap();
    assert!(next > first, "revisions go on");
}

#[test]
fn a_watch_from_before_a_restart_is_told_to_scan() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = EmbeddedStore::open(&path).unwrap();
    let first = store.commit(&Txn::new().put("a", "1")).unwrap();
    store.commit(&Txn::new().put("a", "2")).unwrap();
    drop(store);
    let store = EmbeddedStore::open(&path).unwrap();
    let missed = store.watch("a", first).unwrap().next(Duration::ZERO);
    assert!(matches!(missed, Err(StoreError::Compacted { .. })), "{missed:?}");
    let page = store.scan("a", None, 10).unwrap();
    assert_eq!(store.watch("a", page.revision).unwrap().next(Duration::ZERO).unwrap(), []);
}

#[test]
fn files_that_are_no_store_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    std::fs::write(
        &path,
        "this is no store, but a text that is long enough for a header".repeat(80),
    )
    .unwrap();
    let refused = EmbeddedStore::open(&path).err().unwrap();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused:?}");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(EmbeddedStore::open(&link), Err(StoreError::Io { .. })));
}

#[test]
fn a_newer_version_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    drop(EmbeddedStore::open(&path).unwrap());
    let database = Database::create(&path).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(META).unwrap().insert(FORMAT_NAME, 2).unwrap();
    write.commit().unwrap();
    drop(database);
    let refused = EmbeddedStore::open(&path).err().unwrap();
    assert!(matches!(refused, StoreError::Unsupported { found: 2, known: 1, .. }), "{refused:?}");
}

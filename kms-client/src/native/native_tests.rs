//! The rules of the native provider.

use super::NativeProvider;
use super::testing::{Fixture, NOW, put};
use crate::{Health, KeyProvider, KmsError};
use crypto::{KeyId, sha256_hex};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn no_key_before_the_first_backup() {
    let f = Fixture::new();
    let provider = f.open();
    let error = provider.create_key().unwrap_err();
    assert!(matches!(error, KmsError::BackupRequired { .. }), "{error}");
    assert!(error.to_string().contains("coffer key backup FILE"), "{error}");
    let status = provider.status();
    assert_eq!((status.health, status.backed_up_at, status.demo), (Health::FetchOnly, None, false));
    assert!(status.detail.contains("coffer key backup FILE"));

    let stale = provider.confirm_backup(&sha256_hex(b"something else"), NOW).unwrap_err();
    assert!(matches!(stale, KmsError::StaleBackup { .. }), "{stale}");
    assert!(provider.create_key().is_err());

    provider.confirm_backup(&sha256_hex(provider.backup().as_bytes()), NOW).unwrap();
    let status = provider.status();
    assert_eq!((status.health, status.backed_up_at), (Health::Ready, Some(NOW)));
    let key = provider.create_key().unwrap();
    assert_eq!(key.provider(), "native");
    drop(provider);
    assert_eq!(f.open().status().backed_up_at, Some(NOW), "the confirmation is kept");
}

#[test]
fn demo_mode_makes_keys_and_says_so() {
    let f = Fixture::new();
    let provider = f.try_open(true).unwrap();
    provider.create_key().unwrap();
    let status = provider.status();
    assert_eq!((status.health, status.demo), (Health::Ready, true));
    assert!(status.detail.contains("demo"), "{}", status.detail);
    drop(provider);
    let error = f.open().create_key().unwrap_err();
    assert!(matches!(error, KmsError::BackupRequired { .. }), "demo is not remembered: {error}");
}

#[test]
fn a_key_is_the_same_after_reopening() {
    let f = Fixture::new();
    let provider = f.ready();
    let first = provider.create_key().unwrap();
    let second = provider.create_key().unwrap();
    let checks = [f.check(&provider, &first), f.check(&provider, &second)];
    assert_ne!(checks[0], checks[1]);
    let records = provider.keys().unwrap();
    assert_eq!(
        records.iter().map(|r| r.id.clone()).collect::<Vec<_>>(),
        [first.clone(), second.clone()]
    );
    assert!(records.iter().all(|r| r.created_at == Some(NOW)));
    drop(provider);

    let again = f.open();
    assert_eq!(again.keys().unwrap(), records);
    assert_eq!([f.check(&again, &first), f.check(&again, &second)], checks);
    assert_eq!(names(f.folder.path()), ["native.keys", "native.keys.lock"], "no temporary files");
    let mode = fs::metadata(f.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn an_older_backup_opens_keys_made_after_it() {
    let f = Fixture::new();
    let provider = f.open();
    let backup = provider.backup();
    assert_eq!(backup, f.text(), "a backup is the key file itself");
    provider.confirm_backup(&sha256_hex(backup.as_bytes()), NOW).unwrap();
    let later = provider.create_key().unwrap();
    let check = f.check(&provider, &later);
    drop(provider);

    fs::remove_file(f.path()).unwrap();
    f.put(&backup);
    let restored = f.open();
    assert_eq!(restored.keys().unwrap(), [], "the restored list does not know it");
    assert_eq!(f.check(&restored, &later), check);
}

#[test]
fn another_root_key_gives_other_keks_for_the_same_uid() {
    let (f, g) = (Fixture::new(), Fixture::new());
    let (ours, theirs) = (f.ready(), g.open());
    let key = ours.create_key().unwrap();
    assert_ne!(f.check(&ours, &key), g.check(&theirs, &key));
}

#[test]
fn an_id_that_is_not_ours_is_not_found() {
    let f = Fixture::new();
    let provider = f.open();
    for id in [
        "other/6f9619ff-8b86-4d01-b42d-00cf4fc964ff",
        "native/17",
        "native/6F9619FF-8B86-4D01-B42D-00CF4FC964FF",
        "native/6f9619ff8b864d01b42d00cf4fc964ff",
        "native/6f9619ff-8b86-1d01-b42d-00cf4fc964ff",
    ] {
        let key: KeyId = id.parse().unwrap();
        let error = provider.fetch(&key, &f.arena).err().unwrap();
        assert!(matches!(error, KmsError::NotFound { .. }), "{id}: {error}");
        assert!(error.to_string().contains(id), "{error}");
    }
}

#[test]
fn a_key_file_is_never_replaced_by_a_new_one() {
    let f = Fixture::new();
    let before = f.text();
    let error = f.init().unwrap_err();
    assert!(matches!(error, KmsError::Exists { .. }), "{error}");
    assert_eq!(f.text(), before);
    assert_eq!(names(f.folder.path()), ["native.keys", "native.keys.lock"]);
}

#[test]
fn only_one_opener_at_a_time() {
    let f = Fixture::new();
    let first = f.open();
    let error = f.error();
    assert!(matches!(error, KmsError::InUse { .. }) && error.is_transient(), "{error}");
    assert!(matches!(f.init().unwrap_err(), KmsError::InUse { .. }));
    drop(first);
    f.open();
}

#[test]
fn the_name_must_be_the_one_in_the_file() {
    let f = Fixture::new();
    let open = |name: &str| {
        NativeProvider::open(&f.path(), &f.passphrase(), name, false, || NOW, &f.arena)
    };
    let error = open("site-b").err().unwrap();
    assert!(matches!(error, KmsError::Config { .. }), "{error}");
    assert!(error.to_string().contains("\"native\""), "{error}");
    let error = open("a/b").err().unwrap();
    assert!(matches!(error, KmsError::Config { .. }), "{error}");
}

#[test]
fn keys_made_by_many_threads_are_all_there() {
    const THREADS: usize = 8;
    const EACH: usize = 16;
    let f = Fixture::new();
    let provider = f.ready();
    let made: Vec<KeyId> = std::thread::scope(|scope| {
        let make = || (0..EACH).map(|_| provider.create_key().unwrap()).collect::<Vec<_>>();
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(make)).collect();
        workers.into_iter().flat_map(|w| w.join().unwrap()).collect()
    });
    drop(provider);
    let again = f.open();
    let mut listed: Vec<KeyId> = again.keys().unwrap().into_iter().map(|r| r.id).collect();
    let mut made_sorted = made.clone();
    made_sorted.sort();
    made_sorted.dedup();
    assert_eq!(made_sorted.len(), THREADS * EACH);
    listed.sort();
    assert_eq!(listed, made_sorted);
    let sequence = format!("\"sequence\":{}", 2 + THREADS * EACH);
    assert!(f.text().contains(&sequence), "one replacement a key: {}", f.text());
}

#[test]
fn a_left_over_temporary_file_is_no_obstacle() {
    let f = Fixture::new();
    put(&f.folder.path().join("native.keys.tmp"), "half a file");
    let provider = f.ready();
    provider.create_key().unwrap();
    assert_eq!(names(f.folder.path()), ["native.keys", "native.keys.lock"]);
}

#[test]
fn memory_follows_a_file_that_is_in_place_but_not_durable() {
    let f = Fixture::new();
    let mut provider = f.ready();
    provider.place.sync = |_| Err(std::io::Error::from_raw_os_error(5));
    let error = provider.create_key().unwrap_err();
    assert!(matches!(error, KmsError::NotDurable { .. }), "{error}");
    assert!(error.to_string().contains("in place"), "{error}");
    assert_eq!(provider.backup(), f.text(), "memory and file agree");
    assert_eq!(provider.keys().unwrap().len(), 1);
    provider.place.sync = |_| Ok(());
    provider.create_key().unwrap();
    drop(provider);
    assert_eq!(f.open().keys().unwrap().len(), 2);
}

#[test]
fn a_new_key_file_never_replaces_one_and_leaves_nothing_beside_it() {
    let f = Fixture::new();
    let before = f.text();
    let error = f.init().unwrap_err();
    assert!(matches!(error, KmsError::Exists { .. }), "{error}");
    assert_eq!(f.text(), before);
    assert_eq!(names(f.folder.path()), ["native.keys", "native.keys.lock"]);
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&fs::metadata(f.path()).unwrap()), 1);
}

/// What every provider keeps, whoever uses its KEKs.
#[test]
fn it_wraps_and_unwraps_as_the_hosts_do() {
    let f = Fixture::new();
    let provider = f.ready();
    assert_eq!(provider.custody(), crate::Custody::Host);
    let (key, other) = (provider.create_key().unwrap(), provider.create_key().unwrap());
    let data = crypto::OpaqueKey::generate(64, &f.arena).unwrap();
    let wrapped = provider.wrap(&key, &data, "disk", &f.arena).unwrap();
    let opened = provider.unwrap(&key, &wrapped, "disk", &f.arena).unwrap();
    assert_eq!(opened.check_value().unwrap(), data.check_value().unwrap());
    let kek = provider.fetch(&key, &f.arena).unwrap();
    assert_eq!(kek.wrap_opaque(&data).unwrap(), wrapped);
    let error = provider.unwrap(&other, &wrapped, "disk", &f.arena).unwrap_err();
    assert!(matches!(error, KmsError::BadKey { .. }), "{error}");
    assert!(!provider.renew(&key).unwrap(), "its keys have no versions");
}

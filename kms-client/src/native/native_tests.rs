//! The rules of the native provider, and what becomes of a key file that was touched.

use super::NativeProvider;
use crate::{Health, KeyProvider, KmsError};
use crypto::{Arena, Argon2Params, CheckValue, KeyId, Passphrase, sha256_hex};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const PASSPHRASE: &[u8] = b"correct horse battery staple\n";
const NOW: u64 = 1_764_000_000;

/// A folder with a key file in it, whose passphrase costs next to nothing.
struct Fixture {
    folder: TempDir,
    arena: Arena,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self { folder: TempDir::new().unwrap(), arena: arena() };
        fixture.init().unwrap();
        fixture
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("native.keys")
    }

    fn init(&self) -> Result<(), KmsError> {
        NativeProvider::init(&self.path(), &self.passphrase(), "native", cheap(), &self.arena)
    }

    fn passphrase(&self) -> Passphrase {
        Passphrase::read(&self.arena, PASSPHRASE).unwrap()
    }

    fn try_open(&self, demo: bool) -> Result<NativeProvider, KmsError> {
        let path = self.path();
        NativeProvider::open(&path, &self.passphrase(), "native", demo, || NOW, &self.arena)
    }

    fn open(&self) -> NativeProvider {
        self.try_open(false).unwrap()
    }

    /// Opened, and backed up: it makes keys.
    fn ready(&self) -> NativeProvider {
        let provider = self.open();
        provider.confirm_backup(&sha256_hex(provider.backup().as_bytes()), NOW).unwrap();
        provider
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    fn put(&self, content: impl AsRef<[u8]>) {
        put(&self.path(), content);
    }

    fn error(&self) -> KmsError {
        match self.try_open(false) {
            Ok(_) => panic!("the key file was accepted"),
            Err(e) => e,
        }
    }

    fn check(&self, provider: &NativeProvider, key: &KeyId) -> CheckValue {
        provider.fetch(key, &self.arena).unwrap().check_value()
    }
}

fn arena() -> Arena {
    Arena::new(64 << 10).unwrap()
}

fn cheap() -> Argon2Params {
    Argon2Params { memory_kib: 32, passes: 1, lanes: 1, salt: [7; 16] }
}

fn put(path: &Path, content: impl AsRef<[u8]>) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

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
fn a_wrong_passphrase_is_told_apart_from_damage() {
    let f = Fixture::new();
    let wrong = Passphrase::read(&f.arena, &b"correct horse battery"[..]).unwrap();
    let opened = NativeProvider::open(&f.path(), &wrong, "native", false, || NOW, &f.arena);
    let error = opened.err().unwrap();
    assert!(matches!(error, KmsError::WrongPassphrase { .. }), "{error}");
    assert!(error.to_string().contains("native.keys"), "{error}");
}

#[test]
fn every_flipped_byte_is_refused() {
    let f = Fixture::new();
    f.ready().create_key().unwrap();
    let good = fs::read(f.path()).unwrap();
    let (line, _) = f.text().split_once('\n').map(|(l, m)| (l.to_owned(), m.to_owned())).unwrap();
    let field = |from: &str, to: &str| line.find(from).unwrap()..line.find(to).unwrap();
    let (kdf, version) = (field("\"kdf\"", "\"check\""), field("\"version\"", "\"features\""));
    let provider_is_safe = |error: &KmsError, at: usize| match error {
        KmsError::Damaged { .. } => true,
        // Another salt or cost gives another KEK: nothing tells that from another passphrase.
        KmsError::WrongPassphrase { .. } => kdf.contains(&at),
        KmsError::Unsupported { .. } => version.contains(&at),
        _ => false,
    };
    for mask in [0x01, 0x20, 0x80] {
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= mask;
            f.put(&bad);
            let error = f.error();
            assert!(provider_is_safe(&error, at), "byte {at} ^ {mask:#x}: {error}");
        }
    }
    f.put(&good);
    f.open();
}

#[test]
fn every_truncation_and_any_addition_is_refused() {
    let f = Fixture::new();
    let good = f.text();
    for length in 0..good.len() {
        f.put(&good[..length]);
        let error = f.error();
        assert!(matches!(error, KmsError::Damaged { .. }), "{length} bytes: {error}");
    }
    for added in ["\n", " ", "x", "\0"] {
        f.put(format!("{good}{added}"));
        let error = f.error();
        assert!(matches!(error, KmsError::Damaged { .. }), "added {added:?}: {error}");
    }
    f.put(vec![b' '; 9 << 20]);
    assert!(f.error().to_string().contains("larger than 8 MiB"));
}

#[test]
fn later_versions_and_features_are_unsupported_not_damaged() {
    let f = Fixture::new();
    let good = f.text();
    let later = good.replacen("\"version\":1", "\"version\":2", 1);
    let feature = good.replacen("\"features\":[]", "\"features\":[\"tpm\"]", 1);
    let unknown = good.replacen("{\"format\"", "{\"more\":1,\"format\"", 1);
    let foreign = good.replacen("coffer-keys", "coffer-safe", 1);
    for (text, needle) in [(later, "version is 2"), (feature, "\"tpm\"")] {
        assert_ne!(text, good);
        f.put(text);
        let error = f.error();
        assert!(matches!(error, KmsError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(needle), "{error}");
    }
    for (text, needle) in [(unknown, "more"), (foreign, "coffer-safe")] {
        assert_ne!(text, good);
        f.put(text);
        let error = f.error();
        assert!(matches!(error, KmsError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(needle), "{error}");
    }
}

#[test]
fn a_file_that_others_can_use_is_refused() {
    let f = Fixture::new();
    for mode in [0o640, 0o604, 0o620, 0o601] {
        fs::set_permissions(f.path(), Permissions::from_mode(mode)).unwrap();
        let error = f.error();
        assert!(matches!(error, KmsError::Config { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("chmod 600") && text.contains(&format!("{mode:04o}")), "{text}");
    }
    fs::set_permissions(f.path(), Permissions::from_mode(0o600)).unwrap();
    f.open();
}

#[test]
fn links_folders_and_pipes_are_refused() {
    let f = Fixture::new();
    let real = f.folder.path().join("real");
    fs::rename(f.path(), &real).unwrap();
    symlink(&real, f.path()).unwrap();
    assert!(f.error().to_string().contains("symbolic link"), "{}", f.error());
    fs::remove_file(f.path()).unwrap();
    fs::create_dir(f.path()).unwrap();
    assert!(f.error().to_string().contains("not a regular file"), "{}", f.error());
    fs::remove_dir(f.path()).unwrap();
    let cwd = rustix::fs::CWD;
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(cwd, f.path(), kind, rustix::fs::Mode::RUSR, 0).unwrap();
    assert!(f.error().to_string().contains("not a regular file"), "{}", f.error());
}

#[test]
fn a_missing_file_is_an_io_error_of_that_kind() {
    let f = Fixture::new();
    fs::remove_file(f.path()).unwrap();
    match f.error() {
        KmsError::Io { source, path, .. } => {
            assert_eq!((source.kind(), path), (std::io::ErrorKind::NotFound, f.path()));
        }
        other => panic!("{other}"),
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
fn costs_beyond_the_bounds_are_refused_before_they_are_paid() {
    let f = Fixture::new();
    let good = f.text();
    for (from, to) in [
        ("\"memory_kib\":32", "\"memory_kib\":1048577"),
        ("\"memory_kib\":32", "\"memory_kib\":4294967295"),
        ("\"passes\":1", "\"passes\":17"),
        ("\"passes\":1", "\"passes\":0"),
        ("\"lanes\":1", "\"lanes\":0"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        f.put(bad);
        let error = f.error();
        assert!(matches!(error, KmsError::Damaged { .. }), "{to}: {error}");
    }
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

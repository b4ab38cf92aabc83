//! A full disk keeps the old key file whole, and the provider working with the keys it has.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use crypto::{Arena, Argon2Params, Passphrase, sha256_hex};
use kms_client::native::NativeProvider;
use kms_client::{KeyProvider, KmsError};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::Command;

/// A tmpfs of a few pages, gone when the test ends.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where the test may not mount.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=32k,mode=700", "coffer-test"])
            .arg(folder.path())
            .output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(self.path()).status();
        assert!(done.is_ok_and(|status| status.success()), "the test disk is still mounted");
    }
}

/// Past the capture of test output, so that a skipped test is seen.
fn skipped(why: &str) {
    std::io::stderr().write_all(format!("SKIPPED: {why}\n").as_bytes()).unwrap();
}

#[test]
fn a_full_disk_leaves_the_old_key_file() {
    let Some(disk) = SmallDisk::mount() else {
        skipped("needs the right to mount a tmpfs");
        return;
    };
    let arena = Arena::new(64 << 10).unwrap();
    let path = disk.path().join("native.keys");
    let passphrase = || Passphrase::read(&arena, &b"a full disk"[..]).unwrap();
    let params = Argon2Params { memory_kib: 32, passes: 1, lanes: 1, salt: [1; 16] };
    NativeProvider::init(&path, &passphrase(), "native", params, &arena).unwrap();
    let open =
        || NativeProvider::open(&path, &passphrase(), "native", false, || 1, &arena).unwrap();
    let provider = open();
    provider.confirm_backup(&sha256_hex(provider.backup().as_bytes()), 1).unwrap();
    let key = provider.create_key().unwrap();
    let check = provider.fetch(&key, &arena).unwrap().check_value();
    let before = fs::read(&path).unwrap();

    let filler = disk.path().join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    match provider.create_key() {
        Err(KmsError::Io { source, .. }) => assert_eq!(source.kind(), ErrorKind::StorageFull),
        other => panic!("a key on a full disk: {other:?}"),
    }
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(provider.backup().as_bytes(), before, "memory and file agree");
    assert_eq!(provider.keys().unwrap().len(), 1);
    assert_eq!(provider.fetch(&key, &arena).unwrap().check_value(), check);
    assert!(!disk.path().join("native.keys.tmp").exists());
    drop(provider);

    let again = open();
    assert_eq!(again.fetch(&key, &arena).unwrap().check_value(), check);
    fs::remove_file(&filler).unwrap();
    drop(file);
    again.create_key().unwrap();
    assert_eq!(again.keys().unwrap().len(), 2);
}

//! A key file to try things on.

use super::NativeProvider;
use crate::{KeyProvider, KmsError};
use crypto::{Arena, Argon2Params, CheckValue, KeyId, Passphrase, sha256_hex};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const PASSPHRASE: &[u8] = b"correct horse battery staple\n";
pub(super) const NOW: u64 = 1_764_000_000;

/// A folder with a key file in it, whose passphrase costs next to nothing.
pub(super) struct Fixture {
    pub(super) folder: TempDir,
    pub(super) arena: Arena,
}

impl Fixture {
    pub(super) fn new() -> Self {
        let fixture = Self { folder: TempDir::new().unwrap(), arena: arena() };
        fixture.init().unwrap();
        fixture
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("native.keys")
    }

    pub(super) fn init(&self) -> Result<(), KmsError> {
        NativeProvider::init(&self.path(), &self.passphrase(), "native", cheap(), &self.arena)
    }

    pub(super) fn passphrase(&self) -> Passphrase {
        Passphrase::read(&self.arena, PASSPHRASE).unwrap()
    }

    pub(super) fn try_open(&self, demo: bool) -> Result<NativeProvider, KmsError> {
        let path = self.path();
        NativeProvider::open(&path, &self.passphrase(), "native", demo, || NOW, &self.arena)
    }

    pub(super) fn open(&self) -> NativeProvider {
        self.try_open(false).unwrap()
    }

    /// Opened, and backed up: it makes keys.
    pub(super) fn ready(&self) -> NativeProvider {
        let provider = self.open();
        provider.confirm_backup(&sha256_hex(provider.backup().as_bytes()), NOW).unwrap();
        provider
    }

    pub(super) fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    pub(super) fn put(&self, content: impl AsRef<[u8]>) {
        put(&self.path(), content);
    }

    pub(super) fn error(&self) -> KmsError {
        match self.try_open(false) {
            Ok(_) => panic!("the key file was accepted"),
            Err(e) => e,
        }
    }

    pub(super) fn check(&self, provider: &NativeProvider, key: &KeyId) -> CheckValue {
        provider.fetch(key, &self.arena).unwrap().check_value()
    }
}

fn arena() -> Arena {
    Arena::new(64 << 10).unwrap()
}

fn cheap() -> Argon2Params {
    Argon2Params { memory_kib: 32, passes: 1, lanes: 1, salt: [7; 16] }
}

pub(super) fn put(path: &Path, content: impl AsRef<[u8]>) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

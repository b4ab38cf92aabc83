//! What becomes a key file, and what must not.

use super::read_backup;
use crate::native::NativeProvider;
use crate::native::testing::{Fixture, put};
use crate::{KeyProvider, KmsError};
use crypto::{Passphrase, sha256_hex};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

/// A host that was lost, and its backup.
struct Lost {
    fixture: Fixture,
    backup: PathBuf,
}

impl Lost {
    fn new() -> Self {
        let fixture = Fixture::new();
        let backup = fixture.folder.path().join("backup");
        fs::write(&backup, fixture.text()).unwrap();
        fs::set_permissions(&backup, fs::Permissions::from_mode(0o644)).unwrap();
        fs::remove_file(fixture.path()).unwrap();
        Self { fixture, backup }
    }

    fn restore(&self, words: &[u8], name: &str) -> Result<(), KmsError> {
        let arena = &self.fixture.arena;
        let passphrase = Passphrase::read(arena, words).unwrap();
        let backup = read_backup(&self.backup)?;
        NativeProvider::restore(&self.fixture.path(), &backup, &passphrase, name, arena)
    }

    /// Refused, and nothing is in place.
    #[track_caller]
    fn refused(&self, words: &[u8], name: &str) -> KmsError {
        let error = self.restore(words, name).unwrap_err();
        assert!(!self.fixture.path().exists(), "{error}");
        assert!(!self.fixture.folder.path().join("native.keys.tmp").exists(), "{error}");
        error
    }
}

const WORDS: &[u8] = b"correct horse battery staple";

#[test]
fn a_backup_becomes_the_key_file_byte_for_byte() {
    let fixture = Fixture::new();
    let provider = fixture.ready();
    let key = provider.create_key().unwrap();
    let check = fixture.check(&provider, &key);
    let text = provider.backup();
    drop(provider);

    let lost = Lost { backup: fixture.folder.path().join("backup"), fixture };
    fs::remove_file(lost.fixture.path()).unwrap();
    put(&lost.backup, &text);
    lost.restore(WORDS, "native").unwrap();
    assert_eq!(lost.fixture.text(), text);
    let mode = fs::metadata(lost.fixture.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let opened = lost.fixture.open();
    assert_eq!(lost.fixture.check(&opened, &key), check);
    assert_eq!(sha256_hex(opened.backup().as_bytes()), sha256_hex(text.as_bytes()));
}

#[test]
fn another_passphrase_or_provider_restores_nothing() {
    let lost = Lost::new();
    let error = lost.refused(b"another", "native");
    assert!(matches!(error, KmsError::WrongPassphrase { .. }), "{error}");
    assert!(error.to_string().contains("backup"), "the backup is named: {error}");
    let error = lost.refused(WORDS, "site-b");
    assert!(matches!(error, KmsError::Config { .. }), "{error}");
    lost.restore(WORDS, "native").unwrap();
}

#[test]
fn a_key_file_that_is_there_stays() {
    let lost = Lost::new();
    for there in ["some key file", ""] {
        fs::write(lost.fixture.path(), there).unwrap();
        let error = lost.restore(WORDS, "native").unwrap_err();
        assert!(matches!(error, KmsError::Exists { .. }), "{error}");
        assert_eq!(lost.fixture.text(), there);
    }
    fs::remove_file(lost.fixture.path()).unwrap();
    // A link that leads nowhere yet is a name that somebody chose.
    symlink("/nonexistent/native.keys", lost.fixture.path()).unwrap();
    assert!(matches!(lost.restore(WORDS, "native").unwrap_err(), KmsError::Exists { .. }));
}

#[test]
fn every_truncation_of_a_backup_is_refused() {
    let lost = Lost::new();
    let text = fs::read_to_string(&lost.backup).unwrap();
    for length in 0..text.len() {
        fs::write(&lost.backup, &text[..length]).unwrap();
        let error = lost.refused(WORDS, "native");
        assert!(matches!(error, KmsError::BackupDamaged { .. }), "{length} bytes: {error}");
        assert!(error.to_string().contains("take another copy"), "{error}");
    }
}

#[test]
fn what_is_no_backup_at_all_is_refused_by_name() {
    let lost = Lost::new();
    let text = fs::read_to_string(&lost.backup).unwrap();
    let later = text.replacen("\"version\":1", "\"version\":2", 1);
    let edited = text.replacen("\"sequence\":1", "\"sequence\":2", 1);
    for (content, needle) in [
        (&b"\xff\xfe"[..], "UTF-8"),
        (&vec![b' '; 9 << 20], "8 MiB"),
        (edited.as_bytes(), "MAC"),
        (later.as_bytes(), "newer version"),
    ] {
        fs::write(&lost.backup, content).unwrap();
        let error = lost.refused(WORDS, "native").to_string();
        assert!(error.contains(needle), "{error}");
    }
    fs::remove_file(&lost.backup).unwrap();
    let error = lost.refused(WORDS, "native");
    assert!(matches!(error, KmsError::Io { .. }), "{error}");
    fs::create_dir(&lost.backup).unwrap();
    assert!(lost.refused(WORDS, "native").to_string().contains("not a regular file"));
    fs::remove_dir(&lost.backup).unwrap();
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &lost.backup, kind, rustix::fs::Mode::RUSR, 0).unwrap();
    assert!(lost.refused(WORDS, "native").to_string().contains("not a regular file"));
}

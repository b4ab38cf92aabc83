//! A backup becomes the key file of this host.
//!
//! Owns reading a backup from wherever it was kept, and trying it before it counts. It must not know where backups are
//! stored. Flow: [`read_backup`] reads it, [`NativeProvider::restore`] opens it with the passphrase and only then puts it
//! in place, byte for byte.

use super::file::{MAX_FILE_BYTES, Place};
use super::{NativeProvider, format};
use crate::KmsError;
use crypto::{Arena, Passphrase};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A backup that was read, and not tried yet.
pub struct Backup {
    text: String,
    origin: String,
}

/// Reads a backup. Who else can read it does not matter: it is sealed, and media for backups often have no owners.
///
/// # Errors
/// [`KmsError::BackupDamaged`] for what is no text of that size, else [`KmsError::Io`].
pub fn read_backup(path: &Path) -> Result<Backup, KmsError> {
    let failed = |source| KmsError::Io { action: "read", path: path.to_path_buf(), source };
    let origin = path.display().to_string();
    let damaged =
        |what: &str| KmsError::BackupDamaged { origin: origin.clone(), what: what.to_owned() };
    // NONBLOCK: opening a pipe must not hang before the check finds that it is one.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
    let file = File::from(file);
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(damaged("it is not a regular file"));
    }
    let mut text = String::new();
    match file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text) {
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(damaged("it is not UTF-8 text")),
        Err(e) => Err(failed(e)),
        Ok(n) if n as u64 > MAX_FILE_BYTES => Err(damaged("it is larger than 8 MiB")),
        Ok(_) => Ok(Backup { text, origin }),
    }
}

impl NativeProvider {
    /// Makes a backup the key file at `path` (mode 0600), once the passphrase has opened it and its MAC holds.
    ///
    /// # Errors
    /// Nothing is changed then. [`KmsError::Exists`] when there is a key file: it is never replaced.
    /// [`KmsError::WrongPassphrase`], [`KmsError::BackupDamaged`], [`KmsError::Unsupported`];
    /// [`KmsError::Config`] when it is of a provider of another name; [`KmsError::InUse`], [`KmsError::Key`],
    /// [`KmsError::Io`]. [`KmsError::NotDurable`] when it is in place, but only for as long as the power stays.
    pub fn restore(
        path: &Path,
        backup: &Backup,
        passphrase: &Passphrase,
        name: &str,
        arena: &Arena,
    ) -> Result<(), KmsError> {
        let place = Place::claim(path)?;
        if path.symlink_metadata().is_ok() {
            return Err(KmsError::Exists { origin: place.origin() });
        }
        let opened = format::unseal(&backup.text, &backup.origin, passphrase, arena);
        let opened = opened.map_err(|fault| match fault {
            KmsError::Damaged { origin, what } => KmsError::BackupDamaged { origin, what },
            other => other,
        })?;
        opened.body.must_be_of(name, &backup.origin)?;
        place.create(&backup.text)
    }
}

#[cfg(test)]
#[path = "restore_tests.rs"]
mod tests;

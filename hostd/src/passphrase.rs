//! Where the passphrase of the native provider comes from.
//!
//! Owns reading it straight into locked memory; must not know what it opens. `daemon` asks at start, `cli`
//! when it makes a key file.

use crate::config::Config;
use crypto::{Arena, Passphrase, PassphraseError};
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use thiserror::Error;
use zeroize::Zeroizing;

/// Permission bits that let others read a passphrase file.
const OTHERS: u32 = 0o077;

/// Why there is no passphrase.
#[derive(Debug, Error)]
pub enum PassphraseFault {
    /// The file cannot be read.
    #[error("the passphrase file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Others can read the file.
    #[error(
        "the passphrase file {} can be read by others (mode {mode:o}); run `chmod 600 {}`",
        path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A credential is configured, but systemd passed none.
    #[error(
        "the credential {0} is configured, but CREDENTIALS_DIRECTORY is not set; \
         start hostd by its systemd unit, with LoadCredential={0}:FILE"
    )]
    NoCredentials(String),
    /// It cannot be asked for.
    #[error("the passphrase cannot be asked for: {0}; set provider.native.passphrase_file")]
    NoTerminal(io::Error),
    /// Two entries differ.
    #[error("the two passphrases differ; try again")]
    Differ,
    /// What was read is no passphrase.
    #[error(transparent)]
    Unfit(#[from] PassphraseError),
}

/// The passphrase from the configured source; `None` when no source is configured.
///
/// # Errors
/// [`PassphraseFault`].
pub fn configured(config: &Config, arena: &Arena) -> Result<Option<Passphrase>, PassphraseFault> {
    let native = &config.provider.native;
    if let Some(path) = &native.passphrase_file {
        let zone = &config.danger_zone;
        return from_file(path, zone.enabled && zone.allow_readable_passphrase, arena).map(Some);
    }
    if let Some(name) = &native.credential {
        let folder = credentials().ok_or_else(|| PassphraseFault::NoCredentials(name.clone()))?;
        // systemd sets owner and mode of credentials; the folder itself is closed to others.
        return from_file(&folder.join(name), true, arena).map(Some);
    }
    if native.prompt {
        return ask("Passphrase of the key file: ", arena).map(Some);
    }
    Ok(None)
}

/// The passphrase for a new key file: from the configured source, or asked for twice.
///
/// # Errors
/// [`PassphraseFault`].
pub fn for_new_file(config: &Config, arena: &Arena) -> Result<Passphrase, PassphraseFault> {
    if !config.provider.native.prompt
        && let Some(passphrase) = configured(config, arena)?
    {
        return Ok(passphrase);
    }
    let first = prompt("Passphrase of the new key file: ")?;
    if prompt("The same again: ")? != first {
        return Err(PassphraseFault::Differ);
    }
    Ok(Passphrase::from_text(arena, first)?)
}

fn from_file(
    path: &Path,
    exposed_is_fine: bool,
    arena: &Arena,
) -> Result<Passphrase, PassphraseFault> {
    let unreadable = |source| PassphraseFault::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
    if mode & OTHERS != 0 && !exposed_is_fine {
        return Err(PassphraseFault::Exposed { path: path.to_owned(), mode });
    }
    Ok(Passphrase::read(arena, file)?)
}

fn ask(text: &str, arena: &Arena) -> Result<Passphrase, PassphraseFault> {
    Ok(Passphrase::from_text(arena, prompt(text)?)?)
}

fn prompt(text: &str) -> Result<Zeroizing<String>, PassphraseFault> {
    rpassword::prompt_password(text).map(Zeroizing::new).map_err(PassphraseFault::NoTerminal)
}

/// The folder of the credentials that systemd passed, if it did.
pub(crate) fn credentials() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(mode: u32, content: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_file_that_others_can_read_needs_the_danger_zone() {
        let arena = Arena::new(16 * 1024).unwrap();
        let (_dir, path) = written(0o644, b"correct horse\n");
        let refused = from_file(&path, false, &arena).err().unwrap();
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
        assert!(from_file(&path, true, &arena).is_ok());
        let (_dir, path) = written(0o600, b"correct horse\n");
        assert!(from_file(&path, false, &arena).is_ok());
    }

    #[test]
    fn missing_and_empty_files_are_told_apart() {
        let arena = Arena::new(16 * 1024).unwrap();
        let (_dir, path) = written(0o600, b"\n");
        assert!(matches!(from_file(&path, false, &arena), Err(PassphraseFault::Unfit(_))));
        let gone = path.with_file_name("gone");
        assert!(matches!(from_file(&gone, false, &arena), Err(PassphraseFault::Unreadable { .. })));
    }

    #[test]
    fn no_source_is_no_passphrase() {
        let arena = Arena::new(16 * 1024).unwrap();
        assert!(configured(&Config::default(), &arena).unwrap().is_none());
    }
}

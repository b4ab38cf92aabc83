//! How this host comes to a key file: a new one, or one from a backup.
//!
//! Owns the two verbs that work without a running daemon, `hostd init` and `hostd restore`; must not know the command line.
//! Neither replaces a key file. Each returns what there is to tell.

use crate::config::Config;
use crate::daemon::{self, StartError};
use crate::fault::Fault;
use crate::files;
use crate::keys::NATIVE;
use crate::passphrase;
use crypto::Argon2Params;
use hostd_api::error::ErrorCode;
use kms_client::KmsError;
use kms_client::native::{self, NativeProvider};
use std::path::{Path, PathBuf};

/// What is said with every refusal.
const UNCHANGED: &str = "nothing was changed";

/// Makes a new key file.
///
/// # Errors
/// [`StartError`]; then nothing was changed.
pub fn init(config: &Config) -> Result<String, StartError> {
    let arena = daemon::key_memory(config)?;
    let file = free_place(config)?;
    let passphrase = passphrase::for_new_file(config, &arena)?;
    let made = Argon2Params::recommended()
        .map_err(KmsError::from)
        .and_then(|params| NativeProvider::init(&file, &passphrase, NATIVE, params, &arena));
    made.map_err(|fault| StartError::Provider { fault, remedy: UNCHANGED })?;
    Ok(format!(
        "The key file {} was made. Start hostd, then back it up with `coffer key backup FILE`:\n\
         without the file or its passphrase, no VM of this host can ever be opened again.\n",
        file.display()
    ))
}

/// Makes a backup the key file of this host.
///
/// # Errors
/// [`StartError`]; then nothing was changed.
pub fn restore(config: &Config, backup: &Path) -> Result<String, StartError> {
    let arena = daemon::key_memory(config)?;
    let content = native::read_backup(backup).map_err(|fault| match fault {
        KmsError::Io { path, source, .. } => unreadable(&path, source).into(),
        fault => StartError::Provider { fault, remedy: UNCHANGED },
    })?;
    let file = free_place(config)?;
    let passphrase = passphrase::of_backup(config, &arena)?;
    NativeProvider::restore(&file, &content, &passphrase, NATIVE, &arena).map_err(|fault| {
        let remedy = match fault {
            KmsError::NotDurable { .. } => "make a backup once more when hostd runs",
            _ => UNCHANGED,
        };
        StartError::Provider { fault, remedy }
    })?;
    Ok(format!(
        "{} was opened with the passphrase, and is the key file {} now.\n\
         Start hostd: it opens every VM whose key this provider ever made. Keep the backup where it is.\n",
        backup.display(),
        file.display()
    ))
}

/// Where the key file will be, with its folder; refused before a passphrase is asked for when there is one.
fn free_place(config: &Config) -> Result<PathBuf, StartError> {
    let file = config.native_file();
    let folder = file.parent().unwrap_or(Path::new("/"));
    if !folder.exists() {
        files::folder(folder, 0o700, None)?;
    }
    if file.symlink_metadata().is_ok() {
        let origin = file.display().to_string();
        return Err(StartError::Provider { fault: KmsError::Exists { origin }, remedy: UNCHANGED });
    }
    Ok(file)
}

fn unreadable(backup: &Path, source: std::io::Error) -> Fault {
    if source.kind() == std::io::ErrorKind::NotFound {
        let message = format!("there is no backup {}", backup.display());
        return Fault::refused(ErrorCode::NotFound, message, "name the file with the backup");
    }
    Fault::io("read", backup)(source)
}

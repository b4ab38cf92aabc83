//! What can go wrong with a key provider, named by fault.
//!
//! Owns [`KmsError`]. It must not know the codes of the control API or the CLI: whoever handles an
//! error maps it. Flow: a provider returns the variant of the party at fault; hostd turns
//! it into a lock reason or an API code, and logs it once.

use crypto::{KeyError, KeyId};
use std::io;
use std::path::PathBuf;

/// Why a provider did not do what it was asked for.
///
/// `origin` is where the fault was seen: the path of a file, or the address of a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KmsError {
    /// The provider works and has no such key.
    #[error("key {key} was not found: {reason}")]
    NotFound {
        /// The id that was asked for.
        key: KeyId,
        /// How the provider knows.
        reason: String,
    },
    /// The provider works and refuses: access rights, mostly.
    #[error("key provider {provider} refused: {reason}")]
    Denied {
        /// Name of the provider.
        provider: String,
        /// What it refused, and why.
        reason: String,
    },
    /// The provider works, and the state of the key forbids what was asked for.
    #[error("key provider {provider} refused: {reason}")]
    Inactive {
        /// Name of the provider.
        provider: String,
        /// Which key, which state, and what to do.
        reason: String,
    },
    /// The provider cannot be reached, or answers that it cannot work now.
    #[error("key provider {provider} is not available: {reason}")]
    Unavailable {
        /// Name of the provider.
        provider: String,
        /// What was tried, and what came back.
        reason: String,
    },
    /// The provider answers, but with nothing that can be the key.
    #[error("key provider {provider} answers, but not with a usable key: {reason}")]
    BadKey {
        /// Name of the provider.
        provider: String,
        /// What came instead.
        reason: String,
    },
    /// The native provider makes no key until a backup of its key file exists.
    #[error(
        "key provider {provider} was never backed up, so it makes no keys: \
         run `coffer key backup FILE` and keep FILE and the passphrase off this host"
    )]
    BackupRequired {
        /// Name of the provider.
        provider: String,
    },
    /// The backup that was confirmed is not the key file as it is now.
    #[error(
        "{origin} is not what was backed up, it may have changed meanwhile: \
         run `coffer key backup FILE` again"
    )]
    StaleBackup {
        /// The key file.
        origin: String,
    },
    /// The passphrase does not open the key file.
    #[error(
        "the passphrase does not open {origin}; if it is surely the right one, the salt or the \
         parameters in the file are damaged: restore the file from its backup"
    )]
    WrongPassphrase {
        /// The key file.
        origin: String,
    },
    /// What was read fails its own checks.
    #[error("{origin} is damaged or was edited: {what}; restore it from its backup")]
    Damaged {
        /// Where it was read.
        origin: String,
        /// Which check failed.
        what: String,
    },
    /// What was read is in order, but asks for something that this version does not know.
    #[error("{origin} cannot be used by this version of Coffer: {what}; use a newer version")]
    Unsupported {
        /// Where it was read.
        origin: String,
        /// What is not known.
        what: String,
    },
    /// The set-up is unsafe or contradicts itself.
    #[error("{origin} {problem}: {remedy}")]
    Config {
        /// What is set up wrongly.
        origin: String,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
    /// Another process holds the key file.
    #[error("{origin} is in use by another process: only one hostd can hold a key file")]
    InUse {
        /// The key file.
        origin: String,
    },
    /// There is a key file already; it is never replaced by a new one.
    #[error(
        "{origin} exists already; a new key file would make every VM of the old one unreadable, \
         so move the old one away first if that is meant"
    )]
    Exists {
        /// The key file.
        origin: String,
    },
    /// A limit of Coffer was reached.
    #[error("{what} (the limit is {limit})")]
    Limit {
        /// What there is too much of.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// The operating system failed a file operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The new key file is in place and whole, but a power loss may bring the old one back.
    #[error("{} is in place, but its folder could not be flushed, so a power loss may undo it: {source}", path.display())]
    NotDurable {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// Key memory or a primitive of `crypto` failed on this host.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl KmsError {
    /// Why a key cannot be had, as vSphere names it (`CryptoManagerKmipCryptoKeyStatusKeyUnavailableReason`); `None` for what is a
    /// matter of this host alone.
    #[must_use]
    pub fn reason(&self) -> Option<&'static str> {
        use crate::kmip::health::reason;
        match self {
            Self::NotFound { .. } => Some(reason::MISSING),
            Self::Inactive { .. } => Some(reason::NOT_ACTIVE),
            Self::Denied { .. } => Some(reason::NO_PERMISSION),
            Self::Unavailable { .. } => Some(reason::UNREACHABLE),
            Self::BadKey { .. } => Some(reason::INVALID),
            _ => None,
        }
    }

    /// Whether the same call may succeed later with nothing changed by an operator, so that retrying
    /// in the background makes sense.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::InUse { .. })
    }
}

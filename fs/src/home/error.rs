//! What can go wrong in a VM home, named by fault.
//!
//! Owns the error type of `home`; must not know FUSE or errnos (the door turns each error into one, in one
//! place, and logs it there).

use crypto::{KeyError, XtsError};
use std::io;
use uuid::Uuid;

/// A fault of a VM home.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// The storage below refused or failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The answer of the storage.
        source: io::Error,
    },
    /// The header page of a file is not what was written.
    #[error(
        "file {file:?} is damaged: {what}; restore it from a backup, or delete it if its content was never synced"
    )]
    Damaged {
        /// Last name it was seen under.
        file: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A file that belongs to another VM.
    #[error(
        "file {file:?} was encrypted for VM {owner}; copy it through the mounted homes, not below them"
    )]
    Foreign {
        /// Last name it was seen under.
        file: String,
        /// The VM that its header names.
        owner: Uuid,
    },
    /// Made by a newer version.
    #[error(
        "file {file:?} has format version {version} and features {features:#x}; this version serves version 1 \
         without features: upgrade it"
    )]
    Unsupported {
        /// Last name it was seen under.
        file: String,
        /// Version in the header.
        version: u32,
        /// Features in the header.
        features: u32,
    },
    /// No key could be derived, or no locked memory had.
    #[error("key of file {file:?}: {source}")]
    Key {
        /// Last name it was seen under.
        file: String,
        /// The reason.
        source: KeyError,
    },
    /// The cipher refused.
    #[error("cipher: {0}")]
    Cipher(#[from] XtsError),
    /// The size is beyond what one key may encrypt.
    #[error("a file of {size} bytes is larger than the limit of 256 TiB")]
    TooLarge {
        /// Size asked for; `u64::MAX` when it does not even fit in a number.
        size: u64,
    },
    /// A name that is empty, `.`, `..`, or has a slash or a zero byte.
    #[error("not a name of one path component")]
    BadName,
    /// A folder that looks empty holds files that are not of this home.
    #[error(
        "folder {folder:?} looks empty and is not: the storage has {stray:?} in it, and perhaps more, which no mount of \
         this home has made; move them away below the mount, `coffer vm fsck` names all of them"
    )]
    Strays {
        /// Last name it was seen under.
        folder: String,
        /// One of them, as the storage names it.
        stray: String,
    },
    /// A request the storage layout cannot do.
    #[error("not supported: {0}")]
    NotSupported(&'static str),
    /// An argument outside what the call allows.
    #[error("invalid argument: {0}")]
    Invalid(&'static str),
    /// The node was removed, or changed below the mount.
    #[error("stale node {0}")]
    Stale(u64),
    /// There is no data, or no hole, at or after the offset.
    #[error("nothing at or after the offset")]
    PastEnd,
    /// Writing through a handle whose file could only be opened for reading.
    #[error("the storage is read-only")]
    ReadOnly,
    /// A named limit of this process was reached.
    #[error("limit reached: {what}, {limit}")]
    Limit {
        /// What there are too many of.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
}

impl HomeError {
    /// There is no such name.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, HomeError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// There is something of this name already.
    pub(crate) fn is_taken(&self) -> bool {
        matches!(self, HomeError::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists)
    }

    /// Says what was being done when the storage failed; for `map_err`.
    pub(crate) fn io<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> HomeError {
        move |source| HomeError::Io { doing, source: source.into() }
    }
}

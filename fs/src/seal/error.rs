//! What can be wrong with a safe or descriptor, by who must act.

use crate::volume::GeometryError;
use crypto::{KeyError, KeyId, OpenError};
use std::{io, path::PathBuf};
use thiserror::Error;

/// Fault of a sealed file.
#[derive(Debug, Error)]
pub enum SealError {
    /// There is no such file.
    #[error("{} is missing", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// There is such a file already.
    #[error("{} is there already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The storage refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried, a verb.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The new file is in place and whole, but a power loss may bring the old state back.
    #[error("{} is in place, but its folder could not be flushed, so a power loss may undo it: {source}", path.display())]
    NotDurable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another kind of file.
    #[error("{} is not a {expected} file{}", path.display(), format_found(found.as_deref()))]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// The format that was expected.
        expected: &'static str,
        /// The format that the file claims, if any.
        found: Option<String>,
    },
    /// Larger than any such file is.
    #[error("{} has more than {limit} bytes, which no such file has", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: usize,
    },
    /// Made by a later version.
    #[error("{} has version {found}, this program reads up to {known}: use a newer one", path.display())]
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The last version that is known.
        known: u32,
    },
    /// Needs something that this version cannot do.
    #[error("{} needs the feature {feature:?}, which this program lacks: use a newer one", path.display())]
    UnsupportedFeature {
        /// The file.
        path: PathBuf,
        /// The first feature that is not known.
        feature: String,
    },
    /// Not what a program of ours writes.
    #[error("{} is damaged: {what}; restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: Flaw,
    },
    /// No wrap for this key.
    #[error("{} is not wrapped by the key {key}", path.display())]
    NoWrap {
        /// The file.
        path: PathBuf,
        /// The key that was tried.
        key: KeyId,
    },
    /// The key under the right id has other bytes than the one that made the wrap.
    #[error("the key given as {key} is not the one that wrapped {}: check the key provider", path.display())]
    WrongKey {
        /// The file.
        path: PathBuf,
        /// Id of the key.
        key: KeyId,
    },
    /// The right key, but the wrapped key does not open.
    #[error("the key in {} wrapped by {key} is damaged; restore the file from a backup", path.display())]
    DamagedWrap {
        /// The file.
        path: PathBuf,
        /// Id of the wrapping key.
        key: KeyId,
    },
    /// The key opens, but the content is not what was sealed with it.
    #[error("{} was edited, damaged or mixed up (its MAC does not fit); restore it from a backup", path.display())]
    MacMismatch {
        /// The file.
        path: PathBuf,
    },
    /// In order by itself, but belongs elsewhere.
    #[error("{} belongs elsewhere: its {field} is {found}, not {expected}", path.display())]
    Misplaced {
        /// The file.
        path: PathBuf,
        /// The field that tells.
        field: &'static str,
        /// What it holds.
        found: String,
        /// What belongs there.
        expected: String,
    },
    /// The file changed since the body was read.
    #[error("{} was replaced meanwhile (sequence {found}, not {expected}): read it again", path.display())]
    Stale {
        /// The file.
        path: PathBuf,
        /// The sequence of the body to write.
        expected: u64,
        /// The sequence of the file.
        found: u64,
    },
    /// A body that must not be written.
    #[error("refused to write {}: {what}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: Flaw,
    },
    /// Locked memory or randomness ran out.
    #[error("cannot use the key of {}: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// A wrapped key could not be opened for a reason of this host.
    #[error("cannot open the key of {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: OpenError,
    },
}

impl SealError {
    /// Whether the new file is in place all the same: what belongs to it must be kept.
    pub fn is_in_place(&self) -> bool {
        matches!(self, Self::NotDurable { .. })
    }
}

/// What is wrong inside a sealed file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Flaw {
    /// No bytes.
    #[error("it is empty")]
    Empty,
    /// Not two lines, each with a newline.
    #[error("it is not two lines of text")]
    Lines,
    /// The first line is not the JSON that belongs there.
    #[error("its first line does not parse ({0})")]
    Body(String),
    /// The second line is not a MAC.
    #[error("its second line is not {{\"mac\":\"...\"}} with 64 lower-case hex digits")]
    MacLine,
    /// No wrap at all.
    #[error("it has no wrapped key")]
    NoWraps,
    /// Too many wraps.
    #[error("it has {0} wrapped keys, more than {max}", max = super::MAX_WRAPS)]
    TooManyWraps(usize),
    /// Two wraps for one key.
    #[error("it is wrapped twice by the key {0}")]
    SameKeyTwice(KeyId),
    /// A wrapped key of a wrong length.
    #[error("the key wrapped by {key} has {len} bytes, not {expected}")]
    WrapLength {
        /// Id of the wrapping key.
        key: KeyId,
        /// Bytes that it has.
        len: usize,
        /// Bytes that it should have.
        expected: usize,
    },
    /// An impossible size or unit.
    #[error("{0}")]
    Geometry(GeometryError),
    /// The payload is not a plain file name, or one that is kept for other files.
    #[error("its payload {0:?} is not the plain name of a payload file beside it")]
    Payload(String),
    /// A text that differs from the only one that this version allows.
    #[error("its {field} is {found:?}, which this version does not know")]
    Unknown {
        /// The field.
        field: &'static str,
        /// What it holds.
        found: String,
    },
    /// A feature twice, one that does not belong to policy and wraps, or one that is missing.
    #[error("its features are not those that its policy and its wraps need")]
    Features,
    /// The sequence number is used up.
    #[error("its sequence number cannot grow any more")]
    Sequence,
}

fn format_found(found: Option<&str>) -> String {
    found.map_or_else(String::new, |found| format!(" (its format is {found:?})"))
}

//! What can go wrong with one OpenBao server, named by fault.
//!
//! Owns [`BaoError`] and [`BaoFault`], and what each means for those who ask next. It must not know other servers. Flow: whoever talks to
//! a server returns a [`BaoFault`]; the cluster adds the server and the operation, and goes by [`BaoFault::meaning`].

use super::http::HttpFault;
use super::json::JsonFault;
use crate::kmip::fault::Fault;
use crate::kmip::health::reason;
use crypto::KeyError;

/// A server did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("OpenBao server {node}: {operation}: {fault}")]
pub struct BaoError {
    /// Its address, `host:port`.
    pub node: String,
    /// What was being done, for people: `encrypt`, `log-in by certificate` and so on.
    pub operation: &'static str,
    /// Why it was not done.
    pub fault: BaoFault,
}

/// Why a server did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BaoFault {
    /// No connection, no trust, or no answer.
    #[error(transparent)]
    Link(#[from] Fault),
    /// What answers speaks no HTTP, or wrongly.
    #[error("its answer is malformed: {0}")]
    Http(#[from] HttpFault),
    /// The content of an answer is not what it should be.
    #[error("its answer is malformed: {0}")]
    Json(#[from] JsonFault),
    /// Closed within an answer.
    #[error("it closed the connection after {got} bytes of its answer, before the end")]
    Truncated {
        /// Bytes that came.
        got: usize,
    },
    /// It leaves the work to the active node.
    #[error("it is a standby that does not pass requests on (status {status})")]
    Standby {
        /// Status of the answer.
        status: u16,
    },
    /// There is no active node.
    #[error(
        "it has no active node to pass the request on to: {0}; the servers are electing one, or have no majority"
    )]
    NoLeader(String),
    /// Sealed.
    #[error("it is sealed; unseal it by `bao operator unseal`")]
    Sealed,
    /// Never initialised.
    #[error("it was never initialized; see `bao operator init`")]
    Uninitialized,
    /// Asked too often.
    #[error("it limits how often it is asked (status 429); see its quotas")]
    Busy,
    /// It has a fault of its own.
    #[error("it failed (status {status}): {message}")]
    Broken {
        /// Status of the answer.
        status: u16,
        /// What it says.
        message: String,
    },
    /// It knows our certificate, but gives no token for it.
    #[error(
        "it gives no token for our certificate (status {status}): {message}; check that the certificate matches a role of \
         the auth method at {mount}"
    )]
    LoginRefused {
        /// Status of the answer.
        status: u16,
        /// What it says.
        message: String,
        /// Where the auth method is mounted.
        mount: String,
    },
    /// The token may not do this.
    #[error("permission denied (status 403): {message}; a policy of our role must allow {needed}")]
    Forbidden {
        /// What it says.
        message: String,
        /// What the policy lacks.
        needed: String,
    },
    /// There is no such key.
    #[error("it has no key {0}")]
    NoKey(String),
    /// There is no such engine or auth method.
    #[error("it has nothing mounted at {mount}: {message}")]
    NoMount {
        /// Where it was looked for.
        mount: String,
        /// What it says.
        message: String,
    },
    /// It does not know the newest version of the key yet.
    #[error("it is behind: {0}")]
    Behind(String),
    /// The version of the key is not to be used any more.
    #[error(
        "key {key} does not open so old a version any more: {message}; lower its min_decryption_version"
    )]
    TooOld {
        /// Name of the key.
        key: String,
        /// What it says.
        message: String,
    },
    /// The wrap does not open by this key, or not with what it should belong to.
    #[error(
        "the wrap does not open by key {0}: it was damaged, belongs to something else, or was made by another key of this name"
    )]
    WrongWrap(String),
    /// A key that cannot be used for this.
    #[error("key {key} {problem}; make one of type aes256-gcm96 without derivation")]
    KeyType {
        /// Name of the key.
        key: String,
        /// What is not as it must be.
        problem: String,
    },
    /// It refuses otherwise.
    #[error("refused (status {status}): {message}")]
    Refused {
        /// Status of the answer.
        status: u16,
        /// What it says.
        message: String,
    },
    /// The answer is no wrap.
    #[error("its answer does not fit: {0}")]
    Unfitting(&'static str),
    /// The answer is no key, or there is no memory for one.
    #[error("its answer holds no usable key: {0}")]
    Key(#[from] KeyError),
    /// What it encrypted a moment ago opens as something else.
    #[error("what it just encrypted does not decrypt to the same key, so it is not used")]
    NotTheSame,
}

/// What a fault means for those who ask next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// An answer that no other server can better.
    Final,
    /// An answer that another server may better: the last word only when all say so.
    Answer,
    /// It cannot now, but can soon, or another can: asked again until the time is over.
    Passing,
    /// It is not well, or cannot be reached: another is asked.
    Ill,
}

impl BaoFault {
    /// What it means for those who ask next.
    #[must_use]
    pub fn meaning(&self) -> Meaning {
        match self {
            Self::Link(Fault::Identity(_) | Fault::NoTime) => Meaning::Final,
            Self::Standby { .. } | Self::NoLeader(_) | Self::Busy | Self::Behind(_) => {
                Meaning::Passing
            }
            Self::Link(_)
            | Self::Truncated { .. }
            | Self::Http(_)
            | Self::Json(_)
            | Self::Unfitting(_)
            | Self::Key(KeyError::WireLength { .. } | KeyError::WireText | KeyError::WireZero)
            | Self::NotTheSame
            | Self::Sealed
            | Self::Uninitialized
            | Self::Broken { .. } => Meaning::Ill,
            Self::LoginRefused { .. }
            | Self::Forbidden { .. }
            | Self::NoKey(_)
            | Self::NoMount { .. }
            | Self::TooOld { .. }
            | Self::WrongWrap(_)
            | Self::KeyType { .. }
            | Self::Refused { .. } => Meaning::Answer,
            Self::Key(_) => Meaning::Final,
        }
    }

    /// vSphere's word for it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Link(fault) => crate::kmip::health::reason_of(fault),
            Self::NoKey(_) => reason::MISSING,
            Self::Forbidden { .. } | Self::LoginRefused { .. } => reason::NO_PERMISSION,
            Self::TooOld { .. } => reason::NOT_ACTIVE,
            Self::Standby { .. }
            | Self::NoLeader(_)
            | Self::Sealed
            | Self::Uninitialized
            | Self::Busy
            | Self::Behind(_)
            | Self::Broken { .. }
            | Self::Truncated { .. } => reason::UNREACHABLE,
            _ => reason::INVALID,
        }
    }

    /// Whether its server is left alone for a while.
    pub(super) fn is_ill(&self) -> bool {
        self.meaning() == Meaning::Ill
    }
}

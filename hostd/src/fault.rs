//! What can go wrong in the daemon, named by who must act.
//!
//! Owns [`Fault`] and nothing else; must not know HTTP or exit codes (`control::answer` and `cli` map it).
//! Verbs build a fault where the reason is known, and it travels up unchanged.

use cryptfs::seal::SealError;
use crypto::KeyError;
use hostd_api::error::{ErrorCode, LockCode, LockReason};
use hostd_api::link::{Failure, LinkError};
use kms_client::KmsError;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a verb was not done.
#[derive(Debug, Error)]
pub enum Fault {
    /// The request or the state of the thing forbids it.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The VM is locked.
    #[error("VM {vm} is locked: {}", reason.detail)]
    Locked {
        /// Name of the VM.
        vm: String,
        /// Why, and which key.
        reason: LockReason,
    },
    /// A safe or descriptor cannot be used.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// A key provider cannot do it.
    #[error(transparent)]
    Provider(#[from] KmsError),
    /// Key memory is exhausted, or a primitive failed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A file operation failed.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The verb, as in "cannot VERB PATH".
        doing: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The link to a vmd failed.
    #[error("vmd of VM {vm}: {source}")]
    Link {
        /// Name of the VM.
        vm: String,
        /// What happened.
        source: LinkError,
    },
    /// A vmd refused.
    #[error("{}", .0.message)]
    Vmd(Failure),
    /// A fault of Coffer itself.
    #[error("internal fault: {0}")]
    Bug(String),
}

/// A verb that was refused: code, what and why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Stable code.
    pub code: ErrorCode,
    /// Names the thing and the reason.
    pub message: String,
    /// What to do next.
    pub remedy: String,
}

impl Fault {
    /// Refused with this code, message and remedy.
    pub fn refused(code: ErrorCode, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Refused(Refusal { code, message: message.into(), remedy: remedy.into() })
    }

    /// The request itself is wrong.
    pub fn invalid(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::refused(ErrorCode::InvalidArgument, message, remedy)
    }

    /// The state of the thing does not allow it.
    pub fn wrong_state(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::refused(ErrorCode::WrongState, message, remedy)
    }

    /// Whether the same verb may succeed later with nothing changed here: a key cannot be had now.
    #[must_use]
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Locked { reason, .. } => {
                matches!(reason.code, LockCode::ProviderUnavailable | LockCode::FetchFailed)
            }
            Self::Provider(fault) => fault.is_transient(),
            _ => false,
        }
    }

    /// A file operation on `path` failed; used as `.map_err(Fault::io("open", path))`.
    pub fn io<E: Into<io::Error>>(doing: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |e| Self::Io { doing, path, source: e.into() }
    }
}

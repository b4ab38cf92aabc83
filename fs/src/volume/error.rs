//! What can go wrong with a disk.

use super::GeometryError;
use crypto::XtsError;
use std::io;
use thiserror::Error;

/// Why a request or an open failed.
#[derive(Debug, Error)]
pub enum VolumeError {
    /// The range is not inside the disk.
    #[error("{len} bytes at {offset} are not inside a disk of {size} bytes")]
    OutOfRange {
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes.
        len: u64,
        /// Size of the disk in bytes.
        size: u64,
    },
    /// The disk was opened without writes.
    #[error("the disk is read-only")]
    ReadOnly,
    /// The payload ends before the disk does.
    #[error(
        "the payload has {payload} bytes, fewer than the {size} bytes of the disk: it was cut or belongs to another disk"
    )]
    PayloadShort {
        /// Bytes of the payload.
        payload: u64,
        /// Bytes of the disk.
        size: u64,
    },
    /// An impossible size or unit.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The storage is full.
    #[error("no space left to {action} the payload at {offset}: {source}")]
    NoSpace {
        /// What was tried.
        action: &'static str,
        /// Where, in bytes.
        offset: u64,
        /// What the storage said.
        source: io::Error,
    },
    /// The storage failed.
    #[error("cannot {action} the payload at {offset}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where, in bytes.
        offset: u64,
        /// What the storage said.
        source: io::Error,
    },
    /// The cipher refused.
    #[error(transparent)]
    Cipher(#[from] XtsError),
}

/// The kinds of failures that wire protocols tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request reaches past the end.
    OutOfRange,
    /// A write to a read-only disk.
    ReadOnly,
    /// The storage is full.
    NoSpace,
    /// Everything else.
    Io,
}

impl VolumeError {
    /// The kind, for a wire code.
    pub fn fault(&self) -> Fault {
        match self {
            Self::OutOfRange { .. } => Fault::OutOfRange,
            Self::ReadOnly => Fault::ReadOnly,
            Self::NoSpace { .. } => Fault::NoSpace,
            Self::PayloadShort { .. } | Self::Geometry(_) | Self::Io { .. } | Self::Cipher(_) => {
                Fault::Io
            }
        }
    }

    pub(super) fn io(action: &'static str, offset: u64, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { action, offset, source }
            }
            _ => Self::Io { action, offset, source },
        }
    }
}

//! Owns the faults of keys, wraps and passphrases.
//!
//! It must not know files or volumes: the caller adds the path or the name of the thing.

use std::io;

use crate::arena::ArenaError;

/// A key could not be made, derived, wrapped or passed on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No locked memory for it.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// The kernel gave no random bytes.
    #[error("the kernel's random source failed: {0}")]
    Random(#[source] io::Error),
    /// The two halves of an XTS key are equal, which IEEE 1619 users must refuse (FIPS 140-3 IG
    /// C.I): such a key turns XTS into a weaker mode.
    #[error("the two halves of a disk key are equal; such a key is refused")]
    EqualHalves,
    /// A parameter of Argon2id is outside what is accepted.
    #[error("Argon2id parameter {name} is {value}; accepted are {min} to {max}")]
    Argon2Bounds {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: u32,
        /// The smallest accepted value.
        min: u32,
        /// The largest accepted value.
        max: u32,
    },
    /// The working memory of Argon2id could not be had.
    #[error(
        "no {kib} KiB of working memory for Argon2id; when the process locks its memory, \
         RLIMIT_MEMLOCK (LimitMEMLOCK=) must leave room for it"
    )]
    Argon2Memory {
        /// The memory parameter.
        kib: u32,
    },
    /// More keys than a key sheet holds.
    #[error("{count} keys do not fit in one key sheet; the limit is {max}")]
    SheetFull {
        /// Keys given.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// The descriptor is no key sheet, or its contents are not well formed.
    #[error("not a usable key sheet: {0}")]
    SheetDamaged(&'static str),
    /// The sheet's next key is of another kind, or there is none left.
    #[error("the key sheet has no {wanted} key next, but {found}")]
    SheetOrder {
        /// What was asked for.
        wanted: &'static str,
        /// What is next.
        found: &'static str,
    },
    /// A system call on the sheet's descriptor failed.
    #[error("key sheet: {call} failed: {source}")]
    SheetIo {
        /// The call.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A key server sent, or is to be sent, a key of another length.
    #[error("such a key has {expected} bytes, not {found}")]
    WireLength {
        /// Bytes of a key.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// A key server sent a text that is not the base64 of a key.
    #[error("the key is not in base64 (RFC 4648 section 4)")]
    WireText,
    /// A key server sent nothing but zeros for a key.
    #[error("the key is all zeros; no generator makes such a key")]
    WireZero,
    /// The public key of a host is no point that anything can be sealed to.
    #[error("the host's public key is none of X25519; nothing can be sealed to it")]
    HostKey,
    /// A text is not what it should be in hex digits.
    #[error("the {what} is not {digits} hex digits")]
    Hex {
        /// What it should be.
        what: &'static str,
        /// How many digits it has.
        digits: usize,
    },
    /// A sealed KEK does not open.
    #[error(
        "the sealed key does not open: it was sealed to another host or another start of it, for another key id, \
         or changed on the way"
    )]
    SealedElsewhere,
    /// The storage key that a TPM shows is none.
    #[error("the storage key of the TPM is no point on the curve P-256")]
    TpmPoint,
    /// A primitive refused an input whose size this crate had fixed: a fault of this program.
    #[error("internal fault: {0} refused a fixed-size input")]
    Primitive(&'static str),
}

/// A wrapped key could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The blob has not the one length that this kind of key has when wrapped.
    #[error("the wrapped key has {found} bytes instead of {expected}")]
    WrongLength {
        /// The length of a wrapped key of this kind.
        expected: usize,
        /// The blob's length.
        found: usize,
    },
    /// The integrity check of RFC 3394 failed: another KEK, or a changed blob.
    #[error("the wrapped key does not open: it is damaged or belongs to another key")]
    Damaged,
    /// The opened disk key has two equal halves.
    #[error("the two halves of the wrapped disk key are equal; such a key is refused")]
    EqualHalves,
    /// No locked memory for the key.
    #[error(transparent)]
    Arena(#[from] ArenaError),
}

/// A passphrase was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassphraseError {
    /// Nothing but, at most, a line end.
    #[error("the passphrase is empty")]
    Empty,
    /// Longer than the limit.
    #[error("the passphrase is longer than {max} bytes")]
    TooLong {
        /// The limit.
        max: usize,
    },
    /// The source could not be read.
    #[error("the passphrase could not be read: {0}")]
    Read(#[source] io::Error),
    /// No locked memory for it.
    #[error(transparent)]
    Arena(#[from] ArenaError),
}

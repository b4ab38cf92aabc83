//! The NBD wire format: numbers, bounded parsers and encoders, and nothing else.
//!
//! Source: "The NBD protocol" (NetworkBlockDevice/nbd, `doc/proto.md`): fixed newstyle negotiation, simple and
//! structured replies, `base:allocation`; extended headers from the branch `extension-ext-header` of the same
//! text. Pure: no I/O, no clock, no lock, so all of it is a fuzz target. It must not know sockets or volumes.
//! Flow: bytes from the socket become a [`negotiation::OptionHeader`] or a [`transmission::Request`]; answers
//! become bytes again, in [`negotiation`] before and in [`chunk`] and [`status`] during transmission.

pub mod chunk;
pub mod meta;
pub mod negotiation;
pub mod status;
pub mod transmission;

use thiserror::Error;

/// Largest payload of one READ or WRITE, and what is advertised: clients expect at least 32 MiB.
pub const MAX_PAYLOAD: u32 = 32 * 1024 * 1024;

/// Longest WRITE payload that is read and thrown away to answer with an error; a longer one ends the
/// connection. Twice the advertised limit: a client that missed the limit gets an error, an attacker does not
/// get this thread for 4 GiB.
pub const MAX_DISCARDED: u32 = 2 * MAX_PAYLOAD;

/// Smallest unit of a request. One, because a volume takes any alignment: its read-modify-write locks hold for
/// all connections, those of a client would not.
pub const MIN_BLOCK: u32 = 1;

/// Preferred unit of a request: the data unit of the cipher and the page of the host.
pub const PREFERRED_BLOCK: u32 = 4096;

/// Longest string either side may send ("Values", strings).
pub const MAX_STRING: usize = 4096;

/// The peer broke the framing; there is no telling where its next message starts, so the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Violation {
    /// A client flag that was not offered.
    #[error("unknown client flags {0:#010x}")]
    ClientFlags(u32),
    /// An option that does not start with `IHAVEOPT`.
    #[error("an option does not start with the option magic")]
    OptionMagic,
    /// An option longer than the server is willing to skip.
    #[error("an option of {0} bytes")]
    OptionLength(u32),
    /// More options than a client needs.
    #[error("more than {0} options")]
    TooManyOptions(u32),
    /// `EXPORT_NAME` for an export that is not here; that option has no error reply.
    #[error("EXPORT_NAME asked for an unknown export")]
    UnknownExport,
    /// An export was chosen that has as many clients as it may have.
    #[error("the export that was chosen has too many clients")]
    TooManyClients,
    /// `EXPORT_NAME` before TLS, where TLS is required; that option has no error reply.
    #[error("EXPORT_NAME was sent before TLS")]
    WithoutTls,
    /// `EXPORT_NAME` after extended headers, with which it cannot be answered.
    #[error("EXPORT_NAME was sent after extended headers")]
    ExportNameExtended,
    /// A request that does not start with the request magic.
    #[error("a request does not start with the request magic")]
    RequestMagic,
    /// A payload longer than the server is willing to skip.
    #[error("a payload of {0} bytes")]
    PayloadLength(u64),
}

/// How both sides frame their messages in the transmission phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Framing {
    /// Compact requests, simple replies.
    #[default]
    Simple,
    /// Compact requests, structured replies.
    Structured,
    /// Extended headers both ways.
    Extended,
}

/// What the handshake agreed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// How messages are framed.
    pub framing: Framing,
    /// `base:allocation` was selected, for the export that was chosen.
    pub allocation: bool,
}

/// The eight error codes that may cross the wire ("Error values").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireError {
    /// Not permitted: a write to a read-only export.
    Perm,
    /// Storage failed.
    Io,
    /// No memory.
    NoMemory,
    /// The request makes no sense.
    Invalid,
    /// No room, or a write past the end.
    NoSpace,
    /// Too long to answer.
    Overflow,
    /// Not as fast as asked for.
    NotSupported,
    /// The server is stopping.
    Shutdown,
}

impl WireError {
    /// The number on the wire.
    pub fn code(self) -> u32 {
        match self {
            Self::Perm => 1,
            Self::Io => 5,
            Self::NoMemory => 12,
            Self::Invalid => 22,
            Self::NoSpace => 28,
            Self::Overflow => 75,
            Self::NotSupported => 95,
            Self::Shutdown => 108,
        }
    }

    /// The same for people, of at most [`chunk::MAX_TEXT`] bytes.
    pub fn text(self) -> &'static str {
        match self {
            Self::Perm => "the export is read-only",
            Self::Io => "the storage failed",
            Self::NoMemory => "no memory for the payload",
            Self::Invalid => "the request is not valid",
            Self::NoSpace => "no space, or past the end",
            Self::Overflow => "the answer would be too long",
            Self::NotSupported => "zeros would have to be written",
            Self::Shutdown => "the export is stopping",
        }
    }
}

/// A big-endian `u16` at `at`, when there is one.
fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

/// A big-endian `u32` at `at`, when there is one.
fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
}

/// A big-endian `u64` at `at`, when there is one.
fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_be_bytes)
}

#[cfg(test)]
#[path = "proto_tests.rs"]
mod tests;

#[cfg(test)]
mod reply_tests;

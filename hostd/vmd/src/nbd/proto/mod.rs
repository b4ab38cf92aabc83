//! The NBD wire format: numbers, bounded parsers and encoders, and nothing else.
//!
//! Source: "The NBD protocol" (NetworkBlockDevice/nbd, `doc/proto.md`), fixed newstyle negotiation and the
//! transmission phase with simple replies. Pure: no I/O, no clock, no lock, so all of it is a fuzz target. It
//! must not know sockets or volumes. Flow: bytes from the socket become an [`negotiation::OptionHeader`] or a
//! [`transmission::Request`]; answers become bytes again. Structured replies, meta contexts, STARTTLS and
//! extended headers would each be one more file here, and one more arm in `handshake`.

pub mod negotiation;
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
    /// A request that does not start with the request magic.
    #[error("a request does not start with the request magic")]
    RequestMagic,
    /// A WRITE longer than the server is willing to skip.
    #[error("a write of {0} bytes")]
    WriteLength(u32),
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
}

/// A big-endian `u16` at `at`, when there is one.
fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

/// A big-endian `u32` at `at`, when there is one.
fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
}

#[cfg(test)]
#[path = "proto_tests.rs"]
mod tests;

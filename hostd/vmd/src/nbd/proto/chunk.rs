//! Replies of the transmission phase: their headers and what stands behind them.
//!
//! Owns the layout of simple replies, of structured reply chunks and of extended ones ("Simple reply message",
//! "Structured reply chunk message"; the extension for the last). Must not know when which reply is due.
//! Flow: a [`Head`] says what is answered; [`head`] and [`error`] write it to the start of a slice and return how
//! many bytes that took, so that a reply is put together where it will be sent from.

use super::{Framing, WireError};

/// Start of each simple reply.
pub const SIMPLE_MAGIC: u32 = 0x6744_6698;

/// Start of each structured reply chunk.
pub const STRUCTURED_MAGIC: u32 = 0x668e_33ef;

/// Start of each extended reply chunk.
pub const EXTENDED_MAGIC: u32 = 0x6e8a_278c;

/// This chunk is the last of its reply.
pub const DONE: u16 = 1 << 0;

/// Bytes of the longest header.
pub const MAX_HEAD: usize = 32;

/// Bytes of the longest text in an error chunk; the protocol allows 4096.
pub const MAX_TEXT: usize = 40;

/// What an error chunk has behind its header, at most: code, length of the text, text, offset.
pub const MAX_ERROR_BODY: usize = 4 + 2 + MAX_TEXT + 8;

/// Kinds of chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing but success.
    None,
    /// Offset and data.
    OffsetData,
    /// Offset and number of zeros.
    OffsetHole,
    /// Extents with lengths of 32 bits.
    BlockStatus,
    /// Extents with lengths of 64 bits.
    BlockStatusExtended,
    /// An error of the whole request.
    Error,
    /// An error at an offset.
    ErrorOffset,
}

impl Kind {
    /// The number on the wire.
    pub fn code(self) -> u16 {
        const ERROR: u16 = 1 << 15;
        match self {
            Self::None => 0,
            Self::OffsetData => 1,
            Self::OffsetHole => 2,
            Self::BlockStatus => 5,
            Self::BlockStatusExtended => 6,
            Self::Error => ERROR | 1,
            Self::ErrorOffset => ERROR | 2,
        }
    }
}

/// Which request is answered: what a reply echoes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Opaque.
    pub cookie: u64,
    /// Echoed by extended replies only.
    pub offset: u64,
}

/// Bytes of a header.
pub fn head_len(framing: Framing) -> usize {
    match framing {
        Framing::Simple => 16,
        Framing::Structured => 20,
        Framing::Extended => MAX_HEAD,
    }
}

/// Writes the header of a chunk with `length` bytes behind it, and returns how long it is. With simple framing
/// there are no chunks: the header is then that of a success.
pub fn head(
    to: &mut [u8],
    framing: Framing,
    of: Head,
    kind: Kind,
    done: bool,
    length: u32,
) -> usize {
    let flags = if done { DONE } else { 0 }.to_be_bytes();
    let (kind, cookie) = (kind.code().to_be_bytes(), of.cookie.to_be_bytes());
    match framing {
        Framing::Simple => simple(to, of.cookie, None),
        Framing::Structured => put(
            to,
            &[&STRUCTURED_MAGIC.to_be_bytes(), &flags, &kind, &cookie, &length.to_be_bytes()],
        ),
        Framing::Extended => {
            let (offset, length) = (of.offset.to_be_bytes(), u64::from(length).to_be_bytes());
            put(to, &[&EXTENDED_MAGIC.to_be_bytes(), &flags, &kind, &cookie, &offset, &length])
        }
    }
}

/// Writes a whole reply that says no, `at` an offset of the request or as a whole; returns its length.
pub fn error(
    to: &mut [u8],
    framing: Framing,
    of: Head,
    error: WireError,
    at: Option<u64>,
) -> usize {
    if framing == Framing::Simple {
        return simple(to, of.cookie, Some(error));
    }
    let kind = if at.is_some() { Kind::ErrorOffset } else { Kind::Error };
    let text = error.text();
    let length = 6 + text.len() + if at.is_some() { 8 } else { 0 };
    let (Ok(length), Ok(text_len)) = (u32::try_from(length), u16::try_from(text.len())) else {
        return 0;
    };
    let start = head(to, framing, of, kind, true, length);
    let body = to.get_mut(start..).unwrap_or_default();
    let (code, at) = (error.code().to_be_bytes(), at.map(u64::to_be_bytes));
    start
        + put(
            body,
            &[&code, &text_len.to_be_bytes(), text.as_bytes(), at.as_ref().map_or(&[], |at| at)],
        )
}

/// Bytes that an error takes in place of a reply without payload.
pub fn error_len(framing: Framing, error: WireError) -> usize {
    match framing {
        Framing::Simple => head_len(framing),
        _ => head_len(framing) + 6 + error.text().len(),
    }
}

fn simple(to: &mut [u8], cookie: u64, error: Option<WireError>) -> usize {
    let error = error.map_or(0, WireError::code).to_be_bytes();
    put(to, &[&SIMPLE_MAGIC.to_be_bytes(), &error, &cookie.to_be_bytes()])
}

/// Writes `fields` one behind the other to the start of `to`, and returns how long they are.
pub(super) fn put(to: &mut [u8], fields: &[&[u8]]) -> usize {
    let mut at = 0;
    for field in fields {
        if let Some(place) = to.get_mut(at..at + field.len()) {
            place.copy_from_slice(field);
        }
        at += field.len();
    }
    at
}

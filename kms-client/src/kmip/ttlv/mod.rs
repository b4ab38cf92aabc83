//! TTLV, the encoding of KMIP messages (KMIP 1.4 section 9.1): tag, type, length, value.
//!
//! Owns bytes, lengths and limits. It must not know what any tag means, does no I/O and never allocates for what a
//! length field says. Flow: [`frame_length`] judges the first eight bytes of a message before it is read;
//! [`Item::parse`] checks the whole message once, so that walking it through [`Item::children`] cannot fail;
//! [`Writer`] makes one.
//!
//! Bytes that break the standard in any way are refused (padding that is not zero, booleans other than 0 and 1), so
//! what is decoded encodes to the same bytes.

mod decode;
mod encode;
mod error;
mod tag;

pub use decode::{Children, Item, Value, frame_length};
pub use encode::{Message, Writer};
pub use error::{Reason, TtlvError};
pub use tag::Tag;

/// Bytes of tag, type and length.
pub const HEADER: usize = 8;

/// Largest message in bytes, read or written. A key takes 300 bytes, a list of ten thousand keys half of this; it is also
/// the limit of the common servers.
pub const MAX_MESSAGE: usize = 1024 * 1024;

/// Deepest nesting. The deepest answer that is read here (a wrapped key with its parameters) has ten levels.
pub const MAX_DEPTH: usize = 32;

/// Most items in one message: a largest message of the shortest useful items (16 bytes). More takes a message that
/// is made to be slow.
pub const MAX_ITEMS: usize = MAX_MESSAGE / 16;

/// How a value is encoded (KMIP 1.4 section 9.1.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the standard")]
#[repr(u8)]
pub enum Kind {
    Structure = 1,
    Integer = 2,
    LongInteger = 3,
    BigInteger = 4,
    Enumeration = 5,
    Boolean = 6,
    TextString = 7,
    ByteString = 8,
    DateTime = 9,
    Interval = 10,
}

impl Kind {
    /// The kind of a type byte.
    #[must_use]
    pub fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Structure,
            2 => Self::Integer,
            3 => Self::LongInteger,
            4 => Self::BigInteger,
            5 => Self::Enumeration,
            6 => Self::Boolean,
            7 => Self::TextString,
            8 => Self::ByteString,
            9 => Self::DateTime,
            10 => Self::Interval,
            _ => return None,
        })
    }

    fn byte(self) -> u8 {
        self as u8
    }
}

/// Length of a value with its padding: values end at multiples of eight bytes (section 9.1.1.4).
fn padded(length: usize) -> usize {
    length.next_multiple_of(8)
}

#[cfg(test)]
#[path = "ttlv_tests.rs"]
mod tests;

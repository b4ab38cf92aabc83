//! What is wrong with a TTLV message: which tag, at which byte, and why.
//!
//! Owns [`TtlvError`]. It must not hold or print a value: it may be a key.

use super::{Kind, Tag};

/// A fault in a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{tag} at byte {offset}: {reason}")]
pub struct TtlvError {
    /// The item, or the one around it when its own tag cannot be read.
    pub tag: Tag,
    /// Where the item begins.
    pub offset: usize,
    /// What is wrong with it.
    pub reason: Reason,
}

/// Why bytes are no message, or not the one that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// Fewer than eight bytes are left for an item.
    #[error("an item needs 8 bytes, and {left} are left")]
    CutHeader {
        /// Bytes left in the structure around it.
        left: usize,
    },
    /// A type byte that KMIP 1.x does not have.
    #[error("type {0:#04x} is unknown")]
    UnknownType(u8),
    /// A length that its type cannot have.
    #[error("a {kind:?} cannot have {length} bytes")]
    WrongLength {
        /// Type of the item.
        kind: Kind,
        /// Length that it says.
        length: usize,
    },
    /// The value with its padding ends after the structure around it.
    #[error("its {length} bytes and their padding do not fit into the {left} that are left")]
    BeyondParent {
        /// Length that it says.
        length: usize,
        /// Bytes left in the structure around it.
        left: usize,
    },
    /// Padding of other bytes than zeros.
    #[error("its padding is not zero")]
    Padding,
    /// A boolean that is neither.
    #[error("a boolean is 0 or 1")]
    Boolean,
    /// Text in another encoding.
    #[error("the text is not UTF-8")]
    Text,
    /// Nested too deeply.
    #[error("nested deeper than {limit} levels")]
    Depth {
        /// The limit.
        limit: usize,
    },
    /// Too many items.
    #[error("more than {limit} items in one message")]
    Items {
        /// The limit.
        limit: usize,
    },
    /// Too large a message.
    #[error("a message of {length} bytes, the limit is {limit}")]
    Large {
        /// Length of the message.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// Bytes after the message.
    #[error("{left} bytes follow the message")]
    Trailing {
        /// How many.
        left: usize,
    },
    /// Not the tag that must stand here.
    #[error("found where {wanted} must be")]
    WrongTag {
        /// The tag that must.
        wanted: Tag,
    },
    /// Not the type that its tag has.
    #[error("is a {found:?}, not a {wanted:?}")]
    WrongKind {
        /// The type that it must have.
        wanted: Kind,
        /// The type that it has.
        found: Kind,
    },
    /// A field that must be there is not.
    #[error("has no {0}")]
    Missing(Tag),
    /// A field that may be there once is there twice.
    #[error("has more than one {0}")]
    Repeated(Tag),
    /// A value out of range.
    #[error("has the value {0}, which is unknown")]
    UnknownValue(i64),
}

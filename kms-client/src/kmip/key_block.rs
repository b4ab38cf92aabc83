//! The answer to a Get: whether what came is the key that was asked for, in clear, and of the right kind.
//!
//! Owns the rules (KMIP 1.4 section 2.1.3). It must not keep key bytes: they go from the message into the arena, and the message is
//! wiped by whoever received it.

use super::ttlv::{Item, Tag, TtlvError};
use super::values::only;
use crypto::{Arena, Kek, KeyError};

/// Why what came is not the key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFault {
    /// The answer is for another key.
    #[error("the server answered with key {found:?}")]
    OtherKey {
        /// The key that came.
        found: String,
    },
    /// Another kind of object.
    #[error("the object is no symmetric key (its type is {0})")]
    OtherObject(u32),
    /// Another algorithm.
    #[error("the key is not for AES (its algorithm is {0})")]
    OtherAlgorithm(u32),
    /// The server says another length.
    #[error("the key has {0} bits, not 256")]
    OtherLength(i32),
    /// Bytes of another number.
    #[error("the key came with {0} bytes, not 32")]
    WrongLength(usize),
    /// Wrapped by another key.
    #[error("the key came wrapped by another key, which was not asked for")]
    Wrapped,
    /// In a form that cannot be read here.
    #[error("the key came in a form that was not asked for (format {0})")]
    OtherFormat(u32),
    /// Nothing but zeros.
    #[error("the key is all zeros; no generator makes such a key")]
    AllZero,
    /// Its own fields contradict or lack something.
    #[error(transparent)]
    Malformed(#[from] TtlvError),
    /// No key memory on this host.
    #[error(transparent)]
    Memory(KeyError),
}

/// The key `uid` out of the payload of a Get.
///
/// # Errors
/// [`KeyFault`].
pub fn read(payload: &Item<'_>, uid: &str, arena: &Arena) -> Result<Kek, KeyFault> {
    let kind = payload.required(Tag::OBJECT_TYPE)?.enumeration()?;
    if kind != only::SYMMETRIC_KEY {
        return Err(KeyFault::OtherObject(kind));
    }
    let found = payload.required(Tag::UNIQUE_IDENTIFIER)?.text()?;
    if found != uid {
        return Err(KeyFault::OtherKey { found: super::response::printable(found) });
    }
    let block = payload.required(Tag::SYMMETRIC_KEY)?.required(Tag::KEY_BLOCK)?;
    if block.optional(Tag::KEY_WRAPPING_DATA)?.is_some() {
        return Err(KeyFault::Wrapped);
    }
    if let Some(algorithm) = block.optional(Tag::CRYPTOGRAPHIC_ALGORITHM)? {
        let algorithm = algorithm.enumeration()?;
        if algorithm != only::AES {
            return Err(KeyFault::OtherAlgorithm(algorithm));
        }
    }
    if let Some(bits) = block.optional(Tag::CRYPTOGRAPHIC_LENGTH)? {
        let bits = bits.integer()?;
        if bits != only::BITS {
            return Err(KeyFault::OtherLength(bits));
        }
    }
    Kek::from_wire(arena, material(&block)?).map_err(|e| match e {
        KeyError::WireLength { found, .. } => KeyFault::WrongLength(found),
        KeyError::WireZero => KeyFault::AllZero,
        other => KeyFault::Memory(other),
    })
}

/// The key bytes, inside the message.
fn material<'a>(block: &Item<'a>) -> Result<&'a [u8], KeyFault> {
    let format = block.required(Tag::KEY_FORMAT_TYPE)?.enumeration()?;
    let material = block.required(Tag::KEY_VALUE)?.structure()?.required(Tag::KEY_MATERIAL)?;
    match format {
        only::RAW => Ok(material.bytes()?),
        only::TRANSPARENT_SYMMETRIC_KEY => Ok(material.structure()?.required(Tag::KEY)?.bytes()?),
        other => Err(KeyFault::OtherFormat(other)),
    }
}

#[cfg(test)]
#[path = "key_block_tests.rs"]
mod tests;

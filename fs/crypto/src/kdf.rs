//! Owns key derivation: HKDF (RFC 5869) from a key in the arena into the arena.
//!
//! It must not know which labels exist: callers pass them. Flow: extract without salt, expand with
//! the label, wipe the stack that held the pseudo-random key.

use hkdf::Hkdf;
use sha2::{Sha256, Sha512};

use crate::KeyError;
use crate::arena::{Arena, Slot};
use crate::stack::wiping_stack;

/// HKDF-SHA-256(ikm, no salt, info), `len` bytes in a new slot.
pub(crate) fn hkdf_sha256(
    arena: &Arena,
    ikm: &[u8],
    info: &[&[u8]],
    len: usize,
) -> Result<Slot, KeyError> {
    let mut slot = arena.slot(len)?;
    expand_sha256(ikm, info, slot.bytes_mut())?;
    Ok(slot)
}

/// HKDF-SHA-512(ikm, no salt, info), `len` bytes in a new slot.
pub(crate) fn hkdf_sha512(
    arena: &Arena,
    ikm: &[u8],
    info: &[&[u8]],
    len: usize,
) -> Result<Slot, KeyError> {
    let mut slot = arena.slot(len)?;
    wiping_stack(|| Hkdf::<Sha512>::new(None, ikm).expand_multi_info(info, slot.bytes_mut()))
        .map_err(|_| KeyError::Primitive("HKDF-SHA-512"))?;
    Ok(slot)
}

/// HKDF-SHA-256(ikm, no salt, info) into `out`.
pub(crate) fn expand_sha256(ikm: &[u8], info: &[&[u8]], out: &mut [u8]) -> Result<(), KeyError> {
    wiping_stack(|| Hkdf::<Sha256>::new(None, ikm).expand_multi_info(info, out))
        .map_err(|_| KeyError::Primitive("HKDF-SHA-256"))
}

#[cfg(test)]
#[path = "kdf_tests.rs"]
mod tests;

//! Owns key wrapping: AES-KW of RFC 3394 (NIST SP 800-38F) with fixed lengths.
//!
//! It must not know where wrapped keys are stored. Flow: [`Kek::wrap`] returns the blob;
//! [`Kek::open`] checks the length first, unwraps straight into the arena, then lets the kind of key
//! check itself.
//!
//! The length check matters for more than tidiness: the `aes-kw` crate accepts an 8-byte blob as
//! the wrap of an empty key under every KEK, and its working block keeps the first 8 key bytes,
//! which is why the stack is wiped.

use aes_kw::{KeyInit, KwAes256};

use serde::{Deserialize, Serialize};

use crate::arena::{Arena, Slot};
use crate::bytes::fixed;
use crate::keys::sealed::Bytes;
use crate::keys::{DataKey, Kek};
use crate::stack::wiping_stack;
use crate::{KeyError, OpenError};

/// Algorithms of key wrapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WrapAlg {
    /// AES-256 key wrap, RFC 3394, by its JOSE name (RFC 7518 section 4.1). The blob is binary.
    A256KW,
    /// AES-256-GCM by a transit engine, which keeps the key. The blob is its text, `vault:vN:` and base64.
    #[serde(rename = "transit-aes256-gcm96")]
    Transit,
}

/// A wrapped key, as the one who wrapped it gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// How it was wrapped.
    pub alg: WrapAlg,
    /// The wrapped key.
    pub blob: Vec<u8>,
}

impl Kek {
    /// `key` wrapped under this KEK, `K::WRAPPED_LEN` bytes (RFC 3394 section 2.2.1).
    ///
    /// # Errors
    /// [`KeyError::Primitive`], a fault of this program.
    pub fn wrap<K: DataKey>(&self, key: &K) -> Result<Vec<u8>, KeyError> {
        wrap_bytes(self, key.bytes())
    }

    /// The key inside `blob` (RFC 3394 section 2.2.2), in the arena.
    ///
    /// # Errors
    /// [`OpenError::WrongLength`] before anything else is looked at; [`OpenError::Damaged`] when
    /// the integrity check fails; [`OpenError::EqualHalves`] for a disk key that must not be used.
    pub fn open<K: DataKey>(&self, arena: &Arena, blob: &[u8]) -> Result<K, OpenError> {
        if blob.len() != K::WRAPPED_LEN {
            return Err(OpenError::WrongLength { expected: K::WRAPPED_LEN, found: blob.len() });
        }
        let slot = unwrap_slot(self, arena, blob, K::LEN)?;
        K::from_slot(slot).map_err(|_| OpenError::EqualHalves)
    }
}

/// Key bytes wrapped under `kek`.
pub(crate) fn wrap_bytes(kek: &Kek, key: &[u8]) -> Result<Vec<u8>, KeyError> {
    let mut blob = vec![0; key.len() + 8];
    let kek = fixed(kek.bytes(), "AES-KW")?;
    wrap_into(kek, key, &mut blob).map_err(|_| KeyError::Primitive("AES-KW"))?;
    Ok(blob)
}

/// The `len` key bytes inside a blob whose length the caller has checked.
pub(crate) fn unwrap_slot(
    kek: &Kek,
    arena: &Arena,
    blob: &[u8],
    len: usize,
) -> Result<Slot, OpenError> {
    let mut slot = arena.slot(len)?;
    let kek = fixed(kek.bytes(), "AES-KW").map_err(|_| OpenError::Damaged)?;
    unwrap_into(kek, blob, slot.bytes_mut()).map_err(|_| OpenError::Damaged)?;
    Ok(slot)
}

fn wrap_into(kek: &[u8; 32], key: &[u8], blob: &mut [u8]) -> Result<(), aes_kw::Error> {
    wiping_stack(|| KwAes256::new(kek.into()).wrap_key(key, blob).map(drop))
}

fn unwrap_into(kek: &[u8; 32], blob: &[u8], key: &mut [u8]) -> Result<(), aes_kw::Error> {
    wiping_stack(|| KwAes256::new(kek.into()).unwrap_key(blob, key).map(drop))
}

#[cfg(test)]
#[path = "wrap_tests.rs"]
mod tests;

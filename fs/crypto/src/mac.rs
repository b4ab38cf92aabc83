//! Owns message authentication: HMAC-SHA-256 (RFC 2104) under a key derived for one purpose.
//!
//! It must not know what is authenticated. Flow: derive a [`MacKey`] from a key with a label, then
//! `tag` or `verify` the parts of a message, which are taken as one string.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::KeyError;
use crate::arena::{Arena, Slot};
use crate::kdf;
use crate::keys::MacSource;
use crate::stack::wiping_stack;

/// A key for HMAC-SHA-256, 32 bytes, of one purpose.
pub struct MacKey {
    slot: Slot,
}

impl MacKey {
    const LEN: usize = 32;

    /// A key that is in the arena already.
    #[cfg(feature = "aws-lc")]
    pub(crate) fn of(slot: Slot) -> Self {
        Self { slot }
    }

    /// HKDF-SHA-256(key, no salt, info).
    ///
    /// # Errors
    /// [`KeyError::Arena`].
    pub fn derive<K: MacSource>(key: &K, arena: &Arena, info: &str) -> Result<Self, KeyError> {
        let slot = kdf::hkdf_sha256(arena, key.bytes(), &[info.as_bytes()], Self::LEN)?;
        Ok(Self { slot })
    }

    /// The tag of the concatenation of `parts`. The caller frames parts of variable length.
    pub fn tag(&self, parts: &[&[u8]]) -> [u8; 32] {
        wiping_stack(|| self.absorb(parts).finalize().into_bytes().into())
    }

    /// Whether `tag` is the 32-byte tag of `parts`; takes the same time wherever they differ.
    pub fn verify(&self, parts: &[&[u8]], tag: &[u8]) -> bool {
        wiping_stack(|| self.absorb(parts).verify_slice(tag).is_ok())
    }

    /// [`MacKey::verify`] for a tag of which only the first 16 bytes were kept (RFC 2104 section 5).
    pub fn verify_half(&self, parts: &[&[u8]], half: &[u8; 16]) -> bool {
        wiping_stack(|| self.absorb(parts).verify_truncated_left(half).is_ok())
    }

    fn absorb(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(self.slot.bytes()).expect("an HMAC key");
        parts.iter().for_each(|part| mac.update(part));
        mac
    }
}

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MacKey(secret)")
    }
}

#[cfg(test)]
#[path = "mac_tests.rs"]
mod tests;

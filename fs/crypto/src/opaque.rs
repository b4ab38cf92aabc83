//! Owns the way of a data key to a server that wraps it, and back: the key without its kind, and its base64 text.
//!
//! It must not know the server's protocol. Flow: [`OpaqueKey::of`] copies a key within the arena, [`OpaqueKey::write_base64`]
//! puts its text into a request that the caller wipes; [`OpaqueKey::from_base64`] reads it from an answer, straight into the
//! arena, and [`OpaqueKey::into_key`] has the kind of key check itself.
//!
//! Base64 (RFC 4648 section 4) is computed, not looked up in a table, so that the cache shows nothing of the key.

use crate::arena::{Arena, Slot};
use crate::check::CheckValue;
use crate::keys::sealed::FromSlot;
use crate::keys::{DataKey, Kek};
use crate::stack::wiping_stack;
use crate::wrap::{WrapAlg, Wrapped, unwrap_slot, wrap_bytes};
use crate::{KeyError, OpenError, kdf};

/// A data key whose kind is not told: 32 or 64 bytes in the arena.
pub struct OpaqueKey {
    slot: Slot,
}

impl OpaqueKey {
    /// The same key once more, in `arena`.
    ///
    /// # Errors
    /// [`KeyError::Arena`].
    pub fn of<K: DataKey>(key: &K, arena: &Arena) -> Result<Self, KeyError> {
        Self::copied(key.bytes(), arena)
    }

    /// A random key of `len` bytes, to try a provider with.
    ///
    /// # Errors
    /// [`KeyError::Arena`] or [`KeyError::Random`].
    pub fn generate(len: usize, arena: &Arena) -> Result<Self, KeyError> {
        let mut slot = arena.slot(len)?;
        crate::random::fill(slot.bytes_mut())?;
        Ok(Self { slot })
    }

    /// The same key once more, for another of those who asked for it together.
    ///
    /// # Errors
    /// [`KeyError::Arena`].
    pub fn copy_to(&self, arena: &Arena) -> Result<Self, KeyError> {
        Self::copied(self.slot.bytes(), arena)
    }

    fn copied(bytes: &[u8], arena: &Arena) -> Result<Self, KeyError> {
        let mut slot = arena.slot(bytes.len())?;
        slot.bytes_mut().copy_from_slice(bytes);
        Ok(Self { slot })
    }

    /// The key as the kind that it is.
    ///
    /// # Errors
    /// [`OpenError::WrongLength`] when that kind has another length; [`OpenError::EqualHalves`].
    pub fn into_key<K: DataKey>(self) -> Result<K, OpenError> {
        if self.slot.bytes().len() != K::LEN {
            let found = self.slot.bytes().len();
            return Err(OpenError::WrongLength { expected: K::LEN, found });
        }
        <K as FromSlot>::from_slot(self.slot).map_err(|_| OpenError::EqualHalves)
    }

    /// The public check value: the first 8 bytes of HKDF-SHA-256(key, no salt, label).
    ///
    /// # Errors
    /// [`KeyError::Primitive`], a fault of this program.
    pub fn check_value(&self) -> Result<CheckValue, KeyError> {
        let mut bytes = [0; 8];
        kdf::expand_sha256(self.slot.bytes(), &[b"coffer v1 data key check"], &mut bytes)?;
        Ok(CheckValue::new(bytes))
    }

    /// Characters of the base64 text of a key of `len` bytes.
    #[must_use]
    pub const fn base64_len(len: usize) -> usize {
        len.div_ceil(3) * 4
    }

    /// Bytes of the key.
    #[must_use]
    pub fn key_len(&self) -> usize {
        self.slot.bytes().len()
    }

    /// Writes the key as base64 into a request, which the caller wipes.
    ///
    /// # Errors
    /// [`KeyError::WireLength`] unless `text` has exactly [`OpaqueKey::base64_len`] bytes; nothing is written then.
    pub fn write_base64(&self, text: &mut [u8]) -> Result<(), KeyError> {
        let expected = Self::base64_len(self.key_len());
        if text.len() != expected {
            return Err(KeyError::WireLength { expected, found: text.len() });
        }
        wiping_stack(|| encode_into(self.slot.bytes(), text));
        Ok(())
    }

    /// The key of `len` bytes that a server sent as base64. The caller wipes `text`, and hands it to nobody else.
    ///
    /// # Errors
    /// [`KeyError::WireLength`] unless it is exactly so long; [`KeyError::WireText`] when it is not the one base64 text of
    /// such a key; [`KeyError::WireZero`] when all bytes are zero; [`KeyError::Arena`].
    pub fn from_base64(arena: &Arena, text: &[u8], len: usize) -> Result<Self, KeyError> {
        let padding = len.div_ceil(3) * 3 - len;
        let (digits, tail) = text.split_at(text.len().saturating_sub(padding));
        let other_end = tail.iter().any(|c| *c != b'=') || digits.ends_with(b"=");
        if text.len() != Self::base64_len(len) || other_end {
            // A longer or shorter key has a text of another length, or another number of `=`.
            let found = text.iter().filter(|c| **c != b'=').count() * 3 / 4;
            return Err(KeyError::WireLength { expected: len, found });
        }
        let mut slot = arena.slot(len)?;
        if wiping_stack(|| decode_into(digits, slot.bytes_mut())) != 0 {
            return Err(KeyError::WireText);
        }
        let sum = slot.bytes().iter().fold(0, |sum, byte| std::hint::black_box(sum | byte));
        if sum == 0 {
            return Err(KeyError::WireZero);
        }
        Ok(Self { slot })
    }
}

impl Kek {
    /// Wraps a key whose kind is not told (RFC 3394 section 2.2.1).
    ///
    /// # Errors
    /// [`KeyError::Primitive`], a fault of this program.
    pub fn wrap_opaque(&self, key: &OpaqueKey) -> Result<Wrapped, KeyError> {
        let blob = wrap_bytes(self, key.slot.bytes())?;
        Ok(Wrapped { alg: WrapAlg::A256KW, blob })
    }

    /// Opens what [`Kek::wrap_opaque`] wrapped: 32 or 64 bytes.
    ///
    /// # Errors
    /// [`OpenError::WrongLength`] for a blob of no kind of key; [`OpenError::Damaged`]; [`OpenError::Arena`].
    pub fn open_opaque(&self, arena: &Arena, wrapped: &Wrapped) -> Result<OpaqueKey, OpenError> {
        let found = wrapped.blob.len();
        let len = match (wrapped.alg, found) {
            (WrapAlg::A256KW, 40 | 72) => found - 8,
            _ => return Err(OpenError::WrongLength { expected: 40, found }),
        };
        Ok(OpaqueKey { slot: unwrap_slot(self, arena, &wrapped.blob, len)? })
    }
}

impl std::fmt::Debug for OpaqueKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpaqueKey(secret)")
    }
}

/// The base64 text of `key`, into a `text` of its length.
fn encode_into(key: &[u8], text: &mut [u8]) {
    for (group, out) in key.chunks(3).zip(text.chunks_mut(4)) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for (place, (shift, out)) in [18, 12, 6, 0].into_iter().zip(out).enumerate() {
            *out = if place > group.len() { b'=' } else { encode(bits >> shift) };
        }
    }
}

/// The bytes of base64 digits without their padding, into a `key` of its length. Not zero when a digit is none, or bits behind
/// the last byte are set: looked at once, at the end.
fn decode_into(digits: &[u8], key: &mut [u8]) -> u32 {
    let mut wrong = 0;
    for (group, out) in digits.chunks(4).zip(key.chunks_mut(3)) {
        let mut bits = 0;
        for place in 0..4 {
            let digit = decode(group.get(place).copied().unwrap_or(b'A'));
            wrong |= digit & !63;
            bits = (bits << 6) | (digit & 63);
        }
        let [_, bytes @ ..] = u32::to_be_bytes(bits);
        let (kept, behind) = bytes.split_at(out.len());
        out.copy_from_slice(kept);
        wrong |= behind.iter().fold(0, |sum, byte| sum | u32::from(*byte));
    }
    std::hint::black_box(wrong)
}

/// All ones when `x` lies in `low..=high`, else zero; all are below 2^31.
fn within(x: u32, low: u32, high: u32) -> u32 {
    // A difference below zero has its top bit set.
    let outside = (x.wrapping_sub(low) | high.wrapping_sub(x)) >> 31;
    outside.wrapping_sub(1)
}

/// The character of the lowest six bits.
fn encode(bits: u32) -> u8 {
    let x = bits & 63;
    let character = (within(x, 0, 25) & x.wrapping_add(65))
        | (within(x, 26, 51) & (x.wrapping_add(71)))
        | (within(x, 52, 61) & (x.wrapping_sub(4)))
        | (within(x, 62, 62) & u32::from(b'+'))
        | (within(x, 63, 63) & u32::from(b'/'));
    let [.., character] = character.to_be_bytes();
    character
}

/// The six bits of a character; bit 6 is set when it is none.
fn decode(character: u8) -> u32 {
    let x = u32::from(character);
    let [upper, lower, digit] = [(b'A', b'Z'), (b'a', b'z'), (b'0', b'9')]
        .map(|(low, high)| within(x, u32::from(low), u32::from(high)));
    let [plus, slash] = [b'+', b'/'].map(|one| within(x, u32::from(one), u32::from(one)));
    let known = upper | lower | digit | plus | slash;
    (upper & x.wrapping_sub(65))
        | (lower & x.wrapping_sub(71))
        | (digit & x.wrapping_add(4))
        | (plus & 62)
        | (slash & 63)
        | (!known & 64)
}

#[cfg(test)]
#[path = "opaque_tests.rs"]
mod tests;

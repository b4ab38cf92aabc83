//! Owns the key types and what each may be used for.
//!
//! It must not know how keys are wrapped (`wrap`) or what their data is. Flow: a key is made by
//! `generate`, by derivation from another key, or by [`Kek::open`]; it lives in an arena slot and
//! is wiped with it.

use zeroize::Zeroizing;

use crate::arena::{Arena, Slot};
use crate::check::CheckValue;
use crate::passphrase::{Argon2Params, Passphrase};
use crate::{KeyError, kdf, random};

/// A key-encryption key: AES-256, made by a key provider. Wraps and opens [`DataKey`]s.
pub struct Kek {
    slot: Slot,
}

/// A disk's data key: the two AES-256 keys of XTS, 64 bytes, halves different.
pub struct Dek {
    slot: Slot,
}

/// A VM home's key, 32 bytes, from which the key of each file is derived.
pub struct HomeKey {
    slot: Slot,
}

/// The root of the built-in key provider, 32 bytes, from which its KEKs are derived.
pub struct RootKey {
    slot: Slot,
}

/// A key that a KEK wraps. Implemented here only, by [`Dek`], [`HomeKey`] and [`RootKey`].
pub trait DataKey: sealed::FromSlot + MacSource {
    /// Bytes of the key.
    const LEN: usize;
    /// Bytes of the wrapped key (RFC 3394 adds one 64-bit word).
    const WRAPPED_LEN: usize = Self::LEN + 8;
}

/// A key from which a [`crate::MacKey`] may be derived. Implemented here only.
pub trait MacSource: sealed::Bytes {}

/// Access to key bytes, for this crate alone.
pub(crate) mod sealed {
    use crate::KeyError;
    use crate::arena::Slot;

    /// Read access.
    pub trait Bytes {
        /// The key bytes.
        fn bytes(&self) -> &[u8];
    }

    /// Construction from bytes already in the arena, with the checks that the kind of key needs.
    pub trait FromSlot: Sized {
        /// Takes the slot over.
        fn from_slot(slot: Slot) -> Result<Self, KeyError>;
    }
}

use sealed::{Bytes, FromSlot};

impl Kek {
    pub(crate) const LEN: usize = 32;

    /// A KEK of bytes that are in the arena already.
    pub(crate) fn of(slot: Slot) -> Self {
        Self { slot }
    }

    /// A new random KEK.
    ///
    /// # Errors
    /// [`KeyError::Arena`] or [`KeyError::Random`].
    pub fn generate(arena: &Arena) -> Result<Self, KeyError> {
        Ok(Self { slot: random_slot(arena, Self::LEN)? })
    }

    /// The KEK that Argon2id (RFC 9106) makes of a passphrase. Takes as long as `params` say.
    ///
    /// # Errors
    /// [`KeyError::Argon2Bounds`], [`KeyError::Argon2Memory`] or [`KeyError::Arena`].
    pub fn from_passphrase(
        arena: &Arena,
        passphrase: &Passphrase,
        params: &Argon2Params,
    ) -> Result<Self, KeyError> {
        let mut slot = arena.slot(Self::LEN)?;
        passphrase.stretch(params, slot.bytes_mut())?;
        Ok(Self { slot })
    }

    /// The same KEK once more, in `arena`, for another of those who asked for it together.
    ///
    /// # Errors
    /// [`KeyError::Arena`].
    pub fn copy_to(&self, arena: &Arena) -> Result<Self, KeyError> {
        let mut slot = arena.slot(Self::LEN)?;
        slot.bytes_mut().copy_from_slice(self.bytes());
        Ok(Self { slot })
    }

    /// The public check value: the first 8 bytes of HKDF-SHA-256(KEK, no salt, label).
    pub fn check_value(&self) -> CheckValue {
        let mut bytes = Zeroizing::new([0; 8]);
        #[expect(
            clippy::expect_used,
            reason = "HKDF refuses only more than 255 blocks; this is a quarter of one"
        )]
        kdf::expand_sha256(self.bytes(), &[b"coffer v1 kek check"], &mut *bytes)
            .expect("8 bytes of HKDF");
        CheckValue::new(*bytes)
    }
}

impl Dek {
    /// A new random disk key.
    ///
    /// # Errors
    /// [`KeyError::Arena`] or [`KeyError::Random`].
    pub fn generate(arena: &Arena) -> Result<Self, KeyError> {
        Self::from_slot(random_slot(arena, Self::LEN)?)
    }

    /// The two keys of XTS: of the data and of the tweak.
    pub(crate) fn halves(&self) -> (&[u8; 32], &[u8; 32]) {
        match self.slot.bytes().as_chunks() {
            ([data, tweak], []) => (data, tweak),
            _ => unreachable!("a disk key is 64 bytes by construction"),
        }
    }

    /// The arena that the key lives in.
    pub(crate) fn arena(&self) -> Arena {
        self.slot.arena()
    }
}

impl HomeKey {
    /// A new random home key.
    ///
    /// # Errors
    /// [`KeyError::Arena`] or [`KeyError::Random`].
    pub fn generate(arena: &Arena) -> Result<Self, KeyError> {
        Self::from_slot(random_slot(arena, Self::LEN)?)
    }

    /// The key of the file with this nonce: HKDF-SHA-512(home key, no salt, label || nonce).
    ///
    /// # Errors
    /// [`KeyError::Arena`], or [`KeyError::EqualHalves`] with a chance of 2^-256.
    pub fn file_key(&self, arena: &Arena, nonce: &[u8; 32]) -> Result<Dek, KeyError> {
        let info: [&[u8]; 2] = [b"coffer v1 file", nonce];
        Dek::from_slot(kdf::hkdf_sha512(arena, self.bytes(), &info, Dek::LEN)?)
    }
}

impl RootKey {
    /// A new random root key.
    ///
    /// # Errors
    /// [`KeyError::Arena`] or [`KeyError::Random`].
    pub fn generate(arena: &Arena) -> Result<Self, KeyError> {
        Self::from_slot(random_slot(arena, Self::LEN)?)
    }

    /// The KEK with this uid: HKDF-SHA-256(root key, no salt, label || uid).
    ///
    /// # Errors
    /// [`KeyError::Arena`].
    pub fn derive_kek(&self, arena: &Arena, uid: &str) -> Result<Kek, KeyError> {
        let info: [&[u8]; 2] = [b"coffer v1 native kek ", uid.as_bytes()];
        Ok(Kek { slot: kdf::hkdf_sha256(arena, self.bytes(), &info, Kek::LEN)? })
    }
}

impl DataKey for Dek {
    const LEN: usize = 64;
}

impl DataKey for HomeKey {
    const LEN: usize = 32;
}

impl DataKey for RootKey {
    const LEN: usize = 32;
}

impl FromSlot for Dek {
    fn from_slot(slot: Slot) -> Result<Self, KeyError> {
        let (data, tweak) = slot.bytes().split_at(Self::LEN / 2);
        if equal_in_constant_time(data, tweak) {
            return Err(KeyError::EqualHalves);
        }
        Ok(Self { slot })
    }
}

impl FromSlot for HomeKey {
    fn from_slot(slot: Slot) -> Result<Self, KeyError> {
        Ok(Self { slot })
    }
}

impl FromSlot for RootKey {
    fn from_slot(slot: Slot) -> Result<Self, KeyError> {
        Ok(Self { slot })
    }
}

macro_rules! key_traits {
    ($($key:ident),*) => {$(
        impl Bytes for $key {
            fn bytes(&self) -> &[u8] {
                self.slot.bytes()
            }
        }

        impl MacSource for $key {}

        impl std::fmt::Debug for $key {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($key), "(secret)"))
            }
        }
    )*};
}

key_traits!(Kek, Dek, HomeKey, RootKey);

fn random_slot(arena: &Arena, len: usize) -> Result<Slot, KeyError> {
    let mut slot = arena.slot(len)?;
    random::fill(slot.bytes_mut())?;
    Ok(slot)
}

/// Compares without a branch on the contents. The lengths are public.
fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |sum, (x, y)| std::hint::black_box(sum | (x ^ y)));
    a.len() == b.len() && difference == 0
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;

//! The leaf that owns every key byte.
//!
//! Owns locked memory, the key types, AES key wrap, key derivation, MACs, passphrases and the XTS
//! engines. It must not know files, volumes, protocols or who its callers are. Flow: a
//! [`Passphrase`] or the random source makes a [`Kek`]; the [`Kek`] opens a wrap into the
//! [`Arena`] as a [`DataKey`]; a [`Dek`] becomes an [`Xts`], which ciphers disk sectors in place.
//!
//! ```
//! use crypto::{Arena, Dek, Kek, Unit, Xts};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let arena = Arena::new(64 * 1024)?;
//! let kek = Kek::generate(&arena)?;
//! let wrapped = kek.wrap(&Dek::generate(&arena)?)?;
//!
//! let disk = Xts::new(kek.open(&arena, &wrapped)?, Unit::B4096)?;
//! let mut data = b"sixteen bytes...".repeat(256);
//! disk.encrypt(8, &mut data)?;
//! assert!(!data.starts_with(b"sixteen"));
//! disk.decrypt(8, &mut data)?;
//! assert!(data.starts_with(b"sixteen"));
//! # Ok(())
//! # }
//! ```
//!
//! No function takes or returns an unencrypted key as bytes, but for those that a client of key servers needs
//! ([`Kek::from_wire`], [`Kek::to_wire`], [`OpaqueKey::from_base64`], [`OpaqueKey::write_base64`]): such a key comes and
//! goes in a message. Key types have no `Clone`, no
//! comparison, no serialisation, and a `Debug` that prints their name only; they are wiped on drop.
//!
//! What is not covered: what the processor's general registers hold (and, other than on x86-64, its
//! vector registers), and what the kernel saves of registers when it interrupts a computation. Stack
//! frames and vector registers of the primitives are overwritten after each use of a key.

mod arena;
mod bytes;
mod check;
mod digest;
mod error;
#[cfg(feature = "aws-lc")]
mod hpke;
mod kdf;
mod key_id;
mod keys;
mod mac;
mod opaque;
mod passphrase;
mod random;
mod registers;
#[cfg(test)]
mod residue_tests;
mod self_test;
mod sheet;
mod siv;
mod stack;
#[cfg(test)]
mod support;
#[cfg(feature = "aws-lc")]
mod tpm;
mod wire;
mod wrap;
mod xts;

pub use arena::{Arena, ArenaError, MemlockLimit, Protection, Usage, lock_process_memory};
pub use check::{CheckValue, CheckValueError};
pub use digest::{sha256, sha256_hex};
pub use error::{KeyError, OpenError, PassphraseError};
#[cfg(feature = "aws-lc")]
pub use hpke::{HostKey, HostPublicKey, PushContext, SealedKek};
pub use key_id::{KeyId, KeyIdError};
pub use keys::{DataKey, Dek, HomeKey, Kek, MacSource, RootKey};
pub use mac::MacKey;
pub use opaque::OpaqueKey;
pub use passphrase::{Argon2Params, MAX_PASSPHRASE_BYTES, Passphrase};
pub use random::random_array;
pub use self_test::{SelfTestError, self_test};
pub use sheet::{KeySheet, MAX_SHEET_KEYS, SheetKey};
pub use siv::SivKey;
#[cfg(feature = "aws-lc")]
pub use tpm::{TpmPoint, TpmSalt, TpmSession};
pub use wrap::{WrapAlg, Wrapped};
pub use xts::{Engine, SECTOR_BYTES, Unit, UnitError, Xts, XtsError};

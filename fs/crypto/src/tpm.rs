//! Owns the secrets of a session with a TPM 2.0, and the two doors through which a KEK passes into and out of the TPM.
//!
//! It must not know commands: it is given what they are made of. Flow: [`TpmSalt`] agrees on a salt with the storage key of
//! the TPM; with the nonces of both sides it becomes a [`TpmSession`], which authenticates commands and answers, and
//! ciphers the one parameter that carries a KEK, so that the key is never in clear outside the arena and the TPM.
//!
//! All of it is of the TPM 2.0 Library, part 1 (Architecture): KDFa and KDFe in section 11.4.10, the salt in annex C.6.1,
//! the session key in section 19.6.8, HMACs in section 19.6.5, ciphering of parameters in section 21. The hash is SHA-256
//! everywhere, the cipher AES-128 in CFB mode, the curve NIST P-256.

use aes::Aes128Enc;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aws_lc_rs::agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::KeyError;
use crate::arena::{Arena, Slot};
use crate::bytes::fixed;
use crate::keys::Kek;
use crate::keys::sealed::Bytes;
use crate::mac::MacKey;
use crate::stack::wiping_stack;

/// Bytes of a coordinate on P-256, of a hash, and of a key of a session.
const LEN: usize = 32;

/// Bytes of a block, and of a key, of AES-128.
const BLOCK: usize = 16;

/// A public point on NIST P-256: x and y, big-endian.
pub type TpmPoint = [[u8; LEN]; 2];

/// A salt that only this process and the TPM know.
pub struct TpmSalt {
    key: MacKey,
    point: TpmPoint,
}

impl TpmSalt {
    /// Agrees with the storage key of a TPM, whose public point is `parent`, by a key pair that is used this once.
    ///
    /// # Errors
    /// [`KeyError::TpmPoint`] when that is no point on the curve; [`KeyError::Arena`]; [`KeyError::Primitive`].
    pub fn agree(arena: &Arena, parent: &TpmPoint) -> Result<Self, KeyError> {
        let ours = PrivateKey::generate(&ECDH_P256).map_err(|_| KeyError::Primitive("ECDH"))?;
        Self::agree_with(arena, parent, &ours)
    }

    fn agree_with(arena: &Arena, parent: &TpmPoint, ours: &PrivateKey) -> Result<Self, KeyError> {
        let public = ours.compute_public_key().map_err(|_| KeyError::Primitive("ECDH"))?;
        let point = coordinates(public.as_ref())?;
        let mut encoded = [4; 1 + 2 * LEN];
        encoded[1..=LEN].copy_from_slice(&parent[0]);
        encoded[1 + LEN..].copy_from_slice(&parent[1]);
        let mut salt = arena.slot(LEN)?;
        let theirs = UnparsedPublicKey::new(&ECDH_P256, &encoded[..]);
        wiping_stack(|| {
            agreement::agree(ours, theirs, KeyError::TpmPoint, |shared| {
                kdfe(shared, b"SECRET", &point[0], &parent[0], salt.bytes_mut());
                Ok(())
            })
        })?;
        Ok(Self { key: MacKey::of(salt), point })
    }

    /// The public point of our key pair, from which the TPM makes the same salt.
    pub fn point(&self) -> &TpmPoint {
        &self.point
    }

    /// The session that was begun with these nonces, for no particular object (unbound).
    ///
    /// # Errors
    /// [`KeyError::Arena`].
    pub fn session(
        self,
        arena: &Arena,
        of_tpm: &[u8],
        ours: &[u8],
    ) -> Result<TpmSession, KeyError> {
        Ok(TpmSession { key: MacKey::of(kdfa(arena, &self.key, b"ATH", of_tpm, ours)?) })
    }
}

/// The key of a session. Objects that it authorises have no password, so that it is all that their HMACs depend on.
pub struct TpmSession {
    key: MacKey,
}

impl TpmSession {
    /// The HMAC of the concatenation of `parts`.
    pub fn tag(&self, parts: &[&[u8]]) -> [u8; LEN] {
        self.key.tag(parts)
    }

    /// Whether `tag` is the HMAC of `parts`.
    pub fn verify(&self, parts: &[&[u8]], tag: &[u8]) -> bool {
        self.key.verify(parts, tag)
    }

    /// `head` and the KEK, ciphered for a command that carries the nonces `ours` (the newer one) and `of_tpm`.
    ///
    /// # Errors
    /// [`KeyError::Arena`].
    pub fn conceal(
        &self,
        arena: &Arena,
        (ours, of_tpm): (&[u8], &[u8]),
        head: &[u8],
        kek: &Kek,
    ) -> Result<Vec<u8>, KeyError> {
        let mut data = arena.slot(head.len() + Kek::LEN)?;
        let (front, back) = data.bytes_mut().split_at_mut(head.len());
        front.copy_from_slice(head);
        back.copy_from_slice(kek.bytes());
        self.cfb(arena, (ours, of_tpm), data.bytes_mut(), Direction::Encrypt)?;
        Ok(data.bytes().to_vec())
    }

    /// The KEK in an answer that carries the nonces `of_tpm` (the newer one) and `ours`.
    ///
    /// # Errors
    /// [`KeyError::WireLength`] unless it is exactly 32 bytes; [`KeyError::Arena`].
    pub fn reveal(
        &self,
        arena: &Arena,
        (of_tpm, ours): (&[u8], &[u8]),
        concealed: &[u8],
    ) -> Result<Kek, KeyError> {
        if concealed.len() != Kek::LEN {
            return Err(KeyError::WireLength { expected: Kek::LEN, found: concealed.len() });
        }
        let mut slot = arena.slot(Kek::LEN)?;
        slot.bytes_mut().copy_from_slice(concealed);
        self.cfb(arena, (of_tpm, ours), slot.bytes_mut(), Direction::Decrypt)?;
        Ok(Kek::of(slot))
    }

    /// AES-128 in CFB mode (NIST SP 800-38A section 6.3) in place; key and vector are KDFa of the nonces.
    fn cfb(
        &self,
        arena: &Arena,
        (newer, older): (&[u8], &[u8]),
        data: &mut [u8],
        direction: Direction,
    ) -> Result<(), KeyError> {
        let secret = kdfa(arena, &self.key, b"CFB", newer, older)?;
        let (key, vector) = secret.bytes().split_at(BLOCK);
        let (key, vector) = (fixed::<BLOCK>(key, "CFB")?, fixed::<BLOCK>(vector, "CFB")?);
        wiping_stack(|| {
            let cipher = Aes128Enc::new(key.into());
            let mut feedback = *vector;
            for piece in data.chunks_mut(BLOCK) {
                let mut stream = feedback.into();
                cipher.encrypt_block(&mut stream);
                for ((byte, mask), next) in piece.iter_mut().zip(stream).zip(&mut feedback) {
                    let before = *byte;
                    *byte ^= mask;
                    *next = if direction == Direction::Encrypt { *byte } else { before };
                }
            }
        });
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Encrypt,
    Decrypt,
}

/// KDFa for 256 bits: one block of HMAC (NIST SP 800-108 in counter mode).
fn kdfa(
    arena: &Arena,
    key: &MacKey,
    label: &[u8],
    party_u: &[u8],
    party_v: &[u8],
) -> Result<Slot, KeyError> {
    let mut slot = arena.slot(LEN)?;
    let parts = [&[0, 0, 0, 1][..], label, &[0], party_u, party_v, &[0, 0, 1, 0]];
    slot.bytes_mut().copy_from_slice(&Zeroizing::new(key.tag(&parts))[..]);
    Ok(slot)
}

/// KDFe for 256 bits: one block of SHA-256 (NIST SP 800-56A, concatenation).
fn kdfe(shared: &[u8], label: &[u8], party_u: &[u8], party_v: &[u8], out: &mut [u8]) {
    let mut hash = Sha256::new();
    for part in [&[0, 0, 0, 1][..], shared, label, &[0], party_u, party_v] {
        hash.update(part);
    }
    out.copy_from_slice(&hash.finalize());
}

/// x and y of an uncompressed point (SEC 1 section 2.3.3).
fn coordinates(encoded: &[u8]) -> Result<TpmPoint, KeyError> {
    let [4, both @ ..] = encoded else { return Err(KeyError::Primitive("ECDH")) };
    let (x, y) = fixed::<{ 2 * LEN }>(both, "ECDH")?.split_at(LEN);
    Ok([*fixed(x, "ECDH")?, *fixed(y, "ECDH")?])
}

impl std::fmt::Debug for TpmSalt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TpmSalt(secret)")
    }
}

impl std::fmt::Debug for TpmSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TpmSession(secret)")
    }
}

#[cfg(test)]
#[path = "tpm_tests.rs"]
mod tests;

//! Owns the way of a KEK from the control plane to a host: HPKE (RFC 9180) to a key that the host made for it.
//!
//! It must not know connections, nor who may push. Flow: a host makes a [`HostKey`] at its start and shows the public half;
//! the control plane seals a [`Kek`] to it for one [`PushContext`]; the host opens it into its arena, and names the same
//! context. Base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, one message a context: who sent it is the
//! connection's to say.
//!
//! The private key and the KEK lie in the arena. AWS-LC copies both to its heap while it works, which the process locks
//! ([`crate::lock_process_memory`]), and cleanses each block before it frees it.

mod aws_lc;

use std::fmt;
use std::str::FromStr;

use crate::arena::{Arena, Slot};
use crate::keys::Kek;
use crate::keys::sealed::Bytes;
use crate::{KeyError, KeyId};

use aws_lc::Fault;

/// Bytes of a private key, a public key and an encapsulated key of X25519 (RFC 9180 section 7.1).
const X25519: usize = 32;
/// Bytes that AES-GCM adds (RFC 5116 section 5.2).
const TAG: usize = 16;
/// `info` of the key schedule (RFC 9180 section 5.1): no other use of HPKE shares it.
const INFO: &[u8] = b"coffer v1 kek push";

/// A host's key pair, to which KEKs are sealed. It is made anew at each start and never stored, so that what was
/// recorded of earlier connections cannot be opened later.
pub struct HostKey {
    private: Slot,
    public: HostPublicKey,
}

/// The public half of a [`HostKey`]; 64 hex digits as text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HostPublicKey([u8; X25519]);

/// A KEK sealed to one host: the encapsulated key, then the ciphertext with its tag; 160 hex digits as text.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedKek([u8; SealedKek::LEN]);

/// What a sealed KEK is for: authenticated with it, so that it opens as nothing else.
#[derive(Debug, Clone, Copy)]
pub struct PushContext<'a> {
    /// Identity of the host.
    pub host: [u8; 16],
    /// Identity of the start of the host that made the key pair.
    pub start: [u8; 16],
    /// Name of the KEK.
    pub key: &'a KeyId,
    /// State of the control plane's key list that this is a part of; it only grows.
    pub generation: u64,
}

impl HostKey {
    /// A new random key pair.
    ///
    /// # Errors
    /// [`KeyError::Arena`]; [`KeyError::Primitive`] when AWS-LC has no memory.
    pub fn generate(arena: &Arena) -> Result<Self, KeyError> {
        let mut private = arena.slot(X25519)?;
        let mut public = [0; X25519];
        aws_lc::generate(private.bytes_mut(), &mut public)
            .map_err(|_| KeyError::Primitive("EVP_HPKE_KEY_generate"))?;
        Ok(Self { private, public: HostPublicKey(public) })
    }

    /// The private key, for the search of what is left of it.
    #[cfg(test)]
    pub(crate) fn private_bytes(&self) -> &[u8] {
        self.private.bytes()
    }

    /// What is shown to those who seal.
    pub fn public(&self) -> HostPublicKey {
        self.public
    }

    /// Opens what was sealed to this key for the same context.
    ///
    /// # Errors
    /// [`KeyError::SealedElsewhere`] when it was not, or was changed; [`KeyError::WireZero`]; [`KeyError::Arena`].
    pub fn open(
        &self,
        arena: &Arena,
        context: &PushContext<'_>,
        sealed: &SealedKek,
    ) -> Result<Kek, KeyError> {
        let mut slot = arena.slot(Kek::LEN)?;
        let (enc, text) = sealed.0.split_at(X25519);
        let message = aws_lc::Message { info: INFO, aad: &context.bytes(), enc, text };
        aws_lc::open(aws_lc::aes_256_gcm(), self.private.bytes(), &message, slot.bytes_mut())
            .map_err(|fault| match fault {
                Fault::Refused => KeyError::SealedElsewhere,
                Fault::Memory => KeyError::Primitive("EVP_HPKE_CTX_new"),
            })?;
        // The same refusal as for a key of a key server.
        if slot.bytes().iter().fold(0, |sum, byte| std::hint::black_box(sum | byte)) == 0 {
            return Err(KeyError::WireZero);
        }
        Ok(Kek::of(slot))
    }
}

impl HostPublicKey {
    /// Seals a KEK to the host that showed this key.
    ///
    /// # Errors
    /// [`KeyError::HostKey`] when the public key is none that anything can be sealed to; [`KeyError::Primitive`] when
    /// AWS-LC has no memory.
    pub fn seal(&self, kek: &Kek, context: &PushContext<'_>) -> Result<SealedKek, KeyError> {
        let mut sealed = [0; SealedKek::LEN];
        let (enc, text) = sealed.split_at_mut(X25519);
        let plain = aws_lc::Plain { info: INFO, aad: &context.bytes(), text: kek.bytes() };
        aws_lc::seal(&self.0, &plain, enc, text).map_err(|fault| match fault {
            Fault::Refused => KeyError::HostKey,
            Fault::Memory => KeyError::Primitive("EVP_HPKE_CTX_seal"),
        })?;
        Ok(SealedKek(sealed))
    }
}

impl SealedKek {
    /// Bytes of a sealed KEK.
    pub const LEN: usize = X25519 + Kek::LEN + TAG;
}

impl PushContext<'_> {
    /// Host, start, generation (big-endian), key id: all but the last have one length, so that no two contexts have the
    /// same bytes.
    fn bytes(&self) -> Vec<u8> {
        let key = self.key.to_string();
        [&self.host[..], &self.start, &self.generation.to_be_bytes(), key.as_bytes()].concat()
    }
}

impl FromStr for HostPublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        parse(text, "public key of a host").map(Self)
    }
}

impl FromStr for SealedKek {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        parse(text, "sealed key").map(Self)
    }
}

/// Exactly `N` bytes of hex digits.
fn parse<const N: usize>(text: &str, what: &'static str) -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    let done = hex::decode_to_slice(text, &mut bytes);
    done.map_err(|_| KeyError::Hex { what, digits: 2 * N })?;
    Ok(bytes)
}

impl fmt::Display for HostPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Display for SealedKek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostKey(secret)")
    }
}

impl fmt::Debug for HostPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostPublicKey({self})")
    }
}

/// Never its digits: a log has no business with a key, sealed or not.
impl fmt::Debug for SealedKek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedKek")
    }
}

#[cfg(test)]
#[path = "hpke_tests.rs"]
mod tests;

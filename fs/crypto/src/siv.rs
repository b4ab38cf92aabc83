//! Owns AES-256-SIV (RFC 5297): encryption that authenticates, and needs no nonce to stay safe.
//!
//! It must not know what is encrypted. Flow: derive a [`SivKey`] from a key with a label, then [`SivKey::seal`] a
//! value in place with what it belongs to, and [`SivKey::open`] it again; a value that was changed, or belongs to
//! something else, does not open.

use aes::Aes256Enc;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use zeroize::Zeroize;

use crate::KeyError;
use crate::arena::{Arena, Held};
use crate::bytes::fixed;
use crate::kdf;
use crate::keys::MacSource;
use crate::stack::wiping_stack;

/// Bytes of a block of AES, and of the synthetic initialisation vector.
const BLOCK: usize = 16;

/// Bits of the vector that are cleared before it counts blocks (RFC 5297 section 2.5).
const COUNTER_MASK: u128 = !((1 << 63) | (1 << 31));

/// A key for AES-256-SIV, 64 bytes, of one purpose; its expanded halves are in the arena.
pub struct SivKey {
    schedules: Held<Schedules>,
}

/// The two halves (RFC 5297 section 2.6), expanded, and what every value needs of the first: half of the cipher calls
/// for a short one.
struct Schedules {
    mac: Aes256Enc,
    counter: Aes256Enc,
    /// Subkey K1 of CMAC.
    subkey: u128,
    /// CMAC of a block of zeros, with which S2V begins.
    start: u128,
}

impl SivKey {
    /// Bytes that a sealed value has in front of the ciphertext.
    pub const VECTOR: usize = BLOCK;

    const LEN: usize = 64;

    /// HKDF-SHA-512(key, no salt, info).
    ///
    /// # Errors
    /// [`KeyError::Arena`].
    pub fn derive<K: MacSource>(key: &K, arena: &Arena, info: &str) -> Result<Self, KeyError> {
        let slot = kdf::hkdf_sha512(arena, key.bytes(), &[info.as_bytes()], Self::LEN)?;
        Self::expand(arena, fixed(slot.bytes(), "AES-SIV")?)
    }

    fn expand(arena: &Arena, key: &[u8; Self::LEN]) -> Result<Self, KeyError> {
        let (mac, counter) = key.split_at(Self::LEN / 2);
        let (mac, counter) = (fixed::<32>(mac, "AES-SIV")?, fixed::<32>(counter, "AES-SIV")?);
        let schedules = Held::new(arena, || Schedules::new(mac, counter))?;
        Ok(Self { schedules })
    }

    /// Encrypts `data` in place and returns the vector that belongs before it (RFC 5297 section 2.6). At most 126
    /// strings of `associated` data, which must be the same when it is opened, in the same order.
    pub fn seal(&self, associated: &[&[u8]], data: &mut [u8]) -> [u8; BLOCK] {
        wiping_stack(|| {
            let vector = self.schedules.vector(associated, data);
            self.schedules.count(vector, data);
            vector.to_be_bytes()
        })
    }

    /// Decrypts `data` in place (RFC 5297 section 2.7). When it returns false, `data` is wiped: it was changed, or
    /// sealed with another key or other associated data.
    #[must_use]
    pub fn open(&self, associated: &[&[u8]], vector: &[u8; BLOCK], data: &mut [u8]) -> bool {
        let authentic = wiping_stack(|| {
            let vector = u128::from_be_bytes(*vector);
            self.schedules.count(vector, data);
            // One comparison of two registers: there is no place where it could stop early.
            std::hint::black_box(self.schedules.vector(associated, data) ^ vector) == 0
        });
        if !authentic {
            data.zeroize();
        }
        authentic
    }
}

impl std::fmt::Debug for SivKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SivKey(secret)")
    }
}

impl Schedules {
    fn new(mac: &[u8; 32], counter: &[u8; 32]) -> Self {
        let (mac, counter) = (Aes256Enc::new(mac.into()), Aes256Enc::new(counter.into()));
        let subkey = double(encrypt(&mac, 0));
        // One whole block, so its subkey is K1.
        let start = encrypt(&mac, subkey);
        Self { mac, counter, subkey, start }
    }

    /// S2V (RFC 5297 section 2.4).
    fn vector(&self, associated: &[&[u8]], data: &[u8]) -> u128 {
        let mut sum = self.start;
        for part in associated {
            sum = double(sum) ^ self.cmac(&[part]);
        }
        match data.split_last_chunk::<BLOCK>() {
            Some((front, last)) => {
                let last = (u128::from_be_bytes(*last) ^ sum).to_be_bytes();
                self.cmac(&[front, &last])
            }
            None => self.cmac(&[&(double(sum) ^ padded(data)).to_be_bytes()]),
        }
    }

    /// CMAC (NIST SP 800-38B, RFC 4493) of the concatenation of `parts`.
    fn cmac(&self, parts: &[&[u8]]) -> u128 {
        let key = self.subkey;
        let (mut state, mut held, mut count) = (0, [0; BLOCK], 0);
        for &byte in parts.iter().copied().flatten() {
            // The last block is special, so one is worked off only when more follows.
            if count == BLOCK {
                state = self.encrypt_mac(state ^ u128::from_be_bytes(held));
                count = 0;
            }
            held[count] = byte;
            count += 1;
        }
        let last = match count {
            BLOCK => u128::from_be_bytes(held) ^ key,
            _ => padded(&held[..count]) ^ double(key),
        };
        self.encrypt_mac(state ^ last)
    }

    /// Counter mode from the vector on (RFC 5297 section 2.5); its own inverse.
    fn count(&self, vector: u128, data: &mut [u8]) {
        let mut counter = vector & COUNTER_MASK;
        for piece in data.chunks_mut(BLOCK) {
            let stream = encrypt(&self.counter, counter).to_be_bytes();
            piece.iter_mut().zip(stream).for_each(|(byte, mask)| *byte ^= mask);
            counter = counter.wrapping_add(1);
        }
    }

    fn encrypt_mac(&self, block: u128) -> u128 {
        encrypt(&self.mac, block)
    }
}

fn encrypt(key: &Aes256Enc, block: u128) -> u128 {
    let mut block = block.to_be_bytes().into();
    key.encrypt_block(&mut block);
    u128::from_be_bytes(block.into())
}

/// Multiplication by x in GF(2^128) (RFC 5297 section 2.3).
fn double(value: u128) -> u128 {
    (value << 1) ^ ((value >> 127) * 0x87)
}

/// Less than a block, a one bit, zeros.
fn padded(bytes: &[u8]) -> u128 {
    let mut block = [0; BLOCK];
    block[..bytes.len()].copy_from_slice(bytes);
    block[bytes.len()] = 0x80;
    u128::from_be_bytes(block)
}

#[cfg(test)]
#[path = "siv_tests.rs"]
mod tests;

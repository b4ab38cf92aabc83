//! Owns plain digests: of a backup, to confirm that it is the file it should be, and of what a TPM hashes.
//!
//! It must not see key bytes: SHA-256 of a key is not a key check value.

use sha2::{Digest, Sha256};

/// SHA-256 (FIPS 180-4) of `bytes` in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// SHA-256 (FIPS 180-4) of the concatenation of `parts`.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

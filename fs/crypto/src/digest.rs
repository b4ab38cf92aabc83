//! Owns the plain digest used to confirm that a backup is the file it should be.
//!
//! It must not see key bytes: SHA-256 of a key is not a key check value.

use sha2::{Digest, Sha256};

/// SHA-256 (FIPS 180-4) of `bytes` in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

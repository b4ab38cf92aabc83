//! Owns the one source of randomness: the kernel's.
//!
//! It must not know what the bytes are for. Flow: `getrandom(2)` fills the destination directly, so
//! a key never passes through a buffer.

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::KeyError;

/// `N` public random bytes: nonces and salts, never keys.
///
/// # Errors
/// [`KeyError::Random`] when the kernel gives none.
pub fn random_array<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}

/// Fills `bytes`, waiting at early boot until the kernel's generator is seeded.
pub(crate) fn fill(mut bytes: &mut [u8]) -> Result<(), KeyError> {
    while !bytes.is_empty() {
        match getrandom(&mut *bytes, GetRandomFlags::empty()) {
            Ok(got) => bytes = bytes.get_mut(got..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(KeyError::Random(errno.into())),
        }
    }
    Ok(())
}

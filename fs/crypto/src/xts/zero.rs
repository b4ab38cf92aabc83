//! Owns the recognition of ciphertext sectors that were never written: 512 zero bytes.
//!
//! It must not know keys or units. Flow: [`holes`] notes the zero sectors of one stretch before it is
//! decrypted; [`Holes::clear`] zeroes them again afterwards.

use super::units::{BLOCK_BYTES, SECTOR_BYTES};

/// Which sectors of a stretch (at most 8) are zero, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holes {
    zero: u8,
    sectors: u8,
}

/// The zero sectors of `stretch`. Written data fails at its first block, so this costs one load a
/// sector; only a sector that starts with 16 zero bytes is looked at as a whole.
#[inline]
pub(super) fn holes(stretch: &[u8]) -> Holes {
    let mut found = Holes { zero: 0, sectors: 0 };
    for (index, sector) in stretch.chunks_exact(SECTOR_BYTES).enumerate() {
        found.sectors |= 1 << index;
        if starts_with_zeros(sector) && is_zero(sector) {
            found.zero |= 1 << index;
        }
    }
    found
}

impl Holes {
    /// Whether nothing is left to decrypt.
    #[inline]
    pub(super) fn is_everything(self) -> bool {
        self.zero == self.sectors
    }

    /// Zeroes the noted sectors of the decrypted stretch.
    #[inline]
    pub(super) fn clear(self, stretch: &mut [u8]) {
        if self.zero == 0 {
            return;
        }
        for (index, sector) in stretch.chunks_exact_mut(SECTOR_BYTES).enumerate() {
            if self.zero & (1 << index) != 0 {
                sector.fill(0);
            }
        }
    }
}

#[inline]
fn starts_with_zeros(sector: &[u8]) -> bool {
    sector.first_chunk::<BLOCK_BYTES>() == Some(&[0; BLOCK_BYTES])
}

/// No early exit, so that it becomes wide vector code.
#[inline]
fn is_zero(sector: &[u8]) -> bool {
    sector.iter().fold(0, |sum, byte| sum | byte) == 0
}

#[cfg(test)]
#[path = "zero_tests.rs"]
mod tests;

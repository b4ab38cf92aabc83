//! Owns the arithmetic of data units: where data is cut and which tweaks it has.
//!
//! It must not touch data or keys. Flow: [`stretches`] walks from the first sector to the end of the
//! data and cuts at every 4096-byte border, whatever the unit; the engine asks each stretch for its
//! tweaks.

use serde::{Deserialize, Serialize};

/// Bytes of a sector, the unit in which positions are counted.
pub const SECTOR_BYTES: usize = 512;

/// Bytes of an AES block.
pub(super) const BLOCK_BYTES: usize = 16;

/// The size of a data unit, the stretch that shares one tweak. A number of bytes in serialised form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum Unit {
    /// 512 bytes.
    B512,
    /// 4096 bytes.
    B4096,
}

/// A number that is no unit size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a data unit has 512 or 4096 bytes, not {0}")]
pub struct UnitError(pub u32);

/// Sectors between two cuts.
const STRETCH_SECTORS: u64 = 8;

/// Bytes of the longest stretch.
pub(super) const STRETCH_BYTES: usize = 8 * SECTOR_BYTES;

/// A stretch of data that crosses no 4096-byte border: (part of) one 4096-byte unit, or up to eight
/// units of 512 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Number of its first sector.
    pub(super) sector: u64,
    /// Bytes of data.
    pub(super) len: usize,
}

impl Unit {
    /// Bytes of the unit.
    pub fn bytes(self) -> usize {
        match self {
            Self::B512 => 512,
            Self::B4096 => 4096,
        }
    }

    /// 512-byte sectors of the unit.
    pub fn sectors(self) -> u64 {
        match self {
            Self::B512 => 1,
            Self::B4096 => 8,
        }
    }
}

impl TryFrom<u32> for Unit {
    type Error = UnitError;

    fn try_from(bytes: u32) -> Result<Self, Self::Error> {
        match bytes {
            512 => Ok(Self::B512),
            4096 => Ok(Self::B4096),
            _ => Err(UnitError(bytes)),
        }
    }
}

impl From<Unit> for u32 {
    fn from(unit: Unit) -> Self {
        match unit {
            Unit::B512 => 512,
            Unit::B4096 => 4096,
        }
    }
}

impl Stretch {
    /// For 4096-byte units: the unit's number (that of its first sector) and the bytes of the unit
    /// that lie before the data.
    #[inline]
    pub(super) fn in_large_unit(self) -> (u64, usize) {
        let unit = self.sector - self.sector % STRETCH_SECTORS;
        // Below eight, so it fits every integer.
        let sectors = usize::try_from(self.sector - unit).unwrap_or(0);
        (unit, sectors * SECTOR_BYTES)
    }
}

/// The tweak of a unit as XTS takes it (IEEE 1619 section 5.1: little-endian).
#[inline]
pub(super) fn tweak_bytes(unit: u64) -> [u8; BLOCK_BYTES] {
    u128::from(unit).to_le_bytes()
}

/// The stretches of `len` bytes (whole sectors, not past the last sector number) from `sector` on.
#[inline]
pub(super) fn stretches(sector: u64, len: usize) -> impl Iterator<Item = Stretch> {
    let (_, skip) = Stretch { sector, len }.in_large_unit();
    let first = Stretch { sector, len: len.min(STRETCH_BYTES - skip) };
    let mut rest = len;
    std::iter::successors(Some(first), move |last| {
        rest -= last.len;
        // The last stretch may end at the last sector number; an empty one follows it then.
        let border = last.sector - last.sector % STRETCH_SECTORS;
        let sector = border.wrapping_add(STRETCH_SECTORS);
        Some(Stretch { sector, len: rest.min(STRETCH_BYTES) })
    })
    .take_while(|stretch| stretch.len > 0)
}

#[cfg(test)]
#[path = "units_tests.rs"]
mod tests;

//! Owns the arithmetic of data units: where data is cut and which tweak each piece has.
//!
//! It must not touch data or keys. Flow: `pieces` walks from the first sector to the end of the data,
//! one piece a unit.

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

/// A stretch of data inside one unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// The unit's tweak before encryption: the number of its first sector.
    pub(super) tweak: u64,
    /// Bytes of the unit before the data.
    pub(super) skip: usize,
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

impl Piece {
    /// The tweak as XTS takes it (IEEE 1619 section 5.1: little-endian).
    #[inline]
    pub(super) fn tweak_bytes(self) -> [u8; BLOCK_BYTES] {
        u128::from(self.tweak).to_le_bytes()
    }
}

/// The pieces of `len` bytes (whole sectors, not past the last sector number) from `sector` on.
#[inline]
pub(super) fn pieces(unit: Unit, sector: u64, len: usize) -> impl Iterator<Item = Piece> {
    let tweak = sector - sector % unit.sectors();
    // Below 8 sectors, so it fits every integer.
    let skip = usize::try_from(sector - tweak).unwrap_or(0) * SECTOR_BYTES;
    let first = Piece { tweak, skip, len: len.min(unit.bytes() - skip) };
    let mut rest = len;
    std::iter::successors(Some(first), move |last| {
        rest -= last.len;
        // The last unit may be the last there is; no piece follows it then.
        let tweak = last.tweak.wrapping_add(unit.sectors());
        Some(Piece { tweak, skip: 0, len: rest.min(unit.bytes()) })
    })
    .take_while(|piece| piece.len > 0)
}

#[cfg(test)]
#[path = "units_tests.rs"]
mod tests;

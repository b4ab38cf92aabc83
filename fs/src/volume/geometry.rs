//! Sizes of disks.
//!
//! Owns the arithmetic of sizes and units; does no I/O and must not know where a size comes from.

use crypto::Unit;
use thiserror::Error;

/// What storage and guests address as one. Sizes are multiples of it.
pub const SECTOR: u64 = 512;

/// Largest disk in bytes, 256 TiB: 2^44 cipher blocks, the most that IEEE 1619-2025 (key scope) allows
/// under one XTS key.
pub const MAX_SIZE: u64 = 1 << 48;

/// Size and unit of a disk, and whether it may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes that the guest sees; the payload has as many.
    pub size: u64,
    /// Data unit of XTS.
    pub unit: Unit,
    /// Writes are refused.
    pub read_only: bool,
}

/// Why a size or unit cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GeometryError {
    /// No bytes.
    #[error("a disk needs at least {SECTOR} bytes")]
    Empty,
    /// Larger than [`MAX_SIZE`].
    #[error("a disk has at most {MAX_SIZE} bytes (256 TiB) under one key, not {0}")]
    TooLarge(u64),
    /// Not a multiple of the unit.
    #[error("a size of {size} bytes is not a multiple of the data unit of {unit} bytes")]
    Uneven {
        /// The size in bytes.
        size: u64,
        /// The unit in bytes.
        unit: u64,
    },
    /// A unit other than 512 and 4096.
    #[error("a data unit has 512 or 4096 bytes, not {0}")]
    Unit(u32),
}

impl Geometry {
    /// Checks that the size fits the unit and the limit.
    pub fn check(&self) -> Result<(), GeometryError> {
        check(self.size, self.unit.sectors() * SECTOR)
    }
}

fn check(size: u64, unit: u64) -> Result<(), GeometryError> {
    match size {
        0 => Err(GeometryError::Empty),
        size if size > MAX_SIZE => Err(GeometryError::TooLarge(size)),
        size if !size.is_multiple_of(unit) => Err(GeometryError::Uneven { size, unit }),
        _ => Ok(()),
    }
}

/// The unit for a disk of `size` bytes: 4096 where the size is a multiple of it, else 512.
pub fn unit_for(size: u64) -> Result<Unit, GeometryError> {
    check(size, SECTOR)?;
    Ok(if size.is_multiple_of(4096) { Unit::B4096 } else { Unit::B512 })
}

/// `size` rounded up to a multiple of 512, as an import or a resize does.
pub fn padded_size(size: u64) -> Result<u64, GeometryError> {
    let padded = size.checked_next_multiple_of(SECTOR).ok_or(GeometryError::TooLarge(size))?;
    check(padded, SECTOR).map(|()| padded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_follows_the_size() {
        assert_eq!(unit_for(4096).unwrap().bytes(), 4096);
        assert_eq!(unit_for(4096 + 512).unwrap().bytes(), 512);
        assert_eq!(unit_for(MAX_SIZE).unwrap().bytes(), 4096);
        assert_eq!(unit_for(0).unwrap_err(), GeometryError::Empty);
        assert_eq!(unit_for(1000).unwrap_err(), GeometryError::Uneven { size: 1000, unit: 512 });
        assert_eq!(unit_for(MAX_SIZE + 512).unwrap_err(), GeometryError::TooLarge(MAX_SIZE + 512));
    }

    #[test]
    fn sizes_are_padded_up() {
        assert_eq!(padded_size(1).unwrap(), 512);
        assert_eq!(padded_size(512).unwrap(), 512);
        assert_eq!(padded_size(513).unwrap(), 1024);
        assert_eq!(padded_size(0).unwrap_err(), GeometryError::Empty);
        for size in [u64::MAX, MAX_SIZE + 1] {
            assert!(matches!(padded_size(size), Err(GeometryError::TooLarge(_))));
        }
    }

    #[test]
    fn a_unit_must_divide_the_size() {
        let geometry = Geometry { size: 4608, unit: Unit::B4096, read_only: false };
        assert_eq!(geometry.check().unwrap_err(), GeometryError::Uneven { size: 4608, unit: 4096 });
        assert_eq!(Geometry { unit: Unit::B512, ..geometry }.check(), Ok(()));
    }
}

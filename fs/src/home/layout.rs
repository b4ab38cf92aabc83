//! Arithmetic of a home file: where plain bytes lie in the stored file, and how the stored length tells the
//! plain size.
//!
//! Owns the numbers of the format (`docs/format.md`, "VM home"); does no I/O, holds no key, keeps no state.
//! A range of plain bytes goes in, a sector-aligned span of the stored file comes out.

/// Length of the header page in front of the data; plain byte `x` is stored at `HEADER + x`.
pub const HEADER: u64 = 4096;

/// Data unit of the cipher, and the grain to which the stored data is padded.
pub const UNIT: u64 = 4096;

/// [`UNIT`] as a length in memory.
pub const UNIT_LEN: usize = 4096;

/// Smallest range that is encrypted on its own; a stored sector of zeros reads as zeros.
pub const SECTOR: u64 = 512;

/// [`SECTOR`] as a length in memory.
pub const SECTOR_LEN: usize = 512;

/// Largest plain size, 256 TiB: the number of blocks that one XTS key may encrypt (2^44, IEEE 1619).
pub const MAX_SIZE: u64 = 1 << 48;

/// What the length of a stored file says about its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// Shorter than a header: created, nothing ever written. The plain size is 0.
    Virgin,
    /// A plain size in bytes.
    Sized(u64),
    /// A length that no sequence of writes leaves behind: less than one unit after the header. The plain size
    /// is 0, and what lies after the header is junk.
    Broken,
}

impl Stored {
    /// Plain size in bytes.
    pub fn size(self) -> u64 {
        match self {
            Stored::Virgin | Stored::Broken => 0,
            Stored::Sized(size) => size,
        }
    }
}

/// Length of the stored file for a plain size: header, whole units, and `size mod UNIT` bytes that only carry
/// the remainder.
pub const fn physical(size: u64) -> u64 {
    HEADER + size.div_ceil(UNIT) * UNIT + size % UNIT
}

/// The inverse of [`physical`], for every length that a stored file can have.
pub const fn decode(physical: u64) -> Stored {
    let Some(data) = physical.checked_sub(HEADER) else { return Stored::Virgin };
    match (data / UNIT, data % UNIT) {
        (units, 0) => Stored::Sized(units * UNIT),
        (0, _) => Stored::Broken,
        (units, rest) => Stored::Sized((units - 1) * UNIT + rest),
    }
}

/// First byte of the unit that holds the last plain byte, and the bytes used in it (0 when there is no unit
/// that is used in part).
pub const fn tail(size: u64) -> (u64, u64) {
    (size - size % UNIT, size % UNIT)
}

/// A length that is known to fit in memory, because it lies inside a request or a unit.
pub(crate) fn in_memory(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// A plain range `at..end` widened to whole sectors, `from..to`.
///
/// Positions are plain offsets; add [`HEADER`] for the stored file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First byte asked for.
    pub at: u64,
    /// End of the bytes asked for.
    pub end: u64,
    /// Start of the first sector touched.
    pub from: u64,
    /// End of the last sector touched.
    pub to: u64,
}

impl Span {
    /// The sectors that `at..end` touches. `end` must not be before `at`.
    pub const fn new(at: u64, end: u64) -> Span {
        Span { at, end, from: at - at % SECTOR, to: end.next_multiple_of(SECTOR) }
    }

    /// Does the first sector hold bytes that were not asked for?
    pub const fn ragged_head(&self) -> bool {
        self.at != self.from || (self.ragged_tail() && self.to - self.from == SECTOR)
    }

    /// Does the last sector hold bytes that were not asked for?
    pub const fn ragged_tail(&self) -> bool {
        self.end != self.to
    }

    /// The whole sectors inside the range; empty (`start >= end`) when there is none.
    pub const fn body(&self) -> std::ops::Range<u64> {
        self.at.next_multiple_of(SECTOR)..self.end - self.end % SECTOR
    }

    /// Number of the first sector, for the cipher.
    pub const fn sector(&self) -> u64 {
        self.from / SECTOR
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;

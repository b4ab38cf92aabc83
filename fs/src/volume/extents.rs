//! Which parts of a disk are not stored and read as zeros.
//!
//! Owns the way from holes of the storage to extents of the disk; must not know how a hole came to be.

use super::geometry::SECTOR;
use crate::backing::Backing;
use std::{io, ops::Range};

/// A part of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Length in bytes.
    pub len: u64,
    /// It is not stored and reads as zeros. Otherwise it may hold anything.
    pub zero: bool,
}

/// The extents of `range`, at most `max`.
///
/// A sector counts as zero only when all of it is in a hole, because one byte of ciphertext makes all
/// of it data: the search runs over whole sectors and is then clipped to the range.
pub(super) fn find(
    backing: &dyn Backing,
    range: Range<u64>,
    max: usize,
) -> io::Result<Vec<Extent>> {
    let mut found: Vec<Extent> = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let (end, zero) = next(backing, at / SECTOR * SECTOR)?;
        let end = end.min(range.end);
        let full = found.len() == max;
        match found.last_mut() {
            Some(last) if last.zero == zero => last.len += end - at,
            _ if full => break,
            _ => found.push(Extent { len: end - at, zero }),
        }
        at = end;
    }
    Ok(found)
}

/// How many bytes at the start of `range` are zero and not stored. One question to the storage, and not the one for
/// the end of data, which some file systems answer by walking over all of it.
pub(super) fn zeros(backing: &dyn Backing, range: Range<u64>) -> io::Result<u64> {
    let data = backing.next_data(range.start / SECTOR * SECTOR)?;
    let data = data.map_or(range.end, |data| data / SECTOR * SECTOR);
    Ok(data.min(range.end).saturating_sub(range.start))
}

/// The end, a multiple of 512 after `at`, up to which everything is zero, or may be data.
fn next(backing: &dyn Backing, at: u64) -> io::Result<(u64, bool)> {
    let Some(data) = backing.next_data(at)? else { return Ok((u64::MAX, true)) };
    let data = data / SECTOR * SECTOR;
    if data > at {
        return Ok((data, true));
    }
    // Between the two questions the data may have become a hole; a sector of data does no harm.
    let hole = backing.next_hole(at)?.next_multiple_of(SECTOR);
    Ok((hole.max(at + SECTOR), false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backing::FaultyBacking;

    const KIB: u64 = 1024;

    fn extents(backing: &FaultyBacking, range: Range<u64>, max: usize) -> Vec<(u64, bool)> {
        let found = find(backing, range, max).unwrap();
        found.into_iter().map(|extent| (extent.len, extent.zero)).collect()
    }

    fn striped() -> FaultyBacking {
        let backing = FaultyBacking::new(64 * KIB);
        backing.write_at(4 * KIB, &[1; 4096]).unwrap();
        backing.write_at(32 * KIB + 100, &[1; 10]).unwrap();
        backing
    }

    #[test]
    fn holes_and_data_alternate() {
        let backing = striped();
        let all =
            [(4096, true), (4096, false), (24 * KIB, true), (512, false), (31 * KIB + 512, true)];
        assert_eq!(extents(&backing, 0..64 * KIB, 99), all);
        assert_eq!(extents(&backing, 0..64 * KIB, 2), all[..2]);
        assert_eq!(extents(&backing, 0..64 * KIB, 0), []);
        assert_eq!(extents(&backing, 64 * KIB..64 * KIB, 9), []);
    }

    #[test]
    fn zeros_at_the_start_are_those_of_the_list() {
        let backing = striped();
        for at in [0, 1, 4095, 4096, 5000, 8191, 8192, 32 * KIB, 32 * KIB + 512, 64 * KIB - 1] {
            let first = find(&backing, at..64 * KIB, 1).unwrap()[0];
            let want = if first.zero { first.len } else { 0 };
            assert_eq!(zeros(&backing, at..64 * KIB).unwrap(), want, "at {at}");
        }
        assert_eq!(zeros(&backing, 0..100).unwrap(), 100);
    }

    #[test]
    fn ranges_are_clipped_at_any_byte() {
        let backing = striped();
        assert_eq!(extents(&backing, 4095..4097, 9), [(1, true), (1, false)]);
        let sector = 32 * KIB;
        assert_eq!(extents(&backing, sector + 1..sector + 511, 9), [(510, false)]);
        assert_eq!(extents(&backing, sector + 300..sector + 513, 9), [(212, false), (1, true)]);
    }

    /// A storage that answers in odd bytes, as none should.
    #[test]
    fn a_sector_with_any_stored_byte_is_data() {
        struct Odd;
        impl Backing for Odd {
            fn len(&self) -> io::Result<u64> {
                Ok(4096)
            }
            fn set_len(&self, _: u64) -> io::Result<()> {
                Err(io::ErrorKind::Unsupported.into())
            }
            fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
                Err(io::ErrorKind::Unsupported.into())
            }
            fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
                Err(io::ErrorKind::Unsupported.into())
            }
            fn flush(&self) -> io::Result<()> {
                Ok(())
            }
            fn punch(&self, _: u64, _: u64) -> io::Result<()> {
                Err(io::ErrorKind::Unsupported.into())
            }
            fn zero_range(&self, _: u64, _: u64) -> io::Result<()> {
                Err(io::ErrorKind::Unsupported.into())
            }
            fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
                Ok((offset < 1100).then(|| offset.max(1000)))
            }
            fn next_hole(&self, offset: u64) -> io::Result<u64> {
                Ok(if (1000..1100).contains(&offset) { 1100 } else { offset })
            }
        }
        let found = find(&Odd, 0..4096, 9).unwrap();
        let zero = |len| Extent { len, zero: true };
        assert_eq!(found, [zero(512), Extent { len: 1024, zero: false }, zero(2560)]);
    }
}
